// What receives the counts. There are two sinks: CountSink writes down the counts, LossSink (loss.hpp) turns each into its
// part of a loss and of the gradient.
//
// A pass over a volume or a graph calls a Sink in this order:
//     void clear(int threads)
//         By whoever made the sink, before everything else: nothing has been decided yet.
//     CountArrays arrays() const
//         Where a pass with label histograms may write counts itself. Null pointers: it has to call positive() and
//         negative().
//     T positive_cutoff() const
//         Edges of at least this affinity change nothing by the positive pairs that they decide, whatever their number: the
//         positive pass may join them in any order and not report them. Infinity if there are none, minus infinity if
//         no positive pair counts.
//     T negative_cutoff() const
//         Likewise edges of at most this affinity, in the negative pass. Minus infinity if there are none, infinity if no
//         negative pair counts.
//     void expect_positive(double pairs)
//         How many positive pairs there will be in all; exact but for correct_positive(). Before the first positive().
//     double positive(Rank<T> rank, Index edge, std::uint64_t pairs, std::size_t thread)
//         An edge decides so many positive pairs. Returns its part of the loss. May come from several threads at once, for
//         different edges, each with a number `thread` of its own below the number of threads.
//     double correct_positive(double expected, double found, int threads)
//         Only where the positive pass found other pairs than were expected, as objects are not connected. Returns the
//         factor for the sum of what positive() returned.
//     void expect_negative(double pairs)
//     double negative(Rank<T> rank, Index edge, std::uint64_t pairs, std::size_t thread)
//         The same for negative pairs, and exact. They follow all positive ones, but for unconstrained counts on blocks
//         (on_blocks.hpp), where both come at once, and an edge may decide some of each.
//     void finish(int threads)
//         LossSink alone: by whoever made the sink, when all passes are done; only then is its output complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/order.hpp"

namespace malis {

// Where counts themselves are asked for: an array per kind, null for one that is not wanted.
struct CountArrays {
    std::int64_t* pos = nullptr;
    std::int64_t* neg = nullptr;
};

// Writes the counts themselves.
template <class T, class Index>
class CountSink {
  public:
    CountSink(std::int64_t* pos, std::int64_t* neg, std::size_t edges) : pos_(pos), neg_(neg), edges_(edges) {}
    CountArrays arrays() const { return {pos_, neg_}; }
    T positive_cutoff() const { return std::numeric_limits<T>::infinity(); }
    T negative_cutoff() const { return -std::numeric_limits<T>::infinity(); }
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

// An edge and the pairs it decides, kept until all are known.
template <class T, class Index>
struct Decision {
    Rank<T> rank;
    Index edge;
    PairCount pairs;
};

template <class T, class Index>
std::uint64_t negative_pairs(const Buffer<Decision<T, Index>>& decisions) {
    std::uint64_t total = 0;
    in_steps(decisions.size(), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) total += decisions[i].pairs.neg;
    });
    return total;
}

// Hands the decisions of one kind to the sink; returns their part of the loss, summed in order.
template <class T, class Index, class Sink>
double emit_positive(const Buffer<Decision<T, Index>>& decisions, Sink& sink) {
    std::uint64_t total = 0;
    in_steps(decisions.size(), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) total += decisions[i].pairs.pos;
    });
    sink.expect_positive(static_cast<double>(total));
    double loss = 0;
    in_steps(decisions.begin(), decisions.end(), steps_per_poll, [&](const auto* begin, const auto* end) {
        for (const auto* d = begin; d != end; ++d) {
            if (d->pairs.pos > 0) loss += sink.positive(d->rank, d->edge, d->pairs.pos);
        }
    });
    return loss;
}

template <class T, class Index, class Sink>
double emit_negative(const Buffer<Decision<T, Index>>& decisions, std::uint64_t total, Sink& sink) {
    sink.expect_negative(static_cast<double>(total));
    double loss = 0;
    in_steps(decisions.begin(), decisions.end(), steps_per_poll, [&](const auto* begin, const auto* end) {
        for (const auto* d = begin; d != end; ++d) {
            if (d->pairs.neg > 0) loss += sink.negative(d->rank, d->edge, d->pairs.neg);
        }
    });
    return loss;
}

template <class T, class Index, class Sink>
double emit_negative(const Buffer<Decision<T, Index>>& decisions, Sink& sink) {
    return emit_negative<T, Index>(decisions, negative_pairs<T, Index>(decisions), sink);
}

}  // namespace detail

}  // namespace malis
