// Pair counting: how many positive and negative voxel pairs each edge of an affinity graph decides.
//
// Turaga, Briggman, Helmstaedter, Denk, Seung: Maximin affinity learning of image segmentation, NIPS 2009; with the
// two constrained passes of Funke et al.: Large scale image segmentation with structured loss based deep learning for
// connectome reconstruction, TPAMI 2019.
//
// An edge that joins two components in the order of edges (order.hpp) decides all pairs between them. There are two
// ways to run through that order:
//
// On any graph (count_on_graph): one filter-Kruskal over all nodes, with a label histogram for each component.
//
// On a volume without masks (count_constrained), where both passes share their work:
//
//     labels, grouped into objects (objects.hpp)
//       |   positive pass: every object on its own, in cache, on as many threads as there are; a component carries
//       |   one label, so its size is all that counts. A loss that is zero from some affinity on, as a hinge is, does
//       |   not ask for the order of what lies above: all of that is joined first, without sorting, and of an object
//       |   that is well predicted hardly an edge is left
//       v
//     regions: the components of the objects; they are what the negative pass begins with
//       |   a background voxel brings no pairs, so it may join the neighbour across its strongest edge at once,
//       |   whatever the order: no other edge of it comes earlier
//       v
//     basins: regions with the background that leads to them, and patches of background that lead to none yet
//       |   filter-Kruskal over the edges between them, with label histograms
//       v
//     negative counts
//
// Sinks receive the counts:
//     clear(threads)                     before everything else
//     expect_positive(pairs)             once, before positive(); likewise negative
//     positive(rank, edge, pairs, thread)   an edge and the pairs it decides; returns its part of a loss. They may come
//     negative(rank, edge, pairs, thread)   from several threads, with the number of the thread
//     idle_positive()                    the affinity from which on edges have no part in the result, infinity: none
//     idle_negative()                    the affinity up to which they have none, minus infinity: none
//     arrays()                           where counts may be written without all of that, or two nulls
//     correct_positive(expected, found)  there were other pairs than expected; returns the factor for the loss
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "malis/buffer.hpp"
#include "malis/edge_list.hpp"
#include "malis/grid.hpp"
#include "malis/kruskal.hpp"
#include "malis/label_histogram.hpp"
#include "malis/objects.hpp"
#include "malis/order.hpp"
#include "malis/pairs/on_blocks.hpp"
#include "malis/parallel.hpp"
#include "malis/prefetch.hpp"
#include "malis/union_find.hpp"

namespace malis {

struct PairOptions {
    bool constrain_positive = true;
    bool constrain_negative = true;
    bool ignore_background = true;
    const bool* edge_mask = nullptr;        // per edge: false where its ground truth is unknown
    const bool* unlabelled_mask = nullptr;  // per node: true where objects carry no label
    int threads = 1;
};

// Writes the counts themselves.
template <class T, class Index>
class CountSink {
  public:
    CountSink(std::int64_t* pos, std::int64_t* neg, std::size_t edges) : pos_(pos), neg_(neg), edges_(edges) {}
    CountArrays arrays() const { return {pos_, neg_}; }
    T idle_positive() const { return std::numeric_limits<T>::infinity(); }
    T idle_negative() const { return -std::numeric_limits<T>::infinity(); }
    void clear(int threads) {
        for (std::int64_t* counts : {pos_, neg_}) {
            if (counts == nullptr) continue;
            parallel_ranges(edges_, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
                std::memset(counts + begin, 0, (end - begin) * sizeof *counts);
            });
        }
    }
    void expect_positive(double) {}
    void expect_negative(double) {}
    double correct_positive(double, double, int) { return 1; }
    double positive(Rank<T>, Index edge, std::uint64_t pairs, std::size_t = 0) {
        pos_[edge] = static_cast<std::int64_t>(pairs);
        return 0;
    }
    double negative(Rank<T>, Index edge, std::uint64_t pairs, std::size_t = 0) {
        neg_[edge] = static_cast<std::int64_t>(pairs);
        return 0;
    }

  private:
    std::int64_t* pos_;
    std::int64_t* neg_;
    std::size_t edges_;
};

namespace detail {

enum class Pass { positive, negative, unconstrained, contraction };

// Which edges take part in a pass over the nodes themselves.
template <class T, class Index, Pass pass>
struct PassVisit {
    const T* aff;
    const Index* label;
    Index unlabelled;
    const bool* edge_mask;

    bool unknown(Index edge, Index a, Index b) const {
        return (edge_mask != nullptr && !edge_mask[edge]) ||
               (unlabelled != 0 && label[a] == unlabelled && label[b] == unlabelled);
    }

    bool takes_part(Index edge, Index a, Index b) const {
        if constexpr (pass == Pass::unconstrained) return true;
        const bool intra = (label[a] == label[b]) & (label[a] != 0);
        const bool known = !unknown(edge, a, b);
        return pass == Pass::positive ? !known | intra : pass == Pass::negative ? !known | !intra : known & intra;
    }

