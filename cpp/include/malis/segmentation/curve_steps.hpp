// Adds the changes of a volume up to the steps of its curve.
//
// Changes come in one list for each block. Pieces of the curve are put in order on their own, on all threads; what comes
// before each is known from the sums of the pieces before it. They are put in order twice, to count the steps and to
// write them: kept in between they would take as much memory as all changes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "malis/graph/labels.hpp"
#include "malis/segmentation/curve_changes.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/links.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/sort.hpp"

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

// Makes the curve of sorted distinct `ranks` from the changes of all merges.
template <class T>
class CurveSteps {
  public:
    using Change = CurveChange<T>;

    CurveSteps(const std::vector<Buffer<Change>>& changes, const Buffer<Rank<T>>& ranks, const CurveTruth& truth,
               const Entropies& entropies, int threads)
        : ranks_(ranks),
          truth_(truth),
          entropies_(entropies),
          threads_(threads),
          streams_(streams_of(changes)),
          cut_(
              streams_, [](const Change& x, const Change& y) { return x.rank < y.rank; }, threads),
          work_(static_cast<std::size_t>(std::max(1, threads))),
          pieces_(cut_.pieces()) {}

    void write(RandCurve<T>& curve) {
        count();
        // There is a step at the first threshold, whether it changes anything or not.
        const auto piece =
            std::find_if(pieces_.begin(), pieces_.end(), [](const Piece& candidate) { return candidate.steps > 0; });
        const bool leading = piece == pieces_.end() || piece->first != ranks_[0];
        const std::size_t steps = place(leading ? 1 : 0);
        for (auto* integers : {&curve.first, &curve.true_positives, &curve.false_positives}) integers->reset(steps);
        for (auto* values : {&curve.voi_split, &curve.voi_merge}) values->reset(steps);

        Best best;
        if (leading) {
            write_step(curve, 0, 0, CurveSums{});
            best.see(truth_.f_score(CurveSums{}), 0);
        }
        parallel_for(pieces_.size(), threads_,
                     [&](std::size_t p, std::size_t thread) { write_piece(p, work_[thread], curve); });
        for (const Piece& written : pieces_) best.see(written.best.f_score, written.best.threshold);
        curve.best_threshold = from_rank<T>(ranks_[best.threshold]);
    }

  private:
    // The first of the thresholds with the best F-score.
    struct Best {
        double f_score = -1;
        std::size_t threshold = 0;
        void see(double score, std::size_t at) {
            if (score <= f_score) return;
            f_score = score;
            threshold = at;
        }
    };
    struct Piece {
        std::size_t steps = 0, first_step = 0;
        Rank<T> first = 0;         // of the first step
        CurveSums before, change;  // of all pieces before, and of this one
        Best best;
    };
    struct Work {
        Buffer<Change> changes;
        SortScratch<T, std::uint32_t> keys;
    };

    static std::vector<Stream<Change, std::uint32_t>> streams_of(const std::vector<Buffer<Change>>& changes) {
        std::vector<Stream<Change, std::uint32_t>> streams;
        streams.reserve(changes.size());
        for (const auto& list : changes) streams.push_back({list.begin(), list.end(), 0});
        return streams;
    }

    // Calls f(change) for every step of a piece, in order: the changes of one affinity are one.
    template <class F>
    void each_step(std::size_t p, Work& work, F&& f) const {
        const std::size_t n = cut_.start(p + 1) - cut_.start(p);
        work.changes.reset(n);
        Change* to = work.changes.data();
        cut_.each_slice(p,
                        [&](const Change* begin, const Change* end, std::uint32_t) { to = std::copy(begin, end, to); });
        struct Ranks {
            const Change* changes;
            Rank<T> rank(std::size_t i) const { return changes[i].rank; }
            Key<T> key(std::size_t i) const { return {changes[i].rank, static_cast<std::uint32_t>(i)}; }
        };
        work.keys.keys.reset(6 * n);
        sort_keys<T>(Ranks{work.changes.data()}, n, work.keys.keys.data(), work.keys.counts);
        const auto change = [&](std::size_t i) -> const Change& { return work.changes[work.keys.keys[i].at()]; };
        for (std::size_t i = 0; i < n;) {
            Change step = change(i);
            while (++i < n && change(i).rank == step.rank) step.sums.add(change(i).sums);
            f(step);
        }
    }

    void count() {
        parallel_for(pieces_.size(), threads_, [&](std::size_t p, std::size_t thread) {
            Piece& piece = pieces_[p];
            each_step(p, work_[thread], [&](const Change& step) {
                if (piece.steps++ == 0) piece.first = step.rank;
                piece.change.add(step.sums);
            });
        });
    }

    // Where the steps of each piece begin, the first of them at step `steps`; returns where they end.
    std::size_t place(std::size_t steps) {
        CurveSums sums;
        for (Piece& piece : pieces_) {
            piece.first_step = steps;
            piece.before = sums;
            steps += piece.steps;
            sums.add(piece.change);
        }
        return steps;
    }

    void write_piece(std::size_t p, Work& work, RandCurve<T>& curve) {
        Piece& piece = pieces_[p];
        CurveSums at = piece.before;
        std::size_t step = piece.first_step;
        const Rank<T>* rank = std::min(std::lower_bound(ranks_.begin(), ranks_.end(), piece.first), ranks_.end() - 1);
        each_step(p, work, [&](const Change& change) {
            // Where the caller's memory changes during the call an affinity may be missing from one of the two.
            while (rank + 1 < ranks_.end() && *rank < change.rank) ++rank;
            const auto threshold = static_cast<std::size_t>(rank - ranks_.begin());
            at.add(change.sums);
            write_step(curve, step++, threshold, at);
            piece.best.see(truth_.f_score(at), threshold);
        });
    }

    void write_step(RandCurve<T>& curve, std::size_t step, std::size_t threshold, const CurveSums& at) const {
        const double voxels = truth_.foreground > 0 ? static_cast<double>(truth_.foreground) : 1.0;
        curve.first[step] = static_cast<std::int64_t>(threshold);
        curve.true_positives[step] = at.true_positives;
        curve.false_positives[step] = at.false_positives;
        curve.voi_split[step] = std::max(0.0, entropies_.value(truth_.entropy - at.joint) / voxels);
        curve.voi_merge[step] = std::max(0.0, entropies_.value(at.segments - at.joint) / voxels);
    }

    const Buffer<Rank<T>>& ranks_;
    const CurveTruth& truth_;
    const Entropies& entropies_;
    const int threads_;
    const std::vector<Stream<Change, std::uint32_t>> streams_;
    const CutStreams<Change, std::uint32_t> cut_;  // refers to streams_
    std::vector<Work> work_;
    std::vector<Piece> pieces_;
};

}  // namespace detail

}  // namespace malis
