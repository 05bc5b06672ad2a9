// How good the segmentation at every threshold is, from one pass over the edges.
//
// Lowering the threshold past an affinity joins components. What that changes are sums over pairs of components alone:
//
//     true positives    + x * y           for every label of which they hold x and y voxels
//     false positives   + x * y           for every two labels
//     sum of f(n_ij)    + f(x + y) - f(x) - f(y)    f(n) = n log2 n, n_ij: voxels of label j in component i
//     sum of f(s_i)     likewise          s_i: foreground voxels of component i
//
// The pairs give the Rand scores, the sums the two conditional entropies. All four are kept as integers (of f, a fixed
// part of a bit is the unit), so that they can be added up in any order: blocks of the volume (tree/block_forest.hpp) find
// their changes on their own, and an f that is added and later removed leaves no trace. Changes are put in order at last.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/pairs/on_blocks.hpp"
#include "malis/segmentation/distinct.hpp"
#include "malis/segmentation/every_edge.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

// Threshold i describes the components of the edges whose affinity is at least thresholds[i], each voxel within one.
// Most affinities join nothing, or background alone, and change no score: scores are kept in steps, of which step j holds
// from threshold first[j] to that before first[j + 1].
template <class T>
struct RandCurve {
    Buffer<T> thresholds;  // every affinity of an edge, decreasing
    Buffer<std::int64_t> first, true_positives, false_positives;
    Buffer<double> voi_split, voi_merge;                    // bits
    T best_threshold = std::numeric_limits<T>::infinity();  // the highest of those with the best F-score of pairs
    // Pairs of voxels of one label, and voxels that carry one: with these, the pairs give any Rand score.
    std::int64_t true_pairs = 0, foreground = 0;
};

namespace detail {

// n log2 n in units of 2^-bits, for n up to `largest`: as fine as sums of it fit 62 bits.
class Entropies {
  public:
    explicit Entropies(std::uint64_t largest) {
        const double most = largest > 1 ? static_cast<double>(largest) * std::log2(static_cast<double>(largest)) : 1.0;
        bits_ = 61 - static_cast<int>(std::ceil(std::log2(most)));
        for (std::size_t n = 1; n < tabulated; ++n) table_[n] = of(n);
    }
    std::int64_t operator()(std::uint64_t n) const {
        return n < tabulated ? table_[static_cast<std::size_t>(n)] : of(n);
    }
    // What joining x and y of a kind adds.
    std::int64_t join(std::uint64_t x, std::uint64_t y) const { return (*this)(x + y) - (*this)(x) - (*this)(y); }
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
        // Where both carry one and the same label, the sums change by the same.
        joined_.segments = pairs.neg == 0 ? joined_.joint : entropies_.join(x, y);
        return pairs;
    }

    const Entropies& entropies_;
    std::vector<List>& lists_;
    List list_;
    CurveSums joined_;
};

// What the sums start from and are measured by.
struct CurveTruth {
    std::uint64_t foreground = 0;
    PairCount all{0, 0};
    std::int64_t entropy = 0;

    // 1 where there are no pairs on either side.
    double f_score(const CurveSums& sums) const {
        const double pairs =
            static_cast<double>(sums.true_positives + sums.false_positives) + static_cast<double>(all.pos);
        return pairs > 0 ? 2 * static_cast<double>(sums.true_positives) / pairs : 1.0;
    }
};

// From the number of voxels of each label, that of background first.
inline CurveTruth truth_of(const std::vector<std::uint64_t>& sizes) {
    CurveTruth truth;
    for (std::size_t l = 1; l < sizes.size(); ++l) truth.foreground += sizes[l];
    // Then the number of pairs fits into 63 bits.
    if (truth.foreground > std::numeric_limits<std::uint32_t>::max()) {
        throw std::invalid_argument("seg must have fewer than 2**32 foreground voxels, got " +
                                    std::to_string(truth.foreground));
    }
    truth.all = all_pairs(sizes);
    return truth;
}

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