    template <class Collect>
    void edge(Index edge, Index a, Index b, Collect& collect) const {
        const T affinity = aff[edge];
        if (passes<Collect::strength>(affinity, collect.threshold) && takes_part(edge, a, b))
            collect(affinity, edge, a, b);
    }

    template <class Collect>
    void row(Index first, Index v, Index u, Index count, Collect& collect) const {
        for (Index i = 0; i < count; ++i) edge(first + i, v + i, u + i, collect);
    }
};

template <class T, class Index>
std::uint64_t negative_pairs(const Buffer<Decision<T, Index>>& decisions) {
    std::uint64_t total = 0;
    for (const auto& d : decisions) total += d.pairs.neg;
    return total;
}

// Hands the decisions of one kind to the sink; returns their part of the loss, summed in order.
template <class T, class Index, class Sink>
double emit_positive(const Buffer<Decision<T, Index>>& decisions, Sink& sink) {
    std::uint64_t total = 0;
    for (const auto& d : decisions) total += d.pairs.pos;
    sink.expect_positive(static_cast<double>(total));
    double loss = 0;
    for (const auto& d : decisions) {
        if (d.pairs.pos > 0) loss += sink.positive(d.rank, d.edge, d.pairs.pos);
    }
    return loss;
}

template <class T, class Index, class Sink>
double emit_negative(const Buffer<Decision<T, Index>>& decisions, std::uint64_t total, Sink& sink) {
    sink.expect_negative(static_cast<double>(total));
    double loss = 0;
    for (const auto& d : decisions) {
        if (d.pairs.neg > 0) loss += sink.negative(d.rank, d.edge, d.pairs.neg);
    }
    return loss;
}

template <class T, class Index, class Sink>
double emit_negative(const Buffer<Decision<T, Index>>& decisions, Sink& sink) {
    return emit_negative<T, Index>(decisions, negative_pairs<T, Index>(decisions), sink);
}

template <Pass pass, class T, class Index>
GridScan<T, Index, PassVisit<T, Index, pass>> scan_of(const Grid<Index>& grid, const PassVisit<T, Index, pass>& visit,
                                                   int threads) {
    return {grid, visit, threads};
}
template <Pass pass, class T, class Index>
EdgeListScan<T, Index, PassVisit<T, Index, pass>> scan_of(const EdgeList<Index>& list,
                                                             const PassVisit<T, Index, pass>& visit, int threads) {
    return {list, visit, threads};
}

// Joins the ends of all edges it is given, in any order.
template <class T, class Index>
struct Contraction {
    static constexpr Strength strength = Strength::strong;
    static constexpr T threshold = -std::numeric_limits<T>::infinity();
    UnionFind<Index>& sets;
    void reserve(std::size_t) {}
    void operator()(T, Index, Index a, Index b) { sets.unite(a, b); }
};

// Joins components with their label histograms, and writes down what that decides: to arrays where there are any, else
// to a list, as the share of an edge in a loss is known when all are done. Stops when no pair is left.
template <class T, class Index, class Counts>
struct CountMerge {
    UnionFind<Index>& sets;
    LabelHistograms<Index>& histograms;
    Buffer<Decision<T, Index>>& decisions;
    CountArrays arrays;
    PairCount left;  // of the kinds that are asked for
    Counts counts;   // whether an edge does

