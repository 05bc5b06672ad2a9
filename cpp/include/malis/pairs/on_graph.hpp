// Pair counting on any graph: one filter-Kruskal over all its nodes for each kind of pairs, with a label histogram for
// every component. Where neither kind is constrained, one pass counts both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "malis/graph/edge_list.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/select.hpp"
#include "malis/graph/unknown_edges.hpp"
#include "malis/pairs/all_pairs.hpp"
#include "malis/pairs/count_merge.hpp"
#include "malis/pairs/options.hpp"
#include "malis/pairs/sink.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

namespace detail {

enum class Pass { positive, negative, unconstrained, contraction };

// The Visit (source.hpp) of a pass over the nodes themselves.
template <class T, class Index, Pass pass>
struct PassVisit {
    const T* aff;
    const Index* label;
    const UnknownEdges<Index>& unknown;

    bool takes_part(Index edge, Index a, Index b) const {
        if constexpr (pass == Pass::unconstrained) return true;
        const bool intra = (label[a] == label[b]) & (label[a] != 0);
        const bool known = !unknown(edge);
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

// Joins all known intra edges, with which the negative pass begins.
template <class T, class Index, class Graph>
void contract_objects(const Graph& graph, const T* aff, const Labels<Index>& labels, const UnknownEdges<Index>& unknown,
                      UnionFind<Index>& sets) {
    Contraction<T, Index> unite{sets};
    const PassVisit<T, Index, Pass::contraction> visit{aff, labels.of.data(), unknown};
    const auto source = scan_of<Pass::contraction, T>(graph, visit, 1);
    for (std::size_t chunk = 0; chunk < source.chunks(); ++chunk) source.scan(chunk, unite);
}

// One pass over the nodes of any graph, with label histograms. Returns what was not written to arrays.
template <Pass pass, class T, class Index, class Graph>
Buffer<Decision<T, Index>> decide(const Graph& graph, const T* aff, const Labels<Index>& labels,
                                  const UnknownEdges<Index>& unknown, int threads, bool want_positive,
                                  bool want_negative, CountArrays arrays) {
    const std::size_t nodes = labels.of.size();
    threads = threads_for(nodes, threads);
    UnionFind<Index> sets;
    sets.reset(nodes, threads);
    if constexpr (pass == Pass::negative) contract_objects(graph, aff, labels, unknown, sets);
    LabelHistograms<Index> histograms(nodes, labels.count, labels.unlabelled, threads);
    in_steps(nodes, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            // What is contracted carries one label, so its root stands for all of it.
            const bool root = pass != Pass::negative || sets.find(static_cast<Index>(i)) == static_cast<Index>(i);
            if (root) histograms.set(static_cast<Index>(i), labels.of[i], sets.size(static_cast<Index>(i)));
        }
    });
    PairCount left = all_pairs(label_sizes(labels, threads), labels.unlabelled);
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
    const PassVisit<T, Index, pass> visit{aff, labels.of.data(), unknown};
    kruskal<T, Index>(scan_of<pass, T>(graph, visit, threads), sets, scratch, threads,
                      count_merge(sets, histograms, decisions, arrays, left,
                                  [&](const Record<T, Index>& r) { return !unknown(r.edge); }));
    return decisions;
}

}  // namespace detail

// Counts without constraints; returns the loss of the sink.
template <class T, class Index, class Graph, class Sink>
double count_unconstrained(const Graph& graph, const T* aff, const Labels<Index>& labels,
                           const UnknownEdges<Index>& unknown, int threads, bool want_positive, bool want_negative,
                           Sink& sink) {
    const auto decisions = detail::decide<detail::Pass::unconstrained, T, Index>(
        graph, aff, labels, unknown, threads, want_positive, want_negative, sink.arrays());
    double loss = 0;
    if (want_positive) loss += detail::emit_positive<T, Index>(decisions, sink);
    if (want_negative) loss += detail::emit_negative<T, Index>(decisions, sink);
    return loss;
}

// Counts on any graph; returns the loss of the sink. Takes the labels apart.
template <class T, class Index, class Graph, class Sink>
double count_on_graph(const Graph& graph, const T* aff, Labels<Index> labels, const PairOptions& options,
                      bool want_positive, bool want_negative, Sink& sink) {
    using detail::Pass;
    const int threads = options.threads;
    const UnknownEdges<Index> unknown = unknown_edges(graph, labels, options.edge_mask, threads);
    labels.forget_ignored(threads);
    double loss = 0;
    if (want_positive && options.constrain_positive) {
        loss += detail::emit_positive<T, Index>(
            detail::decide<Pass::positive, T, Index>(graph, aff, labels, unknown, threads, true, false, sink.arrays()),
            sink);
        want_positive = false;
    }
    if (want_negative && options.constrain_negative) {
        loss += detail::emit_negative<T, Index>(
            detail::decide<Pass::negative, T, Index>(graph, aff, labels, unknown, threads, false, true, sink.arrays()),
            sink);
        want_negative = false;
    }
    if (want_positive || want_negative)
        loss += count_unconstrained<T, Index>(graph, aff, labels, unknown, threads, want_positive, want_negative, sink);
    return loss;
}

}  // namespace malis
