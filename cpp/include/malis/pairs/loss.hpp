// The MALIS loss and its gradient, written while the pairs are counted.
//
//     loss = 2 * ( w * sum p * f(aff)  +  (1 - w) * sum q * g(aff) ),   p = pos / pos.sum(),  q = neg / neg.sum()
//
// with f and g of pointwise.hpp. The counts are constants of the derivative. Only the edges of the spanning tree have counts, so
// the gradient is zero but for these.
//
// Loss and gradient are finite: an affinity that would make them infinite is an error.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "malis/pairs/pointwise.hpp"
#include "malis/pairs/sink.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/layout.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/order.hpp"

namespace malis {

// Call clear() before everything else, and finish() in the end: only then is the gradient complete.
template <class T, class Index>
class LossSink final : public Sink<T, Index> {
  public:
    // With the channels last the slopes are listed until finish() is called: they take less memory than an array in the
    // order of edges would, and the memory of the gradient may hold the affinities for as long.
    LossSink(T* grad, std::size_t voxels, std::size_t channels, const LossOptions& options, Layout layout, int threads)
        : grad_(grad),
          voxels_(voxels),
          channels_(channels),
          options_(options),
          terms_(options),
          positive_slopes_(layout == Layout::channels_last ? static_cast<std::size_t>(std::max(1, threads)) : 0),
          negative_slopes_(positive_slopes_.size()) {}

    CountArrays arrays() const override { return {}; }

    // Where the hinge of the positive pairs ends.
    T positive_cutoff() const override {
        constexpr T none = std::numeric_limits<T>::infinity();
        if (options_.pos_loss_weight == 0) return -none;
        if (options_.pointwise != Pointwise::squared_hinge) return none;
        return bound(1 - options_.margin, none, [](double x, double hinge_end) { return x >= hinge_end; });
    }
    // Where the hinge of the negative pairs begins.
    T negative_cutoff() const override {
        constexpr T none = -std::numeric_limits<T>::infinity();
        if (options_.pos_loss_weight == 1) return -none;
        if (options_.pointwise != Pointwise::squared_hinge) return none;
        return bound(options_.margin, none, [](double x, double hinge_end) { return x <= hinge_end; });
    }

    void clear(int threads) {
        if (!listed()) fill_with_zeros(threads);
    }
    void finish(int threads) {
        if (!listed()) return;
        fill_with_zeros(threads);
        const Index voxels = static_cast<Index>(voxels_);
        const auto write = [&](const Slope& slope) {
            const Index channel = slope.edge / voxels;
            grad_[(slope.edge - channel * voxels) * channels_ + channel] += slope.value;
        };
        for_each(positive_slopes_, threads, write);
        for_each(negative_slopes_, threads, write);
    }

    void expect_positive(double pairs) override { positive_ = weight(options_.pos_loss_weight, pairs); }
    void expect_negative(double pairs) override { negative_ = weight(1 - options_.pos_loss_weight, pairs); }

    double positive(Rank<T> rank, Index edge, std::uint64_t pairs, std::size_t thread) override {
        Slopes* const list = listed() ? &positive_slopes_[thread] : nullptr;
        const T affinity = from_rank<T>(rank);
        return add(affinity, edge, positive_ * static_cast<double>(pairs),
                   terms_.positive(static_cast<double>(affinity)), list);
    }

    double negative(Rank<T> rank, Index edge, std::uint64_t pairs, std::size_t thread) override {
        Slopes* const list = listed() ? &negative_slopes_[thread] : nullptr;
        const T affinity = from_rank<T>(rank);
        return add(affinity, edge, negative_ * static_cast<double>(pairs),
                   terms_.negative(static_cast<double>(affinity)), list);
    }

    WrittenByEdge written_by_positive() const override { return written(); }
    WrittenByEdge written_by_negative() const override { return written(); }

