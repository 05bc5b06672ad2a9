// How good the segmentation at every threshold is, from one pass over the edges.
//
// Lowering the threshold past an affinity joins components. What that changes are sums over pairs of components alone:
//
//     true positives    + x * y           for every label of which they hold x and y voxels
//     false positives   + x * y           for every two labels
//     sum of f(n_ij)    + f(x + y) - f(x) - f(y)    f(n) = n log2 n, n_ij: voxels of label j in component i
//     sum of f(s_i)     likewise          s_i: foreground voxels of component i
//
// The pairs give the Rand scores, the sums the two conditional entropies. Every f is a fixed number for its n, and the
// sums keep their rounding errors, so that f's that are added and later removed leave no trace: the entropies at the
// last threshold are as exact as those at the first.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/segmentation/distinct.hpp"
#include "malis/segmentation/every_edge.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"
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

// A sum of doubles that keeps what rounding takes from it (Neumaier: Rundungsfehleranalyse einiger Verfahren zur
// Summation endlicher Summen, 1974).
class LongSum {
  public:
    void add(double x) {
        const double sum = high_ + x;
        const double part = sum - high_;
        low_ += (high_ - (sum - part)) + (x - part);
        high_ = sum;
    }
    double minus(const LongSum& other) const { return (high_ - other.high_) + (low_ - other.low_); }

  private:
    double high_ = 0, low_ = 0;
};

// n log2 n: from a table as long as n is small.
class Entropies {
  public:
    Entropies() {
        for (std::size_t n = 1; n < tabulated; ++n) table_[n] = of(n);
    }
    double operator()(std::uint64_t n) const { return n < tabulated ? table_[static_cast<std::size_t>(n)] : of(n); }

  private:
    static double of(std::uint64_t n) { return static_cast<double>(n) * std::log2(static_cast<double>(n)); }
    static constexpr std::size_t tabulated = std::size_t{1} << 14;
    std::vector<double> table_ = std::vector<double>(tabulated, 0.0);
};

// The state of the pass, and what it amounts to.
class Confusion {
  public:
    // voxels[l]: how many voxels carry label l
    explicit Confusion(const std::vector<std::uint64_t>& voxels) {
        for (std::size_t l = 1; l < voxels.size(); ++l) {
            foreground_ += voxels[l];
            truth_.add(entropies_(voxels[l]));
        }
        // Then the number of pairs fits into 63 bits.
        if (foreground_ > std::numeric_limits<std::uint32_t>::max()) {
            throw std::invalid_argument("seg must have fewer than 2**32 foreground voxels, got " +
                                        std::to_string(foreground_));
        }
        for (std::size_t l = 1; l < voxels.size(); ++l) same_ += pairs_of(voxels[l]);
        all_ = pairs_of(foreground_);
    }

    std::int64_t true_pairs() const { return static_cast<std::int64_t>(same_); }
    std::int64_t foreground() const { return static_cast<std::int64_t>(foreground_); }

    // Joins two components; false when all foreground voxels are joined.
    template <class Index>
    bool merge(LabelHistograms<Index>& histograms, Index into, Index from) {
        const Index x = histograms.foreground(into), y = histograms.foreground(from);
        if (x == 0 || y == 0) {
            histograms.merge(into, from);
            return true;
        }
        const PairCount pairs = histograms.merge(into, from, [&](Index a, Index b) { join(joint_, a, b); });
        join(segments_, x, y);
        positive_ += pairs.pos;
        negative_ += pairs.neg;
        changed_ = true;
        return positive_ + negative_ < all_;
    }

    bool changed() const { return changed_; }

    // Writes step j of a curve.
    template <class T>
    void write(RandCurve<T>& curve, std::size_t j) {
        curve.true_positives[j] = static_cast<std::int64_t>(positive_);
        curve.false_positives[j] = static_cast<std::int64_t>(negative_);
        const double voxels = foreground_ > 0 ? static_cast<double>(foreground_) : 1.0;
        // Nothing split and nothing merged is 0, not what rounding leaves of it.
        curve.voi_split[j] = positive_ == same_ ? 0.0 : std::max(0.0, truth_.minus(joint_) / voxels);
        curve.voi_merge[j] = negative_ == 0 ? 0.0 : std::max(0.0, segments_.minus(joint_) / voxels);
        changed_ = false;
    }