    bool operator()(const Record<T, Index>& r, Index a, Index b) {
        const Index into = sets.link(a, b);
        const PairCount pairs = histograms.merge(into, into == a ? b : a);
        if ((pairs.pos | pairs.neg) != 0 && counts(r)) {
            if (arrays.pos == nullptr && arrays.neg == nullptr) decisions.push_back({r.rank, r.edge, pairs});
            if (arrays.pos != nullptr && pairs.pos != 0) arrays.pos[r.edge] = static_cast<std::int64_t>(pairs.pos);
            if (arrays.neg != nullptr && pairs.neg != 0) arrays.neg[r.edge] = static_cast<std::int64_t>(pairs.neg);
        }
        left.pos -= std::min(left.pos, pairs.pos);
        left.neg -= std::min(left.neg, pairs.neg);
        return (left.pos | left.neg) != 0;
    }
    MALIS_INLINE void prefetch_root(Index root) const { histograms.prefetch_root(root); }
    MALIS_INLINE void prefetch_beyond(Index root) const { histograms.prefetch_beyond(root); }
};
template <class T, class Index, class Counts>
CountMerge<T, Index, Counts> count_merge(UnionFind<Index>& sets, LabelHistograms<Index>& histograms,
                                         Buffer<Decision<T, Index>>& decisions, CountArrays arrays, PairCount left,
                                         Counts counts) {
    return {sets, histograms, decisions, arrays, left, counts};
}

// One pass over the nodes of any graph, with label histograms. Returns what was not written to arrays.
template <Pass pass, class T, class Index, class Graph>
Buffer<Decision<T, Index>> decide(const Graph& graph, const T* aff, const Labels<Index>& labels,
                                  const PairOptions& options, bool want_positive, bool want_negative,
                                  CountArrays arrays) {
    const std::size_t nodes = labels.of.size();
    const int threads = nodes < (std::size_t{1} << 15) ? 1 : options.threads;
    UnionFind<Index> sets;
    sets.reset(nodes, threads);
    if constexpr (pass == Pass::negative) {
        Contraction<T, Index> unite{sets};
        const PassVisit<T, Index, Pass::contraction> visit{aff, labels.of.data(), labels.unlabelled,
                                                           options.edge_mask};
        const auto source = scan_of<Pass::contraction, T>(graph, visit, 1);
        for (std::size_t chunk = 0; chunk < source.chunks(); ++chunk) source.scan(chunk, unite);
    }
    LabelHistograms<Index> histograms(nodes, labels.count, labels.unlabelled, threads);
    std::vector<std::uint64_t> voxels(static_cast<std::size_t>(labels.count) + 1, 0);
    for (std::size_t i = 0; i < nodes; ++i) {
        ++voxels[labels.of[i]];
        // What is contracted carries one label, so its root stands for all of it.
        const bool root = pass != Pass::negative || sets.find(static_cast<Index>(i)) == static_cast<Index>(i);
        if (root) histograms.set(static_cast<Index>(i), labels.of[i], sets.size(static_cast<Index>(i)));
    }
    std::uint64_t foreground = 0;
    PairCount left{0, 0};
    for (std::size_t l = 1; l < voxels.size(); ++l) {
        foreground += voxels[l];
        left.neg -= pairs_of(voxels[l]);
        if (l != labels.unlabelled) left.pos += pairs_of(voxels[l]);
    }
    left.neg += pairs_of(foreground);
    const bool listed = arrays.pos == nullptr && arrays.neg == nullptr;
    if (!want_positive) {
        left.pos = 0;
        arrays.pos = nullptr;
    }
    if (!want_negative) {
        left.neg = 0;
        arrays.neg = nullptr;
    }
    Buffer<Decision<T, Index>> decisions;
    if (listed) decisions.reserve(nodes);  // only what is written takes memory
    KruskalScratch<T, Index> scratch;
    const PassVisit<T, Index, pass> visit{aff, labels.of.data(), labels.unlabelled, options.edge_mask};
    kruskal<T, Index>(
        scan_of<pass, T>(graph, visit, threads), sets, scratch, threads,
        count_merge(sets, histograms, decisions, arrays, left,
                    [&](const Record<T, Index>& r) { return !visit.unknown(r.edge, r.a, r.b); }));
    return decisions;
}

}  // namespace detail

// Counts on any graph; returns the loss of the sink.
template <class T, class Index, class Graph, class Sink>
double count_on_graph(const Graph& graph, const T* aff, const Labels<Index>& labels, const PairOptions& options,
                      bool want_positive, bool want_negative, Sink& sink) {
    using detail::Pass;
    double loss = 0;
    if (want_positive && options.constrain_positive) {
        loss += detail::emit_positive<T, Index>(
            detail::decide<Pass::positive, T, Index>(graph, aff, labels, options, true, false, sink.arrays()),
            sink);
        want_positive = false;
    }
    if (want_negative && options.constrain_negative) {
        loss += detail::emit_negative<T, Index>(
            detail::decide<Pass::negative, T, Index>(graph, aff, labels, options, false, true, sink.arrays()),
            sink);
        want_negative = false;
    }
    if (want_positive || want_negative) {
        const auto decisions = detail::decide<Pass::unconstrained, T, Index>(graph, aff, labels, options, want_positive,
                                                                              want_negative, sink.arrays());
        if (want_positive) loss += detail::emit_positive<T, Index>(decisions, sink);
        if (want_negative) loss += detail::emit_negative<T, Index>(decisions, sink);
    }
    return loss;
}

namespace detail {

// The edges within one object, as a source for kruskal() between the local numbers of its voxels.
template <class T, class Index>
class ObjectScan {
  public:
    ObjectScan(const Grid<Index>& grid, const T* aff, const Buffer<Stretch<Index>>& stretches, int threads)
        : grid_(grid), aff_(aff), aff_end_(aff + grid.edges()), stretches_(stretches),
          chunks_(threads > 1 ? std::min<std::size_t>(stretches.size(), 4 * static_cast<std::size_t>(threads)) : 1) {}

    std::size_t chunks() const { return chunks_; }

