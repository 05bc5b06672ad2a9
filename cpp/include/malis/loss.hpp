// The MALIS loss and its gradient, written while the pairs are counted.
//
//     loss = 2 * ( w * sum p * f(aff)  +  (1 - w) * sum q * g(aff) ),   p = pos / pos.sum(),  q = neg / neg.sum()
//
// with f(x) = max(0, 1 - m - x)^2 and g(x) = max(0, x - m)^2, or the cross entropies -log(max(x, eps)) and
// -log(max(1 - x, eps)). The counts are constants of the derivative. Only the edges of the spanning tree have counts,
// so the gradient is zero but for these.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "malis/label_histogram.hpp"
#include "malis/order.hpp"
#include "malis/parallel.hpp"

namespace malis {

enum class Pointwise { squared_hinge, cross_entropy };

struct LossOptions {
    double margin = 0.3;
    double pos_loss_weight = 0.5;
    bool normalize = true;
    Pointwise pointwise = Pointwise::squared_hinge;
    bool from_logits = false;  // aff holds logits; the loss is that of their sigmoid
    double scale = 1;          // of the loss and its gradient: 1 / samples for a share of the mean of a batch
};

template <class T, class Index>
class LossSink {
  public:
    LossSink(T* grad, std::size_t edges, const LossOptions& options)
        : grad_(grad), edges_(edges), options_(options) {}

    CountArrays arrays() const { return {}; }

    // From this affinity on, positive pairs add nothing to loss or gradient.
    T idle_positive() const {
        constexpr T none = std::numeric_limits<T>::infinity();
        if (options_.pos_loss_weight == 0) return -none;
        if (options_.pointwise != Pointwise::squared_hinge) return none;
        return bound(1 - options_.margin, none, [](double x, double hinge_end) { return x >= hinge_end; });
    }
    // Up to this affinity, negative pairs add nothing.
    T idle_negative() const {
        constexpr T none = -std::numeric_limits<T>::infinity();
        if (options_.pos_loss_weight == 1) return -none;
        if (options_.pointwise != Pointwise::squared_hinge) return none;
        return bound(options_.margin, none, [](double x, double hinge_end) { return x <= hinge_end; });
    }

    void clear(int threads) {
        parallel_ranges(edges_, std::size_t{1} << 17, threads, [&](std::size_t begin, std::size_t end) {
            std::memset(static_cast<void*>(grad_ + begin), 0, (end - begin) * sizeof(T));
        });
    }

    void expect_positive(double pairs) { positive_ = weight(options_.pos_loss_weight, pairs); }
    void expect_negative(double pairs) { negative_ = weight(1 - options_.pos_loss_weight, pairs); }

    double positive(Rank<T> rank, Index edge, std::uint64_t pairs) {
        double x = from_rank<T>(rank), value, slope, inner = 1;
        if (options_.from_logits) x = sigmoid(x, inner);
        if (options_.pointwise == Pointwise::squared_hinge) {
            const double hinge = std::max(0.0, 1 - options_.margin - x);
            value = hinge * hinge;
            slope = -2 * hinge;
        } else {
            value = -std::log(std::max(x, eps));
            slope = x > eps ? -1 / x : 0;
        }
        return add(edge, positive_ * static_cast<double>(pairs), value, slope * inner);
    }

    double negative(Rank<T> rank, Index edge, std::uint64_t pairs) {
        double x = from_rank<T>(rank), value, slope, inner = 1;
        if (options_.from_logits) x = sigmoid(x, inner);
        if (options_.pointwise == Pointwise::squared_hinge) {
            const double hinge = std::max(0.0, x - options_.margin);
            value = hinge * hinge;
            slope = 2 * hinge;
        } else {
            value = -std::log(std::max(1 - x, eps));
            slope = 1 - x > eps ? 1 / (1 - x) : 0;
        }
        return add(edge, negative_ * static_cast<double>(pairs), value, slope * inner);
    }

    // Objects that are not connected have fewer positive pairs than expected, and only when all are done is it known.
    double correct_positive(double expected, double found, int threads) {
        if (!options_.normalize || found == 0) return 1;
        const double factor = expected / found;
        parallel_ranges(edges_, std::size_t{1} << 17, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) grad_[i] = static_cast<T>(grad_[i] * factor);
        });
        return factor;
    }

  private:
    static constexpr double eps = 1e-7;

    double weight(double of_pass, double pairs) const {
        return 2 * options_.scale * of_pass * (!options_.normalize ? 1 : pairs > 0 ? 1 / pairs : 0);
    }

    // The affinity beyond which the hinge that ends at `end` is zero, on the safe side; `none` where there is none.
    template <class Beyond>
    T bound(double end, T none, Beyond beyond) const {
        double x = end;
        if (options_.from_logits) {
            if (end <= 0 || end >= 1) return none;
            x = std::log(end / (1 - end));
            x += std::copysign(1e-5 * (1 + std::abs(x)), static_cast<double>(none));  // exp and log are not exact
        }
        const T at = static_cast<T>(x);
        return beyond(static_cast<double>(at), x) ? at : std::nextafter(at, none);
    }

    static double sigmoid(double logit, double& derivative) {
        const double s = 1 / (1 + std::exp(-logit));
        derivative = s * (1 - s);
        return s;
    }

    double add(Index edge, double weight, double value, double slope) {
        if (slope != 0) grad_[edge] += static_cast<T>(weight * slope);
        return weight * value;
    }

    T* grad_;
    std::size_t edges_;
    LossOptions options_;
    double positive_ = 0, negative_ = 0;
};

}  // namespace malis