    // 1 where there are no pairs on either side.
    double f_score() const {
        const double pairs = static_cast<double>(positive_ + negative_) + static_cast<double>(same_);
        return pairs > 0 ? 2 * static_cast<double>(positive_) / pairs : 1.0;
    }

    // How often anything changes, at most.
    std::size_t most_changes() const { return static_cast<std::size_t>(foreground_ > 0 ? foreground_ - 1 : 0); }

  private:
    void join(LongSum& sum, std::uint64_t x, std::uint64_t y) const {
        sum.add(entropies_(x + y));
        sum.add(-entropies_(x));
        sum.add(-entropies_(y));
    }

    const Entropies entropies_;
    LongSum truth_, joint_, segments_;
    std::uint64_t foreground_ = 0, same_ = 0, all_ = 0, positive_ = 0, negative_ = 0;
    bool changed_ = true;
};

template <class T, class Index>
RandCurve<T> rand_curve(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels, int threads) {
    const std::size_t nodes = labels.of.size();
    threads = threads_for(nodes, threads);
    std::vector<std::uint64_t> voxels(static_cast<std::size_t>(labels.count) + 1, 0);
    in_steps(nodes, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) ++voxels[labels.of[v]];
    });
    Confusion confusion(voxels);

    const Buffer<Rank<T>> ranks = distinct_ranks<T, Index>(grid, aff, threads);
    RandCurve<T> curve;
    curve.true_pairs = confusion.true_pairs();
    curve.foreground = confusion.foreground();
    if (ranks.empty()) return curve;
    const std::size_t most = std::min(ranks.size(), confusion.most_changes() + 1);
    for (auto* integers : {&curve.first, &curve.true_positives, &curve.false_positives}) integers->reset(most);
    for (auto* entropies : {&curve.voi_split, &curve.voi_merge}) entropies->reset(most);

    UnionFind<Index> sets;
    sets.reset(nodes, threads);
    LabelHistograms<Index> histograms(nodes, labels.count, 0, threads);
    parallel_ranges(nodes, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) histograms.set(static_cast<Index>(v), labels.of[v], 1);
    });
    KruskalScratch<T, Index> scratch;
    const EveryEdge<T> visit{aff};
    std::size_t threshold = 0, steps = 0;
    double best = -1;
    const auto end_threshold = [&] {
        if (!confusion.changed()) return;
        confusion.write(curve, steps);
        curve.first[steps++] = static_cast<std::int64_t>(threshold);
        if (confusion.f_score() > best) {
            best = confusion.f_score();
            curve.best_threshold = from_rank<T>(ranks[threshold]);
        }
    };
    // Every rank is among `ranks`, unless affinities have changed since these were read.
    const auto next_holds = [&](Rank<T> rank) {
        return ranks[threshold] < rank && threshold + 1 < ranks.size() && ranks[threshold + 1] <= rank;
    };
    kruskal<T, Index>(every_edge<T, Index>(grid, visit, threads), sets, scratch, threads,
                      [&](const Record<T, Index>& r, Index a, Index b) {
                          if (next_holds(r.rank)) {
                              end_threshold();
                              ++threshold;
                              while (next_holds(r.rank)) ++threshold;
                          }
                          const Index into = sets.link(a, b);
                          return confusion.merge(histograms, into, into == a ? b : a);
                      });
    end_threshold();
    for (auto* integers : {&curve.first, &curve.true_positives, &curve.false_positives}) integers->resize(steps);
    for (auto* entropies : {&curve.voi_split, &curve.voi_merge}) entropies->resize(steps);

    curve.thresholds.reset(ranks.size());
    parallel_ranges(ranks.size(), std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) curve.thresholds[i] = from_rank<T>(ranks[i]);
    });
    return curve;
}

}  // namespace detail

}  // namespace malis