// Adds changes up to steps. Pieces of the curve are put in order on their own; what comes before each is known from the
// sums of the pieces before it. They are put in order twice, to count the steps and to write them: kept in between they
// would take as much memory as all changes.
template <class T>
void write_steps(const std::vector<Buffer<CurveChange<T>>>& lists, const Buffer<Rank<T>>& ranks,
                 const CurveTruth& truth, const Entropies& entropies, int threads, RandCurve<T>& curve) {
    using Change = CurveChange<T>;
    std::vector<Stream<Change, std::uint32_t>> streams;
    streams.reserve(lists.size());
    for (const auto& list : lists) streams.push_back({list.begin(), list.end(), 0});
    const CutStreams<Change, std::uint32_t> cut(
        streams, [](const Change& x, const Change& y) { return x.rank < y.rank; }, threads);
    struct Work {
        Buffer<Change> items;
        SortScratch<T, std::uint32_t> keys;
    };
    std::vector<Work> work(static_cast<std::size_t>(std::max(1, threads)));
    struct Piece {
        std::size_t steps = 0;
        Rank<T> first = 0;
        CurveSums sums;
        double best = -1;
        std::size_t best_at = 0;  // a threshold
    };
    std::vector<Piece> pieces(cut.pieces());
    // Calls f(change) for every step of a piece, in order: the changes of one affinity are one.
    const auto each_step = [&](std::size_t p, Work& w, auto&& f) {
        const std::size_t n = cut.start(p + 1) - cut.start(p);
        w.items.reset(n);
        Change* to = w.items.data();
        cut.each_slice(p,
                       [&](const Change* begin, const Change* end, std::uint32_t) { to = std::copy(begin, end, to); });
        struct Ranks {
            const Change* items;
            Rank<T> rank(std::size_t i) const { return items[i].rank; }
            Key<T> key(std::size_t i) const { return {items[i].rank, static_cast<std::uint32_t>(i)}; }
        };
        w.keys.keys.reset(6 * n);
        sort_keys<T>(Ranks{w.items.data()}, n, w.keys.keys.data(), w.keys.counts);
        for (std::size_t i = 0; i < n;) {
            Change step = w.items[w.keys.keys[i].at()];
            while (++i < n && w.items[w.keys.keys[i].at()].rank == step.rank)
                step.sums.add(w.items[w.keys.keys[i].at()].sums);
            f(step);
        }
    };
    parallel_for(cut.pieces(), threads, [&](std::size_t p, std::size_t thread) {
        Piece& piece = pieces[p];
        each_step(p, work[thread], [&](const Change& step) {
            if (piece.steps++ == 0) piece.first = step.rank;
            piece.sums.add(step.sums);
        });
    });

    // There is a step at the first threshold, whether it changes anything or not.
    const auto first_piece =
        std::find_if(pieces.begin(), pieces.end(), [](const Piece& piece) { return piece.steps > 0; });
    const bool leading = first_piece == pieces.end() || first_piece->first != ranks[0];
    std::size_t steps = leading ? 1 : 0;
    std::vector<std::size_t> first_step(pieces.size());
    std::vector<CurveSums> before(pieces.size());
    CurveSums sums;
    for (std::size_t p = 0; p < pieces.size(); ++p) {
        first_step[p] = steps;
        before[p] = sums;
        steps += pieces[p].steps;
        sums.add(pieces[p].sums);
    }
    for (auto* integers : {&curve.first, &curve.true_positives, &curve.false_positives}) integers->reset(steps);
    for (auto* values : {&curve.voi_split, &curve.voi_merge}) values->reset(steps);
    const double voxels = truth.foreground > 0 ? static_cast<double>(truth.foreground) : 1.0;
    const auto write = [&](std::size_t step, std::size_t threshold, const CurveSums& at) {
        curve.first[step] = static_cast<std::int64_t>(threshold);
        curve.true_positives[step] = at.true_positives;
        curve.false_positives[step] = at.false_positives;
        curve.voi_split[step] = std::max(0.0, entropies.value(truth.entropy - at.joint) / voxels);
        curve.voi_merge[step] = std::max(0.0, entropies.value(at.segments - at.joint) / voxels);
    };
    parallel_for(pieces.size(), threads, [&](std::size_t p, std::size_t thread) {
        Piece& piece = pieces[p];
        CurveSums at = before[p];
        std::size_t step = first_step[p];
        const Rank<T>* rank = std::min(std::lower_bound(ranks.begin(), ranks.end(), piece.first), ranks.end() - 1);
        each_step(p, work[thread], [&](const Change& change) {
            // Where the caller's memory changes during the call an affinity may be missing from one of the two.
            while (rank + 1 < ranks.end() && *rank < change.rank) ++rank;
            const auto threshold = static_cast<std::size_t>(rank - ranks.begin());
            at.add(change.sums);
            write(step++, threshold, at);
            if (truth.f_score(at) > piece.best) {
                piece.best = truth.f_score(at);
                piece.best_at = threshold;
            }
        });
    });
    double best = -1;
    std::size_t best_at = 0;
    if (leading) {
        write(0, 0, CurveSums{});
        best = truth.f_score(CurveSums{});
    }
    for (const Piece& piece : pieces) {
        if (piece.best <= best) continue;
        best = piece.best;
        best_at = piece.best_at;
    }
    curve.best_threshold = from_rank<T>(ranks[best_at]);
}

template <class T, class Index>
RandCurve<T> rand_curve(const Grid<Index>& grid, Affinities<T> aff, const Labels<Index>& labels,
                        std::optional<BlockShape> blocks, int threads) {
    const std::vector<std::uint64_t> sizes = label_sizes(labels, threads);
    CurveTruth truth = truth_of(sizes);
    const Entropies entropies(truth.foreground);
    for (std::size_t l = 1; l < sizes.size(); ++l) truth.entropy += entropies(sizes[l]);

    RandCurve<T> curve;
    curve.true_pairs = static_cast<std::int64_t>(truth.all.pos);
    curve.foreground = static_cast<std::int64_t>(truth.foreground);
    const Buffer<Rank<T>> ranks = distinct_ranks<T, Index>(grid, aff, threads);
    if (ranks.empty()) return curve;
    {
        const auto changes = blocks ? curve_changes<T, Index>(grid, aff, labels, *blocks, entropies, threads)
                                    : curve_changes<T, Index>(grid, aff, labels, entropies, threads);
        write_steps<T>(changes, ranks, truth, entropies, threads, curve);
    }
    curve.thresholds.reset(ranks.size());
    parallel_ranges(ranks.size(), std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) curve.thresholds[i] = from_rank<T>(ranks[i]);
    });
    return curve;
}

}  // namespace detail

}  // namespace malis
