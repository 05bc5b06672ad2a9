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
// source.hpp says what a source, a collector and on_merge are. cpp/tests/reference.hpp has the same algorithm in its plain
// form, reference_counts(): all edges sorted, then taken one by one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/prefetch.hpp"
#include "malis/tree/collectors.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/sort.hpp"
#include "malis/tree/union_find.hpp"

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

// Samples records that were filtered out of a source; returns how many of them each one in the sample stands for.
template <class T, class Index>
double sample_records(const Parts<T, Index>& parts, Buffer<Rank<T>>& ranks) {
    constexpr std::size_t sampled_records = 256;  // these are few edges, so a rough threshold costs little
    const std::size_t size = size_of<T, Index>(parts), step = std::max<std::size_t>(1, size / sampled_records);
    std::size_t skip = step / 2;
    for (const auto& part : parts) {
        for (; skip < part.size(); skip += step) ranks.push_back(part[skip].rank);
        skip -= part.size();
    }
    return static_cast<double>(size) / static_cast<double>(std::max<std::size_t>(ranks.size(), 1));
}

// Whether on_merge keeps something for every root that can be asked for ahead of a merge.
template <class OnMerge, class = void>
struct LooksAhead : std::false_type {};
template <class OnMerge>
struct LooksAhead<OnMerge, std::void_t<decltype(&OnMerge::prefetch_root)>> : std::true_type {};

// Whether on_merge writes to memory by the index of an edge, which can be asked for ahead of a merge, too.
template <class OnMerge, class = void>
struct WritesByEdge : std::false_type {};
template <class OnMerge>
struct WritesByEdge<OnMerge, std::void_t<decltype(&OnMerge::prefetch_edge)>> : std::true_type {};

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
                    if constexpr (WritesByEdge<OnMerge>::value) on_merge.prefetch_edge(r[middle].edge);
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
    const auto merge = [&](const Record<T, Index>& record) {
        const Index a = sets.find(record.a), b = sets.find(record.b);
        return a == b || on_merge(record, a, b);
    };
    if constexpr (WritesByEdge<OnMerge>::value) {
        for (; end - r > edges_ahead; ++r) {
            on_merge.prefetch_edge(r[edges_ahead].edge);
            if (!merge(*r)) return false;
        }
    }
    for (; r != end; ++r)
        if (!merge(*r)) return false;
    return true;
}

// So many records, 64 MB of them, are given back as soon as they are sorted; fewer are kept for the next problem, which
// would have to take the memory anew.
constexpr std::size_t kept_records = std::size_t{1} << 22;