    template <class Collect>
    void scan(std::size_t chunk, Collect& collect) const {
        const Stretch<Index>* end = stretches_.data() + stretches_.size() * (chunk + 1) / chunks_;
        for (const Stretch<Index>* s = stretches_.data() + stretches_.size() * chunk / chunks_; s != end; ++s)
            collect.stretch(aff_ + s->edge, aff_end_, s->edge, s->a, s->b, s->count);
    }

    // Joins the ends of all edges of at least `threshold` for UnionFind::contract.
    void join(T threshold, Index* parent, Index nodes, int threads) const {
        const std::size_t slabs = threads > 1 ? static_cast<std::size_t>(threads) : 1;
        const auto slab_node = [&](std::size_t s) {
            return static_cast<Index>(static_cast<std::uint64_t>(nodes) * s / slabs);
        };
        // Each slab of nodes on its own, then what leads from one to another.
        parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
            const Index begin = slab_node(slab), end = slab_node(slab + 1);
            bool fresh = true;
            each_channel_backward([&](const Offset& offset, const Stretch<Index>* first, const Stretch<Index>* last) {
                const bool along_rows = offset.z == 0 && offset.y == 0 && offset.x * offset.x == 1;
                for (const Stretch<Index>* s = first; s != last; ++s) {
                    const bool inside =
                        s->a >= begin && s->b >= begin && s->a + s->count <= end && s->b + s->count <= end;
                    if (!inside) continue;
                    if (fresh && along_rows) chain(*s, threshold, parent);
                    else join(*s, threshold, parent);
                }
                fresh = false;
                for (Index i = begin; i < end; ++i) parent[i] = parent[parent[i]];
            });
        });
        if (slabs == 1) return;
        const auto slab_of = [&](Index node) {
            std::size_t slab = 0;
            while (node >= slab_node(slab + 1)) ++slab;
            return slab;
        };
        for (const Stretch<Index>& s : stretches_) {
            const std::size_t slab = slab_of(s.a);
            if (slab_of(s.b) != slab || slab_of(s.a + s.count - 1) != slab || slab_of(s.b + s.count - 1) != slab)
                join(s, threshold, parent);
        }
    }

    template <class Take>
    double sample(Take take) const {
        Sampler<T, Take> sampler{take};
        std::size_t edges = 0, sampled = 0;
        for (const Stretch<Index>& s : stretches_) edges += s.count;
        const std::size_t wanted = std::min(stretches_.size(), 36 + 3072 * stretches_.size() / (edges + 1));
        for (std::size_t i = 0; i < wanted; ++i) {
            const Stretch<Index>& s = stretches_[(2 * i + 1) * stretches_.size() / (2 * wanted)];
            sampler.stretch(aff_ + s.edge, aff_end_, s.edge, s.a, s.b, s.count);
            sampled += s.count;
        }
        return static_cast<double>(edges) / static_cast<double>(std::max<std::size_t>(1, sampled));
    }

  private:
    // Stretches of one offset after the other, the last one first: usually it leads along rows, which are joined
    // fastest, and then the others meet few different sets.
    template <class F>
    void each_channel_backward(F&& f) const {
        for (const Stretch<Index>* last = stretches_.end(); last != stretches_.begin();) {
            const Stretch<Index>* first = last - 1;
            const Index channel = first->edge / grid_.voxels;
            while (first != stretches_.begin() && first[-1].edge >= channel * grid_.voxels) --first;
            f(grid_.steps[channel].offset, first, last);
            last = first;
        }
    }

    // Along a row, of nodes that nothing has joined yet: each takes the root of the one before, or is a root itself.
    void chain(const Stretch<Index>& s, T threshold, Index* parent) const {
        const T* aff = aff_ + s.edge;
        Index root = std::min(s.a, s.b);
        for (Index i = 0; i < s.count; ++i) {
            const Index node = std::max(s.a, s.b) + i;
            root = aff[i] >= threshold ? root : node;
            parent[node] = root;
        }
    }

    void join(const Stretch<Index>& s, T threshold, Index* parent) const {
        // Parents of the last edge: where the next one has the same, it joins nothing.
        Index of_a = s.a, of_b = of_a;
        for (Index block = 0; block < s.count; block += 64) {
            const Index count = std::min<Index>(64, s.count - block);
            const Index *const a = parent + s.a + block, *const b = parent + s.b + block;
            std::uint64_t selected =
                select_passing<Strength::strong>(aff_ + s.edge + block, aff_end_, threshold, count);
            // Neither does an edge beside another one, between the same parents. Without a branch this drops most.
            selected &= ~(selected << 1) | (select_changes(a, count - 1) | select_changes(b, count - 1)) << 1;
            for (; selected != 0; selected &= selected - 1) {
                const Index i = static_cast<Index>(lowest_bit(selected));
                if (a[i] == of_a && b[i] == of_b) continue;
                of_a = a[i];
                of_b = b[i];
                join_lowest(parent, of_a, of_b);
            }
        }
    }

    const Grid<Index>& grid_;
    const T* aff_;
    const T* aff_end_;
    const Buffer<Stretch<Index>>& stretches_;
    std::size_t chunks_;
};

