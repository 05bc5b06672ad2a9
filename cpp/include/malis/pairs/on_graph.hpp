// Pair counting on any graph: one filter-Kruskal over all its nodes for each kind of pairs, with a label histogram for
// every component. Where neither kind is constrained, one pass counts both.
#pragma once

#include <cstddef>
#include <cstdint>

#include "malis/graph/edge_list.hpp"
#include "malis/graph/every_edge.hpp"
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

template <class Index>
bool is_intra(const Index* label, Index a, Index b) {
    return (label[a] == label[b]) & (label[a] != 0);
}

// The Visit (source.hpp) of a constrained pass over the nodes themselves: edges of unknown truth and, in the positive pass,
// those within a label, in the negative one those that are not.
template <class T, class Index>
struct PassVisit {
    const T* aff;
    const Index* label;
    const UnknownEdges<Index>& unknown;
    bool positive;

    template <class Collect>
    void edge(Index edge, Index a, Index b, Collect& collect) const {
        const T affinity = aff[edge];
        if (!passes<Collect::strength>(affinity, collect.threshold)) return;
        if (is_intra(label, a, b) == positive || unknown(edge)) collect(affinity, edge, a, b);
    }
};

// Joins all known intra edges, with which the negative pass begins.
template <class Index>
void contract_objects(const EdgeList<Index>& list, const Labels<Index>& labels, const UnknownEdges<Index>& unknown,
                      UnionFind<Index>& sets) {
    const Index* const label = labels.of.data();
    in_steps(list.edges, [&](std::size_t begin, std::size_t end) {
        list.each(begin, end, [&](Index edge, Index a, Index b) {
            if (is_intra(label, a, b) && !unknown(edge)) sets.unite(a, b);
        });
    });
}

// One pass over the nodes of any graph, with label histograms, from `sets` of nodes that carry one label each. Returns what
// was not written to arrays.
template <class T, class Index, class Source>
Buffer<Decision<T, Index>> decide(const Source& source, const Labels<Index>& labels, const UnknownEdges<Index>& unknown,
                                  UnionFind<Index>& sets, int threads, bool want_positive, bool want_negative,
                                  CountArrays arrays) {
    const std::size_t nodes = labels.of.size();
    LabelHistograms<Index> histograms(nodes, labels.count, labels.unlabelled, threads);
    in_steps(nodes, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const Index node = static_cast<Index>(i);
            if (sets.find(node) == node) histograms.set(node, labels.of[i], sets.size(node));
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
    kruskal<T, Index>(source, sets, scratch, threads,
                      count_merge(sets, histograms, decisions, arrays, left,
                                  [&](const Record<T, Index>& r) { return !unknown(r.edge); }));
    return decisions;
}

// A constrained pass over a list of edges; returns the loss of the sink.
template <class T, class Index>
double count_constrained(const EdgeList<Index>& list, const T* aff, const Labels<Index>& labels,
                         const UnknownEdges<Index>& unknown, int threads, bool positive, Sink<T, Index>& sink) {
    threads = threads_for(labels.of.size(), threads);
    UnionFind<Index> sets;
    sets.reset(labels.of.size(), threads);
    if (!positive) contract_objects(list, labels, unknown, sets);
    const PassVisit<T, Index> visit{aff, labels.of.data(), unknown, positive};
    const EdgeListScan<T, Index, PassVisit<T, Index>> source(list, visit, threads);
    const auto decisions = decide<T, Index>(source, labels, unknown, sets, threads, positive, !positive, sink.arrays());
    return positive ? emit_positive<T, Index>(decisions, sink) : emit_negative<T, Index>(decisions, sink);
}

}  // namespace detail

// Counts without constraints, on any graph; returns the loss of the sink.
template <class T, class Index, class Graph>
double count_unconstrained(const Graph& graph, const T* aff, const Labels<Index>& labels,
                           const UnknownEdges<Index>& unknown, int threads, bool want_positive, bool want_negative,
                           Sink<T, Index>& sink) {
    threads = threads_for(labels.of.size(), threads);
    UnionFind<Index> sets;
    sets.reset(labels.of.size(), threads);
    const detail::EveryEdge<T> visit{aff};
    const auto decisions = detail::decide<T, Index>(detail::every_edge(graph, visit, threads), labels, unknown, sets,
                                                    threads, want_positive, want_negative, sink.arrays());
    double loss = 0;
    if (want_positive) loss += detail::emit_positive<T, Index>(decisions, sink);
    if (want_negative) loss += detail::emit_negative<T, Index>(decisions, sink);
    return loss;
}

// Counts on a list of edges; returns the loss of the sink. Takes the labels apart.
template <class T, class Index>
double count_on_graph(const EdgeList<Index>& list, const T* aff, Labels<Index> labels, const PairOptions& options,
                      bool want_positive, bool want_negative, Sink<T, Index>& sink) {
    const int threads = options.threads;
    const UnknownEdges<Index> unknown = unknown_edges(list, labels, options.edge_mask, threads);
    labels.forget_ignored(threads);
    double loss = 0;
    if (want_positive && options.constrain_positive) {
        loss += detail::count_constrained<T, Index>(list, aff, labels, unknown, threads, true, sink);
        want_positive = false;
    }
    if (want_negative && options.constrain_negative) {
        loss += detail::count_constrained<T, Index>(list, aff, labels, unknown, threads, false, sink);
        want_negative = false;
    }
    if (want_positive || want_negative)
        loss += count_unconstrained<T, Index>(list, aff, labels, unknown, threads, want_positive, want_negative, sink);
    return loss;
}

}  // namespace malis
