// Unconstrained counts on a volume, block by block (tree/block_forest.hpp).
//
// Pairs that an edge between two closed components decides are counted within the block. A closed component that is
// joined to an open one is handed on as a number of voxels of one label, as nearly all of them are; and one of
// background alone, which brings no pairs, is not handed on at all.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/unknown_edges.hpp"
#include "malis/pairs/all_pairs.hpp"
#include "malis/pairs/sink.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/prefetch.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

namespace detail {

// What nodes of a block carry: one label each, or none, and further labels of some of them.
template <class Index>
struct NodeLabels {
    struct Part {
        Index label, voxels;
    };
    struct Further {
        Index node, label, voxels;
    };
    Buffer<Part> first;
    std::vector<Further> further;
};

template <class T, class Index, class Receive>
class CountCarry {
  public:
    CountCarry(const Blocks<T, Index>& blocks, const Labels<Index>& labels, std::vector<NodeLabels<Index>>& nodes,
               Receive receive)
        : blocks_(blocks),
          labels_(labels),
          nodes_(nodes),
          receive_(std::move(receive)),
          histograms_(0, labels.count, labels.unlabelled, 1) {}

    void begin(const BlockKruskal<T, Index>& kruskal) {
        kruskal_ = &kruskal;
        const auto& block = kruskal.block();
        histograms_.reset(blocks_.numbers(block));
        Blocks<T, Index>::each_row(block, [&](Index row, Index, Index) {
            const Index v = row << blocks_.row_bits;
            const Index* const label = labels_.of.data() + kruskal.voxel(v);
            for (Index x = 0; x < block.width; ++x) histograms_.set(v + x, label[x], 1);
        });
        labels_of_nodes_ = {};
        receive_.begin();
    }
    void joined(Rank<T> rank, std::uint32_t e, Index into, Index from) {
        const PairCount pairs = receive_.merge(histograms_, into, from);
        if ((pairs.pos | pairs.neg) != 0) receive_(rank, kruskal_->edge(e), pairs);
    }
    Attached attach(Rank<T>, std::uint32_t, Index b, Index& label, Index& voxels) {
        voxels = histograms_.foreground(b);
        if (voxels == 0) return Attached::dropped;
        label = histograms_.single_label(b);
        return label != 0 ? Attached::value : Attached::node;
    }
    void open(Index root, Index node) {
        auto& nodes = labels_of_nodes_;
        nodes.first.push_back({0, 0});
        histograms_.each_label(root, [&](Index label, Index voxels) {
            if (nodes.first[node].voxels == 0) nodes.first[node] = {label, voxels};
            else nodes.further.push_back({node, label, voxels});
        });
    }
    void end(std::size_t block) {
        nodes_[block] = std::move(labels_of_nodes_);
        receive_.end(block);
    }