// The components of the objects: what the positive pass leaves and the negative pass begins with.
template <class Index>
struct Regions {
    Buffer<Index> node;         // per voxel of an object: the number of its region
    std::vector<Index> label;   // per region
    std::vector<Index> voxels;  // per region
};

// What a thread keeps from object to object.
template <class T, class Index>
struct ObjectWork {
    Buffer<Stretch<Index>> stretches, next;  // of the object at hand and of the next one
    KruskalScratch<T, Index> scratch;
    UnionFind<Index> sets;
    Buffer<Index> number;
    // Objects of several regions: the region of each of their voxels, by local number.
    std::vector<std::pair<Index, std::size_t>> split;
    Buffer<Index> split_region;
    int costly = 0;  // so many objects more are not worth joining without an order
};

template <class T, class Index, class Sink>
class ConstrainedCount {
  public:
    ConstrainedCount(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels, int threads, Sink& sink)
        : grid_(grid), aff_(aff), labels_(labels), threads_(threads), sink_(sink),
          objects_(find_objects(grid, labels, threads)) {}

    // The positive pass. Without `emit` it only finds the regions.
    double positive(bool emit) {
        double expected = 0;
        for (Index l = 1; l < objects_.labels(); ++l) {
            expected += static_cast<double>(pairs_of(objects_.voxels[l]));
        }
        if (emit) sink_.expect_positive(expected);

        // Small objects are tasks for one thread each, several in one; large ones are worked on by all threads. The
        // division does not depend on their number, so neither do sums of floating point numbers.
        constexpr Index large = Index{1} << 18;
        const std::vector<Index> order = object_order();
        std::vector<std::pair<std::size_t, std::size_t>> tasks;  // order[first] .. order[second]
        std::vector<Index> large_objects;
        std::size_t begin = 0, load = 0;
        for (std::size_t i = 0; i < order.size(); ++i) {
            const Index voxels = objects_.voxels[order[i]];
            if (voxels >= large) large_objects.push_back(order[i]);
            if (voxels >= large || load >= (std::size_t{1} << 14)) {
                if (begin < i) tasks.push_back({begin, i});
                begin = voxels >= large ? i + 1 : i;
                load = 0;
            }
            if (voxels < large) load += voxels + 1;
        }
        if (begin < order.size()) tasks.push_back({begin, order.size()});

        regions_of_.assign(objects_.labels(), 0);
        work_.resize(static_cast<std::size_t>(std::max(1, threads_)));
        struct Sum {
            double loss = 0;
            std::uint64_t pairs = 0;
        };
        std::vector<Sum> sums(tasks.size() + large_objects.size());
        parallel_for(tasks.size(), threads_, [&](std::size_t task, std::size_t thread) {
            ObjectWork<T, Index>& work = work_[thread];
            for (std::size_t i = tasks[task].first; i < tasks[task].second; ++i) {
                if (i == tasks[task].first) prepare(order[i], work.stretches);
                if (i + 1 < tasks[task].second) prepare(order[i + 1], work.next);
                solve(order[i], thread, 1, emit, sums[task].loss, sums[task].pairs);
                std::swap(work.stretches, work.next);
            }
        });
        for (std::size_t i = 0; i < large_objects.size(); ++i) {
            Sum& sum = sums[tasks.size() + i];
            find_stretches(grid_, objects_, large_objects[i], work_[0].stretches);
            solve(large_objects[i], 0, threads_, emit, sum.loss, sum.pairs);
        }
        double loss = 0;
        std::uint64_t pairs = 0;
        for (const Sum& sum : sums) {  // in the order of tasks: the same result on any number of threads
            loss += sum.loss;
            pairs += sum.pairs;
        }
        for (auto& work : work_) {
            work.stretches = {};
            work.next = {};
            work.scratch = {};
            work.sets = {};
        }
        if (!emit) return 0;
        const double found = static_cast<double>(pairs);
        if (found != expected) return loss * sink_.correct_positive(expected, found, threads_);
        return loss;
    }

