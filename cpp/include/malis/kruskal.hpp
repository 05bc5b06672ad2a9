// Maximum spanning trees by filter-Kruskal (Osipov, Sanders, Singler: The filter-Kruskal minimum spanning tree
// algorithm, ALENEX 2009), over any source of edges.
//
// Only the nodes - 1 edges of the tree decide anything, but a graph of voxels has several times as many. So the
// edges are not sorted at once:
//
//     source  --scan-->  the strongest edges, about as many as there are nodes  --sort, union-find-->  most of the tree
//     source  --scan-->  the others, less those within one component already    --again, on what is left
//
// The second scan runs in the order of memory over looked-up roots and drops nearly everything, so most edges are
// read twice but never moved or sorted.
//
// A source offers
//     chunks()                 pieces that can be scanned independently, in the order of edge indices
//     scan(chunk, collect)     calls collect.reserve(m), then collect(affinity, edge, a, b) for at most m edges, those
//                              whose affinity passes collect.strength and collect.threshold (select.hpp); or, where
//                              nodes count up along with edges, collect.stretch()
//     sample(take)             calls take(rank) for a part of the edges; returns the factor from that part to all
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "malis/buffer.hpp"
#include "malis/order.hpp"
#include "malis/parallel.hpp"
#include "malis/prefetch.hpp"
#include "malis/union_find.hpp"

namespace malis {

template <class T, class Index>
struct KruskalScratch {
    Parts<T, Index> records, rest;
    Buffer<Record<T, Index>> sorted;
    Buffer<Rank<T>> samples;
    SortScratch<T, Index> keys;
    // The threshold of the previous problem: where one object follows the other it fits most of them, and sampling
    // would cost more than the objects. 0 when there is none.
    Rank<T> hint = 0;
};

namespace detail {

// Keeps all edges that a scan selects.
template <class T, class Index>
class StrongCollector {
  public:
    static constexpr Strength strength = Strength::strong;
    const T threshold;

    StrongCollector(Buffer<Record<T, Index>>& to, T threshold) : threshold(threshold), to_(to), size_(to.size()) {}
    ~StrongCollector() { to_.resize(size_); }
    StrongCollector(const StrongCollector&) = delete;
    StrongCollector& operator=(const StrongCollector&) = delete;
    void reserve(std::size_t more) {
        if (size_ + more > to_.capacity()) {
            to_.resize(size_);
            to_.reserve(size_ + more);
        }
    }
    void operator()(T affinity, Index edge, Index a, Index b) {
        to_.data()[size_++] = {to_rank(affinity), edge, a, b};
    }
    // All that pass among `count` edges edge + i between a + i and b + i; `aff` is where their affinities begin.
    void stretch(const T* aff, const T* aff_end, Index edge, Index a, Index b, Index count) {
        stretch_of(aff, edge, a, b, count, [=](Index block, std::size_t n) {
            return select_passing<strength>(aff + block, aff_end, threshold, n);
        });
    }

  protected:
    template <class Select>
    void stretch_of(const T* aff, Index edge, Index a, Index b, Index count, Select select) {
        reserve(count);
        Record<T, Index>* to = to_.data() + size_;
        for (Index block = 0; block < count; block += 64) {
            std::uint64_t selected = select(block, std::min<Index>(64, count - block));
            for (; selected != 0; selected &= selected - 1) {
                const Index i = block + static_cast<Index>(lowest_bit(selected));
                *to++ = {to_rank(aff[i]), edge + i, a + i, b + i};
            }
        }
        size_ = static_cast<std::size_t>(to - to_.data());
    }

    Buffer<Record<T, Index>>& to_;
    std::size_t size_;
};

// Keeps the weak edges between different sets.
template <class T, class Index>
class WeakCollector : public StrongCollector<T, Index> {
  public:
    static constexpr Strength strength = Strength::weak;