  private:
    const Blocks<T, Index>& blocks_;
    const Labels<Index>& labels_;
    std::vector<NodeLabels<Index>>& nodes_;
    Receive receive_;
    const BlockKruskal<T, Index>* kruskal_ = nullptr;
    LabelHistograms<Index> histograms_;
    NodeLabels<Index> labels_of_nodes_;
};

// The rest: links in order, with the labels of their nodes. receive(rank, edge, pairs) of what each decides.
template <class T, class Index, class Receive>
void count_links(const BlockForest<T, Index>& forest, const Buffer<ForestLink<T, Index>>& links,
                 const std::vector<NodeLabels<Index>>& nodes, const Labels<Index>& labels, Receive&& receive) {
    UnionFind<Index> sets;
    sets.reset(forest.nodes());
    LabelHistograms<Index> histograms(forest.nodes(), labels.count, labels.unlabelled, 1);
    for (std::size_t b = 0; b < nodes.size(); ++b) {
        const Index base = forest.base(b);
        for (std::size_t i = 0; i < nodes[b].first.size(); ++i)
            histograms.set(base + static_cast<Index>(i), nodes[b].first[i].label, nodes[b].first[i].voxels);
        for (const auto& further : nodes[b].further) histograms.add(base + further.node, further.label, further.voxels);
    }
    const Index* const parents = sets.parents();
    // Roots are beyond the cache where there are many nodes: they are asked for some links ahead.
    constexpr std::ptrdiff_t far = 24, near = 12;
    using Link = ForestLink<T, Index>;
    in_steps(links.begin(), links.end(), steps_per_poll, [&](const Link* begin, const Link* end) {
        for (const Link* link = begin; link != end; ++link) {
            if (end - link > far) {
                prefetch(parents + link[far].a);
                if (link[far].voxels == 0) prefetch(parents + link[far].b);
                histograms.prefetch_root(parents[link[near].a]);
            }
            PairCount pairs;
            const Index a = sets.find(link->a);
            if (link->voxels != 0) {
                pairs = receive.add(histograms, a, link->b, link->voxels);
            } else {
                const Index b = sets.find(link->b);
                if (a == b) continue;
                const Index into = sets.link(a, b);
                pairs = receive.merge(histograms, into, into == a ? b : a);
            }
            if ((pairs.pos | pairs.neg) != 0) receive(link->rank, link->edge, pairs);
        }
    });
}

// What the edges of a block decide, or at last all links, goes to deliver(decisions, part, thread), with the number of the
// block or, for the links, that of blocks.
template <class T, class Index>
using DeliverDecisions = std::function<void(Buffer<Decision<T, Index>>&, std::size_t, std::size_t)>;

template <class T, class Index>
class DecisionReceiver {
  public:
    DecisionReceiver(const DeliverDecisions<T, Index>& deliver, const UnknownEdges<Index>& unknown, std::size_t thread,
                     bool want_positive, bool want_negative)
        : deliver_(deliver),
          unknown_(unknown),
          thread_(thread),
          want_positive_(want_positive),
          want_negative_(want_negative) {}

    void begin() { list_.clear(); }
    void end(std::size_t part) { deliver_(list_, part, thread_); }
    PairCount merge(LabelHistograms<Index>& histograms, Index into, Index from) const {
        return wanted(histograms.merge(into, from));
    }
    PairCount add(LabelHistograms<Index>& histograms, Index root, Index label, Index voxels) const {
        return wanted(histograms.add(root, label, voxels));
    }
    void operator()(Rank<T> rank, Index edge, PairCount pairs) {
        if (!unknown_(edge)) list_.push_back({rank, edge, pairs});
    }

