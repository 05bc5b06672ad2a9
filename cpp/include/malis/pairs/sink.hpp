// What receives the counts. There are two sinks: CountSink writes down the counts, LossSink (loss.hpp) turns each into its
// part of a loss and of the gradient.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/prefetch.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/order.hpp"

namespace malis {

// Where counts themselves are asked for: an array per kind, null for one that is not wanted.
struct CountArrays {
    std::int64_t* pos = nullptr;
    std::int64_t* neg = nullptr;
};

// Where a sink writes by the index of an edge: memory that can be asked for some edges ahead, as it is met in the order of
// affinities, which nothing else foresees.
struct WrittenByEdge {
    const char* begin;
    std::size_t bytes;  // of an edge; 0 where nothing is written

    MALIS_INLINE void prefetch(std::size_t edge) const { malis::prefetch(begin + edge * bytes); }
};

// What a pass over a volume or a graph calls, in this order. A virtual call for each edge that decides pairs, of which
// there are fewer than voxels, costs less than 2 % of a pass; in return no pass is compiled once for every kind of sink.
template <class T, class Index>
class Sink {
  public:
    // Where a pass with label histograms may write counts itself. Null pointers: it has to call positive() and negative().
    virtual CountArrays arrays() const = 0;

    // Edges of at least this affinity change nothing by the positive pairs that they decide, whatever their number: the
    // positive pass may join them in any order and not report them. Infinity if there are none, minus infinity if no
    // positive pair counts.
    virtual T positive_cutoff() const = 0;
    // Likewise edges of at most this affinity, in the negative pass. Minus infinity if there are none, infinity if no
    // negative pair counts.
    virtual T negative_cutoff() const = 0;

    // How many positive pairs there will be in all; exact but for correct_positive(). Before the first positive().
    virtual void expect_positive(double pairs) = 0;
    // An edge decides so many positive pairs. Returns its part of the loss. May come from several threads at once, for
    // different edges, each with a number `thread` of its own below the number of threads.
    virtual double positive(Rank<T> rank, Index edge, std::uint64_t pairs, std::size_t thread) = 0;
    virtual WrittenByEdge written_by_positive() const = 0;
    // Only where the positive pass found other pairs than were expected, as objects are not connected. Returns the factor
    // for the sum of what positive() returned.
    virtual double correct_positive(double expected, double found, int threads) = 0;

    // The same for negative pairs, and exact. They follow all positive ones, but for unconstrained counts on blocks
    // (on_blocks.hpp), where both come at once, and an edge may decide some of each.
    virtual void expect_negative(double pairs) = 0;
    virtual double negative(Rank<T> rank, Index edge, std::uint64_t pairs, std::size_t thread) = 0;
    virtual WrittenByEdge written_by_negative() const = 0;

  protected:
    ~Sink() = default;
};

// Writes the counts themselves. Whoever makes it calls clear() before everything else.
template <class T, class Index>
class CountSink final : public Sink<T, Index> {
  public:
    CountSink(std::int64_t* pos, std::int64_t* neg, std::size_t edges) : pos_(pos), neg_(neg), edges_(edges) {}
    CountArrays arrays() const override { return {pos_, neg_}; }
    T positive_cutoff() const override { return std::numeric_limits<T>::infinity(); }
    T negative_cutoff() const override { return -std::numeric_limits<T>::infinity(); }
    void clear(int threads) {
        for (std::int64_t* counts : {pos_, neg_}) {
            if (counts == nullptr) continue;
            parallel_ranges(edges_, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
                std::memset(counts + begin, 0, (end - begin) * sizeof *counts);
            });
        }
    }
    void expect_positive(double) override {}
    void expect_negative(double) override {}
    double correct_positive(double, double, int) override { return 1; }
    double positive(Rank<T>, Index edge, std::uint64_t pairs, std::size_t) override {
        pos_[edge] = static_cast<std::int64_t>(pairs);
        return 0;
    }
    double negative(Rank<T>, Index edge, std::uint64_t pairs, std::size_t) override {
        neg_[edge] = static_cast<std::int64_t>(pairs);
        return 0;
    }
    WrittenByEdge written_by_positive() const override { return written(pos_); }
    WrittenByEdge written_by_negative() const override { return written(neg_); }

  private:
    static WrittenByEdge written(const std::int64_t* counts) {
        return {reinterpret_cast<const char*>(counts), sizeof *counts};
    }
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
template <class T, class Index>
double emit_positive(const Buffer<Decision<T, Index>>& decisions, Sink<T, Index>& sink) {
    std::uint64_t total = 0;
    in_steps(decisions.size(), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) total += decisions[i].pairs.pos;
    });
    sink.expect_positive(static_cast<double>(total));
    const WrittenByEdge written = sink.written_by_positive();
    double loss = 0;
    in_steps(decisions.begin(), decisions.end(), steps_per_poll, [&](const auto* begin, const auto* end) {
        for (const auto* d = begin; d != end; ++d) {
            if (end - d > edges_ahead) written.prefetch(d[edges_ahead].edge);
            if (d->pairs.pos > 0) loss += sink.positive(d->rank, d->edge, d->pairs.pos, 0);
        }
    });
    return loss;
}

template <class T, class Index>
double emit_negative(const Buffer<Decision<T, Index>>& decisions, std::uint64_t total, Sink<T, Index>& sink) {
    sink.expect_negative(static_cast<double>(total));
    const WrittenByEdge written = sink.written_by_negative();
    double loss = 0;
    in_steps(decisions.begin(), decisions.end(), steps_per_poll, [&](const auto* begin, const auto* end) {
        for (const auto* d = begin; d != end; ++d) {
            if (end - d > edges_ahead) written.prefetch(d[edges_ahead].edge);
            if (d->pairs.neg > 0) loss += sink.negative(d->rank, d->edge, d->pairs.neg, 0);
        }
    });
    return loss;
}

template <class T, class Index>
double emit_negative(const Buffer<Decision<T, Index>>& decisions, Sink<T, Index>& sink) {
    return emit_negative<T, Index>(decisions, negative_pairs<T, Index>(decisions), sink);
}

}  // namespace detail

}  // namespace malis