    WeakCollector(Buffer<Record<T, Index>>& to, T threshold, const Index* root)
        : StrongCollector<T, Index>(to, threshold), root_(root) {}
    void operator()(T affinity, Index edge, Index a, Index b) {
        // Stores first and counts afterwards: which edges stay is as good as random, and a mispredicted branch costs
        // more than a store.
        this->to_.data()[this->size_] = {to_rank(affinity), edge, a, b};
        this->size_ += root_[a] != root_[b];
    }
    void stretch(const T* aff, const T* aff_end, Index edge, Index a, Index b, Index count) {
        this->stretch_of(aff, edge, a, b, count, [=](Index block, std::size_t n) {
            return select_different<strength>(root_ + a + block, root_ + b + block, aff + block, aff_end,
                                              this->threshold, n);
        });
    }

  private:
    const Index* root_;
};

// Scans a source with a Collector made of (buffer, args...). On several threads, parts have room for so many records of
// all that are `expected`: growing would copy them.
template <class Collector, class T, class Index, class Source, class... Args>
void collect(const Source& source, Parts<T, Index>& to, double expected, int threads, Args... args) {
    const std::size_t chunks = source.chunks();
    to.resize(threads <= 1 ? 1 : std::max<std::size_t>(1, chunks));
    for (auto& part : to) part.clear();
    if (to.size() <= 1) {
        Collector collector(to[0], args...);
        for (std::size_t chunk = 0; chunk < chunks; ++chunk) source.scan(chunk, collector);
        return;
    }
    parallel_for(chunks, threads, [&](std::size_t chunk, std::size_t) {
        to[chunk].reserve(static_cast<std::size_t>(expected / static_cast<double>(chunks)));
        Collector collector(to[chunk], args...);
        source.scan(chunk, collector);
    });
}

// The rank that about `wanted` of `factor * samples` edges do not exceed.
template <class R>
R quantile(Buffer<R>& samples, double factor, double wanted) {
    const double at = wanted / factor;
    if (at >= static_cast<double>(samples.size())) return std::numeric_limits<R>::max();
    R* nth = samples.begin() + static_cast<std::size_t>(at);
    std::nth_element(samples.begin(), nth, samples.end());
    return *nth;
}

// Samples records that were filtered out of a source, as a source would.
template <class T, class Index>
class PartsSource {
  public:
    explicit PartsSource(const Parts<T, Index>& parts) : parts_(parts), size_(size_of<T, Index>(parts)) {}
    template <class Take>
    double sample(Take take) const {
        const std::size_t step = std::max<std::size_t>(1, size_ / 256);
        std::size_t taken = 0, skip = step / 2;
        for (const auto& part : parts_) {
            for (; skip < part.size(); skip += step, ++taken) take(part[skip].rank);
            skip -= part.size();
        }
        return static_cast<double>(size_) / static_cast<double>(std::max<std::size_t>(taken, 1));
    }