  private:
    PairCount wanted(PairCount pairs) const { return {want_positive_ ? pairs.pos : 0, want_negative_ ? pairs.neg : 0}; }
    const DeliverDecisions<T, Index>& deliver_;
    const UnknownEdges<Index>& unknown_;
    std::size_t thread_;
    bool want_positive_, want_negative_;
    Buffer<Decision<T, Index>> list_;
};

template <class T, class Index>
void decide_on_blocks(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels,
                      const UnknownEdges<Index>& unknown, BlockShape shape, int threads, bool want_positive,
                      bool want_negative, Rank<T> last, const DeliverDecisions<T, Index>& deliver) {
    using Receiver = DecisionReceiver<T, Index>;
    BlockForest<T, Index> forest(grid, aff, shape);
    std::vector<NodeLabels<Index>> nodes(forest.blocks.size());
    {
        std::vector<CountCarry<T, Index, Receiver>> carries;
        for (std::size_t t = 0; t < static_cast<std::size_t>(std::max(1, threads)); ++t)
            carries.emplace_back(forest.blocks, labels, nodes,
                                 Receiver(deliver, unknown, t, want_positive, want_negative));
        forest.solve(carries, threads, last);
    }
    const auto links = forest.links(threads, last);
    Receiver receive(deliver, unknown, 0, want_positive, want_negative);
    count_links<T, Index>(forest, links, nodes, labels, receive);
    receive.end(forest.blocks.size());
}

// Hands decisions over to a sink; returns their loss.
template <class T, class Index>
double report(const Buffer<Decision<T, Index>>& decisions, std::size_t begin, std::size_t end, std::size_t thread,
              Sink<T, Index>& sink) {
    double loss = 0;
    for (std::size_t i = begin; i < end; ++i) {
        const auto& d = decisions[i];
        if (d.pairs.pos != 0) loss += sink.positive(d.rank, d.edge, d.pairs.pos, thread);
        if (d.pairs.neg != 0) loss += sink.negative(d.rank, d.edge, d.pairs.neg, thread);
    }
    return loss;
}

// The same on several threads.
template <class T, class Index>
double report_in_pieces(const Buffer<Decision<T, Index>>& decisions, int threads, Sink<T, Index>& sink) {
    constexpr std::size_t piece = std::size_t{1} << 15;  // the same for any number of threads, as the sum is then
    std::vector<double> losses(decisions.size() / piece + 1);
    parallel_for(losses.size(), threads, [&](std::size_t p, std::size_t thread) {
        losses[p] = report(decisions, p * piece, std::min(decisions.size(), (p + 1) * piece), thread, sink);
    });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
}

template <class T, class Index>
PairCount decided_pairs(const std::vector<Buffer<Decision<T, Index>>>& lists) {
    PairCount pairs{0, 0};
    for (const auto& list : lists) {
        for (const auto& d : list) {
            pairs.pos += d.pairs.pos;
            pairs.neg += d.pairs.neg;
        }
    }
    return pairs;
}

}  // namespace detail

// Unconstrained counts on a volume; returns the loss of the sink.
template <class T, class Index>
double count_on_blocks(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels,
                       const UnknownEdges<Index>& unknown, BlockShape shape, int threads, bool want_positive,
                       bool want_negative, Sink<T, Index>& sink) {
    using List = Buffer<detail::Decision<T, Index>>;
    const auto expect = [&](PairCount pairs) {
        if (want_positive) sink.expect_positive(static_cast<double>(pairs.pos));
        if (want_negative) sink.expect_negative(static_cast<double>(pairs.neg));
    };
    const std::size_t blocks = Blocks<T, Index>(grid, aff, shape).size();
    std::vector<double> losses(blocks + 1, 0.0);
    // What a pair weighs in a loss takes the number of all pairs. Where known edges alone connect the volume, all are
    // counted; else decisions have to wait until that has been done.
    if (!grid.connected() || unknown.any()) {
        std::vector<List> waiting(blocks + 1);
        detail::decide_on_blocks<T, Index>(
            grid, aff, labels, unknown, shape, threads, want_positive, want_negative,
            std::numeric_limits<Rank<T>>::max(),
            [&](List& list, std::size_t part, std::size_t) { waiting[part] = std::move(list); });
        expect(detail::decided_pairs(waiting));
        for (std::size_t part = 0; part <= blocks; ++part)
            losses[part] = detail::report_in_pieces(waiting[part], threads, sink);
        return std::accumulate(losses.begin(), losses.end(), 0.0);
    }
    expect(detail::all_pairs(detail::label_sizes(labels, threads), labels.unlabelled));
    // Negative pairs that add nothing to a loss need not be met.
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const T cutoff = want_positive ? -infinity : sink.negative_cutoff();
    if (cutoff == infinity) return 0;
    const Rank<T> last =
        cutoff > -infinity ? to_rank(std::nextafter(cutoff, infinity)) : std::numeric_limits<Rank<T>>::max();
    detail::decide_on_blocks<T, Index>(grid, aff, labels, unknown, shape, threads, want_positive, want_negative, last,
                                       [&](List& list, std::size_t part, std::size_t thread) {
                                           losses[part] = part < blocks
                                                              ? detail::report(list, 0, list.size(), thread, sink)
                                                              : detail::report_in_pieces(list, threads, sink);
                                       });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace malis