    // Objects that are not connected have fewer positive pairs than expected, and only when all are done is it known.
    double correct_positive(double expected, double found, int threads) override {
        if (!options_.normalize || found == 0) return 1;
        const double factor = expected / found;
        if (listed()) {
            for_each(positive_slopes_, threads,
                     [&](Slope& slope) { slope.value = static_cast<T>(slope.value * factor); });
            return factor;
        }
        parallel_ranges(voxels_ * channels_, std::size_t{1} << 17, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) grad_[i] = static_cast<T>(grad_[i] * factor);
        });
        return factor;
    }

  private:
    struct Slope {
        Index edge;
        T value;
    };
    struct alignas(64) Slopes {  // a line of memory for each thread
        Buffer<Slope> of;
    };

    bool listed() const { return !positive_slopes_.empty(); }
    WrittenByEdge written() const {
        if (listed()) return {reinterpret_cast<const char*>(this), 0};
        return {reinterpret_cast<const char*>(grad_), sizeof *grad_};
    }

    void fill_with_zeros(int threads) {
        parallel_ranges(voxels_ * channels_, std::size_t{1} << 17, threads, [&](std::size_t begin, std::size_t end) {
            std::memset(static_cast<void*>(grad_ + begin), 0, (end - begin) * sizeof(T));
        });
    }

    // In parallel, as no pass decides an edge twice.
    template <class F>
    static void for_each(std::vector<Slopes>& lists, int threads, F&& f) {
        std::vector<std::pair<Slope*, Slope*>> parts;
        for (Slopes& list : lists) {
            for (Slope* at = list.of.begin(); at != list.of.end();) {
                const std::size_t left = static_cast<std::size_t>(list.of.end() - at);
                Slope* const end = at + std::min(left, std::size_t{1} << 15);
                parts.push_back({at, end});
                at = end;
            }
        }
        parallel_for(parts.size(), threads, [&](std::size_t part, std::size_t) {
            for (Slope* slope = parts[part].first; slope != parts[part].second; ++slope) f(*slope);
        });
    }

    double weight(double of_pass, double pairs) const {
        return 2 * of_pass * (!options_.normalize ? 1 : pairs > 0 ? 1 / pairs : 0);
    }

    // The affinity beyond which the hinge that ends at `end` is zero, on the safe side; `none` where there is none.
    template <class Beyond>
    T bound(double end, T none, Beyond beyond) const {
        double x = end;
        if (options_.from_logits) {
            if (end <= 0 || end >= 1) return none;
            x = std::log(end / (1 - end));
            // The sigmoid of x is not exactly `end`, as neither exp nor log is exact; they are to far less than this.
            constexpr double tolerance = 1e-5;
            x += std::copysign(tolerance * (1 + std::abs(x)), static_cast<double>(none));
        }
        const T at = static_cast<T>(x);
        return beyond(static_cast<double>(at), x) ? at : std::nextafter(at, none);
    }

    double add(T affinity, Index edge, double weight, PairTerm term, Slopes* list) {
        if (weight == 0) return 0;
        const double value = weight * term.value;
        if (term.slope == 0) return value;
        if (!(value <= std::numeric_limits<double>::max()) ||
            !(std::abs(weight * term.slope) <= std::numeric_limits<T>::max())) {
            throw std::invalid_argument("aff must hold affinities of a finite loss and gradient, got " +
                                        std::to_string(affinity) + " at edge " + std::to_string(edge));
        }
        const T part = static_cast<T>(options_.scale * weight * term.slope);
        if (list == nullptr) {
            grad_[edge] += part;
        } else {
            list->of.push_back({edge, part});
        }
        return value;
    }

    T* grad_;
    std::size_t voxels_, channels_;
    LossOptions options_;
    PairTerms terms_;
    double positive_ = 0, negative_ = 0;
    std::vector<Slopes> positive_slopes_;  // of each thread; none with the channels first
    std::vector<Slopes> negative_slopes_;  // likewise
};

}  // namespace malis