// Sorts the records of all parts and takes them in order; false when on_merge asked to stop.
template <class T, class Index, class OnMerge>
bool merge_sorted(Parts<T, Index>& records, UnionFind<Index>& sets, KruskalScratch<T, Index>& scratch, int threads,
                  OnMerge& on_merge) {
    if (sort_records<T, Index>(records, scratch.sorted, scratch.keys, threads)) {
        // They lie in memory twice now, and what on_merge keeps comes on top of that.
        if (scratch.sorted.size() > kept_records) {
            for (auto& part : records) part.release();
        }
        return merge_records<T, Index>(scratch.sorted, sets, on_merge);
    }
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

// How few edges there have to be for each set so that all of them are sorted at once: then most belong to the tree, and
// filtering them costs more than sorting what it drops. Of a whole source, with 3 in place of 1.7, counting pairs takes
// 219 instructions per edge in place of 178 (benchmarks/instructions.py). What is left of one is at hand and already
// filtered once, so more of it is sorted; between 1.7 and 7 that makes a difference of 2 %.
constexpr double sortable_per_set = 1.7, sortable_rest_per_set = 3.5;
// So few edges are sorted in any case; between 24 and 400 that makes a difference of 1 %.
constexpr double sortable = 96;

inline bool few(double edges, double per_set, std::size_t sets) {
    return edges < sortable || edges < per_set * static_cast<double>(sets);
}

// The rank to which edges should be sorted next, of which there are `factor` for each in scratch.samples.
template <class T, class Index>
Rank<T> threshold_of(double factor, KruskalScratch<T, Index>& scratch, double edges_per_node, std::size_t sets) {
    if (few(factor * static_cast<double>(scratch.samples.size()), sortable_per_set, sets))
        return std::numeric_limits<Rank<T>>::max();
    return quantile<Rank<T>>(scratch.samples, factor, edges_per_node * static_cast<double>(sets));
}

template <class T, class Index, class Source>
Rank<T> threshold_of_source(const Source& source, KruskalScratch<T, Index>& scratch, double edges_per_node,
                            std::size_t sets) {
    scratch.samples.clear();
    SampleCollector<T> collector(scratch.samples);
    return threshold_of(source.sample(collector), scratch, edges_per_node, sets);
}

template <class T, class Index>
Rank<T> threshold_of_rest(KruskalScratch<T, Index>& scratch, double edges_per_node, std::size_t sets) {
    scratch.samples.clear();
    return threshold_of(sample_records<T, Index>(scratch.rest, scratch.samples), scratch, edges_per_node, sets);
}

// Moves the records of ranks up to `last` to `to`; the others stay, in order.
template <class T, class Index>
void move_strong(Parts<T, Index>& from, Rank<T> last, std::size_t strong, Buffer<Record<T, Index>>& to) {
    to.reset(strong + 1);  // a record is stored before it is known whether it counts: a branch would cost more
    strong = 0;
    for (auto& part : from) {
        std::size_t weak = 0;
        in_steps(part.size(), [&](std::size_t begin, std::size_t end) {
            Record<T, Index>* strong_to = to.data() + strong;
            Record<T, Index>* weak_to = part.data() + weak;
            for (std::size_t i = begin; i < end; ++i) {
                const Record<T, Index> r = part[i];
                const bool now = r.rank <= last;
                *strong_to = r;
                strong_to += now;
                *weak_to = r;
                weak_to += !now;
            }
            strong = static_cast<std::size_t>(strong_to - to.data());
            weak = static_cast<std::size_t>(weak_to - part.data());
        });
        part.resize(weak);
    }
    to.resize(strong);
}

// Drops the records between two nodes of one set.
template <class T, class Index>
void drop_joined(Parts<T, Index>& records, UnionFind<Index>& sets) {
    for (auto& part : records) {
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

template <class T, class Index>
std::size_t count_strong(const Parts<T, Index>& records, Rank<T> last) {
    std::size_t strong = 0;
    for (const auto& part : records) {
        in_steps(part.size(), [&](std::size_t begin, std::size_t end) {
            std::size_t found = 0;
            for (std::size_t i = begin; i < end; ++i) found += part[i].rank <= last;
            strong += found;
        });
    }
    return strong;
}

}  // namespace detail

// Goes on where all edges of at least `threshold` have joined sets already; otherwise as kruskal().
template <class T, class Index, class Source, class OnMerge>
void kruskal_below(T threshold, const Source& source, UnionFind<Index>& sets, KruskalScratch<T, Index>& scratch,
                   int threads, OnMerge&& on_merge, double edges_per_node = lattice_edges,
                   Rank<T> last = std::numeric_limits<Rank<T>>::max()) {
    constexpr Rank<T> all = std::numeric_limits<Rank<T>>::max();
    auto& rest = scratch.rest;
    detail::collect<detail::WeakCollector<T, Index>>(source, rest, 0, threads, threshold, sets.roots(threads));
    while (const std::size_t left = size_of<T, Index>(rest)) {
        const bool few = detail::few(static_cast<double>(left), detail::sortable_rest_per_set, sets.sets());
        const Rank<T> next =
            few ? last : std::min(last, detail::threshold_of_rest<T>(scratch, edges_per_node, sets.sets()));
        const std::size_t strong = next == all ? left : detail::count_strong<T, Index>(rest, next);
        if (strong == left) {
            detail::merge_sorted<T, Index>(rest, sets, scratch, threads, on_merge);
            return;
        }
        scratch.records.resize(1);
        detail::move_strong<T, Index>(rest, next, strong, scratch.records[0]);
        if (!detail::merge_sorted<T, Index>(scratch.records, sets, scratch, threads, on_merge) || next == last ||
            sets.sets() < 2) {
            return;
        }
        detail::drop_joined<T, Index>(rest, sets);
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
    const auto threshold = [&] {
        return detail::threshold_of_source<T, Index>(source, scratch, edges_per_node, sets.sets());
    };
    // So few nodes have few edges: all are sorted. A threshold leaves room for a third more edges than were expected, and
    // that of another problem is tried again here if it gave about as many as were wanted.
    constexpr std::size_t few_sets = 32;
    constexpr double room = 1.3, too_few = 0.6, too_many = 1.8;

    if (sets.sets() < 2) return;
    R first = std::min(last, sets.sets() < few_sets ? all : scratch.hint != 0 ? scratch.hint : threshold());
    const auto collect_first = [&] {
        detail::collect<detail::StrongCollector<T, Index>>(
            source, records, room * edges_per_node * static_cast<double>(sets.sets()), threads,
            first == all ? -std::numeric_limits<T>::infinity() : from_rank<T>(first));
    };
    collect_first();
    if (first == scratch.hint && first != all) {
        const double found = static_cast<double>(size_of<T, Index>(records)) / static_cast<double>(sets.sets());
        if (found < too_few * edges_per_node || found > too_many * edges_per_node) {
            first = std::min(last, threshold());
            collect_first();
        }
    }
    if (first != all) scratch.hint = first;
    if (!detail::merge_sorted<T, Index>(records, sets, scratch, threads, on_merge) || first == last ||
        sets.sets() < 2) {
        return;
    }
    if (scratch.sorted.size() > detail::kept_records) scratch.sorted.release();
    kruskal_below<T, Index>(from_rank<T>(first), source, sets, scratch, threads, on_merge, edges_per_node, last);
}

// Goes on where all edges of at least `threshold` have joined sets already, be it few or many; NaN: none has.
template <class T, class Index, class Source, class OnMerge>
void kruskal_from(T threshold, const Source& source, UnionFind<Index>& sets, KruskalScratch<T, Index>& scratch,
                  int threads, OnMerge&& on_merge) {
    // Where fewer are joined, it is better to begin with the strongest edges again than to take all others at once.
    constexpr std::size_t nodes_per_set = 4;
    if (!std::isnan(threshold) && sets.sets() <= sets.nodes() / nodes_per_set)
        kruskal_below<T, Index>(threshold, source, sets, scratch, threads, on_merge);
    else kruskal<T, Index>(source, sets, scratch, threads, on_merge);
}

}  // namespace malis