  private:
    const Parts<T, Index>& parts_;
    const std::size_t size_;
};

// Whether on_merge keeps something for every root that can be asked for ahead of a merge.
template <class OnMerge, class = void>
struct LooksAhead : std::false_type {};
template <class OnMerge>
struct LooksAhead<OnMerge, std::void_t<decltype(&OnMerge::prefetch_root)>> : std::true_type {};

// Takes records in the order they are in; false when on_merge asked to stop.
template <class T, class Index, class OnMerge>
bool merge_records(const Buffer<Record<T, Index>>& records, UnionFind<Index>& sets, OnMerge& on_merge) {
    const Record<T, Index>* const begin = records.begin();
    const Record<T, Index>* const end = records.end();
    const Record<T, Index>* r = begin;
    if (sets.nodes() > (std::size_t{1} << 16)) {
        // Beyond the cache a merge waits for one line of memory after the other: from a node to its root, to what is
        // kept for that root, and on from there. All of them are asked for some records ahead, a step at a time.
        constexpr std::ptrdiff_t farthest = 32, far = 22, middle = 12, near = 6, window = 16;
        const Index* parents = sets.parents();
        Index roots[window][2] = {};
        while (end - r > farthest) {
            poll();
            const Record<T, Index>* const stop =
                r + std::min<std::ptrdiff_t>(end - r - farthest, static_cast<std::ptrdiff_t>(steps_per_poll));
            for (; r != stop; ++r) {
                prefetch(parents + r[farthest].a);
                prefetch(parents + r[farthest].b);
                prefetch(parents + parents[r[far].a]);
                prefetch(parents + parents[r[far].b]);
                Index* const at_middle = roots[(r - begin + middle) % window];
                at_middle[0] = sets.find(r[middle].a);
                at_middle[1] = sets.find(r[middle].b);
                if (at_middle[0] != at_middle[1]) {
                    for (const Index root : {at_middle[0], at_middle[1]}) {
                        sets.prefetch(root);
                        if constexpr (LooksAhead<OnMerge>::value) on_merge.prefetch_root(root);
                    }
                }
                if constexpr (LooksAhead<OnMerge>::value) {
                    const Index* const at_near = roots[(r - begin + near) % window];
                    if (at_near[0] != at_near[1]) {
                        on_merge.prefetch_beyond(at_near[0]);
                        on_merge.prefetch_beyond(at_near[1]);
                    }
                }
                const Index a = sets.find(r->a);
                const Index b = sets.find(r->b);
                if (a != b && !on_merge(*r, a, b)) return false;
            }
        }
    }
    for (; r != end; ++r) {
        const Index a = sets.find(r->a);
        const Index b = sets.find(r->b);
        if (a != b && !on_merge(*r, a, b)) return false;
    }
    return true;
}

// Sorts the records of all parts and takes them in order; false when on_merge asked to stop.
template <class T, class Index, class OnMerge>
bool merge_sorted(Parts<T, Index>& records, UnionFind<Index>& sets, KruskalScratch<T, Index>& scratch, int threads,
                  OnMerge& on_merge) {
    if (sort_records<T, Index>(records, scratch.sorted, scratch.keys, threads))
        return merge_records<T, Index>(scratch.sorted, sets, on_merge);
    for (const auto& part : records) {
        if (!merge_records<T, Index>(part, sets, on_merge)) return false;
    }
    return true;
}

}  // namespace detail

// How many of the strongest edges are sorted at first, for each node: most of the tree should be among them. More would
// be sorted in vain, fewer would leave more to filter. A lattice is like a random graph in that about one will do;
// more are needed where many edges join the same two nodes.
constexpr double lattice_edges = 1.1, parallel_edges = 3;

namespace detail {

inline bool few(double edges, double per_set, std::size_t sets) {
    return edges < 96 || edges < per_set * static_cast<double>(sets);
}

// The rank to which the edges of a source should be sorted next.
template <class T, class Index, class Source>
Rank<T> threshold_of(const Source& from, KruskalScratch<T, Index>& scratch, double edges_per_node, std::size_t sets) {
    scratch.samples.clear();
    const double factor = from.sample([&](Rank<T> rank) { scratch.samples.push_back(rank); });
    if (few(factor * static_cast<double>(scratch.samples.size()), 1.7, sets))
        return std::numeric_limits<Rank<T>>::max();
    return quantile<Rank<T>>(scratch.samples, factor, edges_per_node * static_cast<double>(sets));
}

}  // namespace detail

// Goes on where all edges of at least `threshold` have joined sets already; otherwise as kruskal().
template <class T, class Index, class Source, class OnMerge>
void kruskal_below(T threshold, const Source& source, UnionFind<Index>& sets, KruskalScratch<T, Index>& scratch,
                   int threads, OnMerge&& on_merge, double edges_per_node = lattice_edges,
                   Rank<T> last = std::numeric_limits<Rank<T>>::max()) {
    auto& records = scratch.records;
    auto& rest = scratch.rest;
    detail::collect<detail::WeakCollector<T, Index>>(source, rest, 0, threads, threshold, sets.roots(threads));
    while (const std::size_t left = size_of<T, Index>(rest)) {
        const Rank<T> next =
            detail::few(static_cast<double>(left), 3.5, sets.sets())
                ? last
                : std::min(last, detail::threshold_of<T>(detail::PartsSource<T, Index>(rest), scratch, edges_per_node,
                                                         sets.sets()));
        std::size_t strong = left;
        if (next != std::numeric_limits<Rank<T>>::max()) {
            strong = 0;
            for (const auto& part : rest) {
                in_steps(part.size(), [&](std::size_t begin, std::size_t end) {
                    std::size_t found = 0;
                    for (std::size_t i = begin; i < end; ++i) found += part[i].rank <= next;
                    strong += found;
                });
            }
        }
        if (strong == left) {
            detail::merge_sorted<T, Index>(rest, sets, scratch, threads, on_merge);
            return;
        }
        records.resize(1);
        records[0].reset(strong + 1);  // what does not count is stored all the same
        strong = 0;
        for (auto& part : rest) {
            std::size_t weak = 0;
            in_steps(part.size(), [&](std::size_t begin, std::size_t end) {
                Record<T, Index>* now_to = records[0].data() + strong;
                Record<T, Index>* later_to = part.data() + weak;
                for (std::size_t i = begin; i < end; ++i) {
                    const Record<T, Index> r = part[i];
                    const bool now = r.rank <= next;
                    *now_to = r;
                    now_to += now;
                    *later_to = r;
                    later_to += !now;
                }
                strong = static_cast<std::size_t>(now_to - records[0].data());
                weak = static_cast<std::size_t>(later_to - part.data());
            });
            part.resize(weak);
        }
        records[0].resize(strong);
        if (!detail::merge_sorted<T, Index>(records, sets, scratch, threads, on_merge) || next == last ||
            sets.sets() < 2) {
            return;
        }
        for (auto& part : rest) {
            std::size_t kept = 0;
            in_steps(part.size(), [&](std::size_t begin, std::size_t end) {
                std::size_t to = kept;
                for (std::size_t i = begin; i < end; ++i) {
                    const Record<T, Index> r = part[i];
                    part[to] = r;
                    to += sets.find(r.a) != sets.find(r.b);
                }
                kept = to;
            });
            part.resize(kept);
        }
    }
}

// Takes the edges of `source` in order; for each that joins two sets, on_merge(record, root_a, root_b) has to join
// them (sets.link) and returns whether to go on. Edges of a rank above `last` may be left out.
template <class T, class Index, class Source, class OnMerge>
void kruskal(const Source& source, UnionFind<Index>& sets, KruskalScratch<T, Index>& scratch, int threads,
             OnMerge&& on_merge, double edges_per_node = lattice_edges,
             Rank<T> last = std::numeric_limits<Rank<T>>::max()) {
    using R = Rank<T>;
    constexpr R all = std::numeric_limits<R>::max();
    auto& records = scratch.records;
    const auto threshold = [&] { return detail::threshold_of<T>(source, scratch, edges_per_node, sets.sets()); };

    if (sets.sets() < 2) return;
    R first = std::min(last, sets.sets() < 32 ? all : scratch.hint != 0 ? scratch.hint : threshold());
    const auto collect_first = [&] {
        detail::collect<detail::StrongCollector<T, Index>>(
            source, records, 1.3 * edges_per_node * static_cast<double>(sets.sets()), threads,
            first == all ? -std::numeric_limits<T>::infinity() : from_rank<T>(first));
    };
    collect_first();
    if (first == scratch.hint && first != all) {
        const double found = static_cast<double>(size_of<T, Index>(records)) / static_cast<double>(sets.sets());
        if (found < 0.6 * edges_per_node || found > 1.8 * edges_per_node) {
            first = std::min(last, threshold());
            collect_first();
        }
    }
    if (first != all) scratch.hint = first;
    if (!detail::merge_sorted<T, Index>(records, sets, scratch, threads, on_merge) || first == last ||
        sets.sets() < 2) {
        return;
    }
    kruskal_below<T, Index>(from_rank<T>(first), source, sets, scratch, threads, on_merge, edges_per_node, last);
}

}  // namespace malis
