// What merges change in the sums of a curve of scores (rand_curve.hpp), and all changes of a volume.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/every_edge.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/pairs/on_blocks.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

namespace detail {

// n log2 n in units of 2^-bits, for n up to `largest`: as fine as sums of it fit 62 bits.
class Entropies {
  public:
    explicit Entropies(std::uint64_t largest) {
        const double most = largest > 1 ? static_cast<double>(largest) * std::log2(static_cast<double>(largest)) : 1.0;
        bits_ = 61 - static_cast<int>(std::ceil(std::log2(most)));
        for (std::size_t n = 1; n < tabulated && n <= largest; ++n) table_[n] = of(n);
    }
    std::int64_t operator()(std::uint64_t n) const {
        return n < tabulated ? table_[static_cast<std::size_t>(n)] : of(n);
    }
    // What joining x and y of a kind adds.
    std::int64_t join(std::uint64_t x, std::uint64_t y) const { return (*this)(x + y) - (*this)(x) - (*this)(y); }
    // What joining components of x and y voxels adds that decides these pairs, with `joint` added for labels: where both
    // carry one and the same label, it is the same.
    std::int64_t join_segments(PairCount pairs, std::int64_t joint, std::uint64_t x, std::uint64_t y) const {
        return pairs.neg == 0 ? joint : join(x, y);
    }
    double value(std::int64_t sum) const { return std::ldexp(static_cast<double>(sum), -bits_); }

  private:
    std::int64_t of(std::uint64_t n) const {
        return std::llround(std::ldexp(static_cast<double>(n) * std::log2(static_cast<double>(n)), bits_));
    }
    static constexpr std::size_t tabulated = std::size_t{1} << 14;
    int bits_;
    std::vector<std::int64_t> table_ = std::vector<std::int64_t>(tabulated, 0);
};

// What all merges at one affinity change.
struct CurveSums {
    std::int64_t true_positives = 0, false_positives = 0;
    std::int64_t joint = 0, segments = 0;  // sums of f
    void add(const CurveSums& other) {
        true_positives += other.true_positives;
        false_positives += other.false_positives;
        joint += other.joint;
        segments += other.segments;
    }
};
template <class T>
struct CurveChange {
    Rank<T> rank;
    CurveSums sums;
};

// Receives merges (pairs/on_blocks.hpp) in order and lists what they change, in one list for each block.
template <class T, class Index>
class CurveReceiver {
  public:
    using List = Buffer<CurveChange<T>>;

    CurveReceiver(const Entropies& entropies, std::vector<List>& lists) : entropies_(entropies), lists_(lists) {}

    void begin() { list_.clear(); }
    void end(std::size_t part) { lists_[part] = exact_copy(list_); }
    PairCount merge(LabelHistograms<Index>& histograms, Index into, Index from) {
        joined_.joint = 0;
        const Index x = histograms.foreground(into), y = histograms.foreground(from);
        const PairCount pairs = histograms.merge(into, from, [this](Index a, Index b) { join(a, b); });
        return joined(x, y, pairs);
    }
    PairCount add(LabelHistograms<Index>& histograms, Index root, Index label, Index voxels) {
        joined_.joint = 0;
        const Index x = histograms.foreground(root);
        const PairCount pairs = histograms.add(root, label, voxels, [this](Index a, Index b) { join(a, b); });
        return joined(x, voxels, pairs);
    }
    void operator()(Rank<T> rank, Index, PairCount) {
        if (list_.empty() || list_.end()[-1].rank != rank) list_.push_back({rank, {}});
        list_.end()[-1].sums.add(joined_);
    }

  private:
    void join(Index x, Index y) { joined_.joint += entropies_.join(x, y); }
    PairCount joined(Index x, Index y, PairCount pairs) {
        if ((pairs.pos | pairs.neg) == 0) return pairs;
        joined_.true_positives = static_cast<std::int64_t>(pairs.pos);
        joined_.false_positives = static_cast<std::int64_t>(pairs.neg);
        joined_.segments = entropies_.join_segments(pairs, joined_.joint, x, y);
        return pairs;
    }

    const Entropies& entropies_;
    std::vector<List>& lists_;
    List list_;
    CurveSums joined_;
};

// All changes of a volume: those of each block, and at last those of what blocks leave.
template <class T, class Index>
std::vector<Buffer<CurveChange<T>>> curve_changes(const Grid<Index>& grid, Affinities<T> aff,
                                                  const Labels<Index>& labels, BlockShape shape,
                                                  const Entropies& entropies, int threads) {
    using Receiver = CurveReceiver<T, Index>;
    BlockForest<T, Index> forest(grid, aff, shape);
    std::vector<typename Receiver::List> lists(forest.blocks.size() + 1);
    Receiver receive(entropies, lists);
    std::vector<NodeLabels<Index>> nodes(forest.blocks.size());
    {
        std::vector<CountCarry<T, Index, Receiver>> carries;
        for (int t = 0; t < std::max(1, threads); ++t)
            carries.emplace_back(forest.blocks, labels, nodes, Receiver(entropies, lists));
        forest.solve(carries, threads);
    }
    const auto links = forest.links(threads);
    receive.begin();
    count_links<T, Index>(forest, links, nodes, labels, receive);
    receive.end(forest.blocks.size());
    return lists;
}

// The same in one go over the whole volume, where blocks do not pay.
template <class T, class Index>
std::vector<Buffer<CurveChange<T>>> curve_changes(const Grid<Index>& grid, Affinities<T> aff,
                                                  const Labels<Index>& labels, const Entropies& entropies,
                                                  int threads) {
    std::vector<Buffer<CurveChange<T>>> lists(1);
    CurveReceiver<T, Index> receive(entropies, lists);
    UnionFind<Index> sets;
    sets.reset(grid.voxels, threads);
    LabelHistograms<Index> histograms(grid.voxels, labels.count, 0, threads);
    parallel_ranges(grid.voxels, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) histograms.set(static_cast<Index>(v), labels.of[v], 1);
    });
    KruskalScratch<T, Index> scratch;
    const EveryEdge<T> visit{aff};
    kruskal<T, Index>(every_edge<T, Index>(grid, visit, threads), sets, scratch, threads,
                      [&](const Record<T, Index>& r, Index a, Index b) {
                          const Index into = sets.link(a, b);
                          const PairCount pairs = receive.merge(histograms, into, into == a ? b : a);
                          if ((pairs.pos | pairs.neg) != 0) receive(r.rank, r.edge, pairs);
                          return true;
                      });
    receive.end(0);
    return lists;
}

}  // namespace detail

}  // namespace malis