    // The negative pass, after the positive one.
    double negative() {
        PairCount left{0, pairs_of(grid_.voxels - objects_.voxels[0])};
        for (Index l = 1; l < objects_.labels(); ++l) left.neg -= pairs_of(objects_.voxels[l]);
        const T idle = sink_.idle_negative();
        if (left.neg == 0 || idle == std::numeric_limits<T>::infinity()) {
            sink_.expect_negative(0);
            return 0;
        }
        number_regions();
        const Index basins = flow_background();
        LabelHistograms<Index> histograms(basins, labels_.count, 0, threads_);
        for (std::size_t r = 0; r < regions_.label.size(); ++r)
            histograms.set(static_cast<Index>(r), regions_.label[r], regions_.voxels[r]);
        UnionFind<Index> sets;
        sets.reset(basins, threads_);
        KruskalScratch<T, Index> scratch;
        Buffer<Decision<T, Index>> decisions;
        const CountArrays arrays{nullptr, sink_.arrays().neg};
        if (arrays.neg == nullptr) decisions.reserve(basins);
        const BasinVisit visit{aff_, aff_ + grid_.edges(), regions_.node.data()};
        // Basins of many voxels share many edges; basins of one or two are a lattice.
        const double edges_per_node = grid_.voxels / 8 < basins ? lattice_edges : parallel_edges;
        // Where it is known how many pairs there are in the end, the idle ones need not be met.
        constexpr T infinity = std::numeric_limits<T>::infinity();
        const bool connected = grid_.connected();
        const Rank<T> last = connected && idle > -infinity ? to_rank(std::nextafter(idle, infinity))
                                                           : std::numeric_limits<Rank<T>>::max();
        kruskal<T, Index>(GridScan<T, Index, BasinVisit>(grid_, visit, threads_), sets, scratch, threads_,
                          count_merge(sets, histograms, decisions, arrays, left, [](const auto&) { return true; }),
                          edges_per_node, last);
        return emit_negative<T, Index>(decisions, connected ? left.neg : negative_pairs<T, Index>(decisions), sink_);
    }

  private:
    struct BasinVisit {
        const T* aff;
        const T* aff_end;
        const Index* node;
        template <class Collect>
        void row(Index edge, Index v, Index u, Index count, Collect& collect) const {
            for (Index block = 0; block < count; block += 64) {
                const T* a = aff + edge + block;
                const Index* from = node + v + block;
                const Index* to = node + u + block;
                std::uint64_t selected = select_different<Collect::strength>(
                    from, to, a, aff_end, collect.threshold, std::min<Index>(64, count - block));
                for (; selected != 0; selected &= selected - 1) {
                    const Index i = static_cast<Index>(lowest_bit(selected));
                    collect(a[i], edge + block + i, from[i], to[i]);
                }
            }
        }
    };

    // The objects of at least one voxel. As they follow each other in the volume, so that neighbours find the rows that
    // they share in cache; by label where there are too many small ones for an order to pay.
    std::vector<Index> object_order() const {
        std::vector<Index> order;
        for (Index l = 1; l < objects_.labels(); ++l)
            if (objects_.voxels[l] > 0) order.push_back(l);
        if (order.size() < grid_.voxels / 64) {
            std::sort(order.begin(), order.end(), [&](Index a, Index b) {
                return objects_.runs[objects_.first_run[a]].v < objects_.runs[objects_.first_run[b]].v;
            });
        }
        return order;
    }

    // Finds the edges of the next object, and asks for their affinities, which are read sixteen at a time, while the
    // object at hand is solved: rows are too short for the hardware to see a pattern in them.
    void prepare(Index l, Buffer<Stretch<Index>>& stretches) const {
        find_stretches(grid_, objects_, l, stretches);
        if (stretches.size() > (std::size_t{1} << 12)) return;
        for (const Stretch<Index>& s : stretches) {
            malis::prefetch(aff_ + s.edge);
            malis::prefetch(aff_ + std::min<Index>(s.edge + 15, grid_.edges() - 1));
        }
    }

    // Solves an object with the work of one thread.
    void solve(Index l, std::size_t thread, int threads, bool emit, double& loss, std::uint64_t& total) {
        ObjectWork<T, Index>& work = work_[thread];
        const Index n = objects_.voxels[l];
        regions_of_[l] = n > 0 ? 1 : 0;
        if (n < 2) return;
        UnionFind<Index>& sets = work.sets;
        const ObjectScan<T, Index> source(grid_, aff_, work.stretches, threads);
        const auto merge = [&](const Record<T, Index>& r, Index a, Index b) {
            const std::uint64_t pairs = static_cast<std::uint64_t>(sets.size(a)) * sets.size(b);
            sets.link(a, b);
            loss += sink_.positive(r.rank, r.edge, pairs, thread);
            total += pairs;
            return sets.sets() > 1;
        };
        constexpr T infinity = std::numeric_limits<T>::infinity();
        const T idle = emit ? sink_.idle_positive() : -infinity;
        bool joined = idle < infinity && (idle == -infinity || work.costly-- <= 0);
        if (joined) {
            sets.contract(n, threads, [&](Index* parent) { source.join(idle, parent, n, threads); });
            joined = idle == -infinity || sets.sets() <= n / 4 + 1;
            work.costly = joined ? 0 : 7;
        }
        if (joined) {
            for (Index i = 0; i < n; ++i)
                if (sets.find(i) == i) total += pairs_of(sets.size(i));
            if (idle > -infinity && sets.sets() > 1)
                kruskal_below<T, Index>(idle, source, sets, work.scratch, threads, merge);
        } else {
            sets.reset(n, threads);
            kruskal<T, Index>(source, sets, work.scratch, threads, merge);
        }
        if (sets.sets() == 1) return;
        regions_of_[l] = static_cast<Index>(sets.sets());
        const Index* root = sets.roots(threads);
        work.number.reset(n);
        const std::size_t at = work.split_region.size();
        work.split.push_back({l, at});
        work.split_region.reserve(at + n);  // grows by more than is asked for, as one object follows the other
        work.split_region.resize(at + n);
        Index next = 0;
        for (Index i = 0; i < n; ++i)
            if (root[i] == i) work.number[i] = next++;
        for (Index i = 0; i < n; ++i) work.split_region[at + i] = work.number[root[i]];
    }

    // Numbers the regions by label and writes the number of its region to every voxel of an object.
    void number_regions() {
        const Index labels = objects_.labels();
        std::vector<Index> base(labels);
        constexpr Index done = static_cast<Index>(-1);
        Index count = 0;
        for (Index l = 1; l < labels; ++l) {
            base[l] = count;
            count += regions_of_[l];
        }
        regions_.label.resize(count);
        regions_.voxels.assign(count, 0);
        for (Index l = 1; l < labels; ++l) {
            for (Index i = 0; i < regions_of_[l]; ++i) regions_.label[base[l] + i] = l;
            if (regions_of_[l] == 1) regions_.voxels[base[l]] = objects_.voxels[l];
        }
        regions_.node.reset(grid_.voxels);
        Index* node = regions_.node.data();
        for (const auto& work : work_) {
            for (const auto& [l, at] : work.split) {
                for (Index r = objects_.first_run[l]; r < objects_.first_run[l + 1]; ++r) {
                    const Run<Index>& run = objects_.runs[r];
                    const Index* region = work.split_region.data() + at + run.first;
                    for (Index i = 0; i < run.length; ++i) {
                        node[run.v + i] = base[l] + region[i];
                        ++regions_.voxels[base[l] + region[i]];
                    }
                }
            }
        }
        for (Index l = 1; l < labels; ++l)
            if (regions_of_[l] > 1) base[l] = done;
        parallel_ranges(grid_.voxels, std::size_t{1} << 15, threads_, [&](std::size_t begin, std::size_t end) {
            for (std::size_t v = begin; v < end; ++v) {
                const Index region = base[labels_.of[v]];
                node[v] = region == done ? node[v] : region;
            }
        });
        work_.clear();
    }

    void ways_of_row(Index z, Index y, Ways<Index>& ways) const {
        ways.all.clear();
        ways.x_begin = 0;
        ways.x_end = grid_.width;
        for (std::size_t k = 0; k < grid_.steps.size(); ++k) {
            if (!grid_.steps[k].decides) continue;
            const Index channel = static_cast<Index>(k) * grid_.voxels;
            const auto forward = grid_.steps[k];
            auto backward = forward;
            backward.offset = {-forward.offset.z, -forward.offset.y, -forward.offset.x};
            backward.distance = Index{0} - forward.distance;
            const auto add = [&](const auto& step, Index edge) {
                const auto x = grid_.range(step, z, y);
                if (x.begin >= x.end) return;
                ways.all.push_back({step.distance, edge, x.begin, x.end});
                ways.x_begin = std::max(ways.x_begin, x.begin);
                ways.x_end = std::min(ways.x_end, x.end);
            };
            // Backward, the edge belongs to the voxel at the other end.
            const bool forward_first = forward.distance > static_cast<Index>(-1) / 2;  // leads to lower voxels
            if (forward_first) add(forward, channel);
            add(backward, channel + backward.distance);
            if (!forward_first) add(forward, channel);
        }
    }

    // Joins every background voxel to the neighbour across its strongest edge, and follows these to a region or, where
    // two voxels have each other for that neighbour, to a patch of background, numbered behind the regions. Afterwards
    // regions_.node holds a basin for every voxel; returns a bound for the numbers of basins.
    Index flow_background() {
        const Index regions = static_cast<Index>(regions_.label.size());
        const Index first = objects_.first_run[0], last = objects_.first_run[1];
        if (first == last) return regions;
        const std::size_t slabs =
            std::min<std::size_t>(last - first, threads_ > 1 ? 2 * static_cast<std::size_t>(threads_) : 1);
        // Slabs take numbers of patches in blocks; some at the end of a block stay unused.
        constexpr Index block = 64;
        // node < lead: a region or patch; else it leads on to voxel node - lead.
        const Index lead = regions + grid_.voxels + block * static_cast<Index>(slabs);
        const auto slab_run = [&](std::size_t s) {
            return first + static_cast<Index>(static_cast<std::uint64_t>(last - first) * s / slabs);
        };
        const auto slab_voxel = [&](std::size_t s) {
            return s == 0 ? Index{0} : s == slabs ? grid_.voxels : objects_.runs[slab_run(s)].v;
        };
        std::atomic<Index> next{regions};
        std::vector<Buffer<Index>> voxels(slabs);
        parallel_for(slabs, threads_, [&](std::size_t s, std::size_t) {
            Index number = 0, left = 0;
            const auto new_patch = [&] {
                if (left == 0) {
                    number = next.fetch_add(block, std::memory_order_relaxed);
                    left = block;
                }
                --left;
                return number++;
            };
            voxels[s].reset(std::min<Index>(objects_.voxels[0], slab_voxel(s + 1) - slab_voxel(s)));
            lead_on(slab_run(s), slab_run(s + 1), lead, voxels[s]);
            follow(voxels[s], slab_voxel(s), slab_voxel(s + 1), lead, new_patch);
        });
        // All at once: where two slabs lead to each other, others may lead there as well.
        Buffer<Index> leaving;
        for (const auto& of_slab : voxels)
            for (const Index v : of_slab) leaving.push_back(v);
        Index patches = next.load();
        follow(leaving, 0, grid_.voxels, lead, [&] { return patches++; });
        return patches;
    }

    // Writes to background voxels which neighbour they lead to, and lists them.
    void lead_on(Index first, Index last, Index lead, Buffer<Index>& voxels) {
        Ways<Index> ways;
        Buffer<Index> distance(grid_.width);
        std::size_t count = 0;
        for (Index r = first; r < last;) {
            const Index row = objects_.runs[r].v - objects_.runs[r].x;
            ways_of_row(row / grid_.width / grid_.height, objects_.runs[r].y, ways);
            for (; r < last && objects_.runs[r].v - row < grid_.width; ++r) {
                const Run<Index>& run = objects_.runs[r];
                strongest_way(aff_, ways, run.v, run.x, run.length, distance.data());
                for (Index i = 0; i < run.length; ++i) {
                    regions_.node[run.v + i] = lead + run.v + i + distance[i];
                    voxels[count++] = run.v + i;
                }
            }
        }
        voxels.resize(count);
    }

    // Lets voxels lead where their target leads, again and again, until all lead to a region or patch or out of the
    // voxels [from, to); the latter stay listed. All voxels of [from, to) that lead on must be listed. Jumps double in
    // length: a few rounds do, and every round takes the voxels in the order of memory.
    template <class NewPatch>
    void follow(Buffer<Index>& voxels, Index from, Index to, Index lead, NewPatch&& new_patch) {
        Index* node = regions_.node.data();
        Buffer<Index> leaving;
        while (!voxels.empty()) {
            std::size_t left = 0;
            for (const Index v : voxels) {
                if (node[v] < lead) continue;  // the other end of a new patch
                const Index target = node[v] - lead;
                if (target < from || target >= to) {
                    leaving.push_back(v);
                    continue;
                }
                const Index beyond = node[target];
                // In a strict order the only cycles are two voxels that lead to each other, or one without any edge.
                if (beyond == lead + v) {
                    node[v] = node[target] = new_patch();
                    continue;
                }
                node[v] = beyond;
                voxels[left] = v;
                left += beyond >= lead;
            }
            voxels.resize(left);
        }
        std::swap(voxels, leaving);
    }

    const Grid<Index>& grid_;
    const T* aff_;
    const Labels<Index>& labels_;
    const int threads_;
    Sink& sink_;
    Objects<Index> objects_;
    std::vector<Index> regions_of_;  // per label
    std::vector<ObjectWork<T, Index>> work_;
    Regions<Index> regions_;
};

}  // namespace detail

// Counts on a volume, of the kinds that are wanted; returns the loss of the sink.
template <class T, class Index, class Sink>
double count_on_grid(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels, const PairOptions& options,
                     Sink& sink, bool want_positive = true, bool want_negative = true) {
    const bool masks = options.edge_mask != nullptr || labels.unlabelled != 0;
    if (masks) return count_on_graph<T, Index>(grid, aff, labels, options, want_positive, want_negative, sink);
    double loss = 0;
    const bool constrained_positive = want_positive && options.constrain_positive;
    const bool constrained_negative = want_negative && options.constrain_negative;
    if (constrained_positive || constrained_negative) {
        const int threads = grid.voxels < (Index{1} << 15) ? 1 : options.threads;
        detail::ConstrainedCount<T, Index, Sink> count(grid, aff, labels, threads, sink);
        loss += count.positive(constrained_positive);
        if (constrained_negative) loss += count.negative();
    }
    const bool positive = want_positive && !options.constrain_positive,
               negative = want_negative && !options.constrain_negative;
    if (!positive && !negative) return loss;
    if (const auto blocks = blocks_that_pay(grid))
        return loss + count_on_blocks<T, Index>(grid, aff, labels, *blocks, options.threads, positive, negative, sink);
    return loss + count_on_graph<T, Index>(grid, aff, labels, options, positive, negative, sink);
}

}  // namespace malis
