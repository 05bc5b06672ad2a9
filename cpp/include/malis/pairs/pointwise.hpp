// What an edge adds to the MALIS loss (loss.hpp) for each pair that it decides.
//
//     f(x) = max(0, 1 - m - x)^2    of positive pairs,    g(x) = max(0, x - m)^2    of negative ones,
//
// or the cross entropies -log(max(x, eps)) and -log(max(1 - x, eps)). The cross entropies of a logit z are
// log(1 + exp(-z)) and log(1 + exp(z)), without a bound: a logit that is wrong keeps its gradient however sure it is.
#pragma once

#include <algorithm>
#include <cmath>

namespace malis {

enum class Pointwise { squared_hinge, cross_entropy };

struct LossOptions {
    double margin = 0.3;
    double pos_loss_weight = 0.5;
    bool normalize = true;
    Pointwise pointwise = Pointwise::squared_hinge;
    bool from_logits = false;  // aff holds logits; the loss is that of their sigmoid
    double scale = 1;          // of the gradient alone: an upstream gradient that is known beforehand
};

// The value for an affinity or logit, and its derivative by that.
struct PairTerm {
    double value, slope;
};

class PairTerms {
  public:
    explicit PairTerms(const LossOptions& options)
        : margin_(options.margin),
          cross_entropy_(options.pointwise == Pointwise::cross_entropy),
          from_logits_(options.from_logits) {}

    PairTerm positive(double x) const {
        if (cross_entropy_) {
            if (from_logits_) return {softplus(-x), -sigmoid(-x)};
            return {-std::log(std::max(x, eps)), x > eps ? -1 / x : 0};
        }
        const double s = from_logits_ ? sigmoid(x) : x;
        const double hinge = std::max(0.0, 1 - margin_ - s);
        return {hinge * hinge, -2 * hinge * inner(s)};
    }

    PairTerm negative(double x) const {
        if (cross_entropy_) {
            if (from_logits_) return {softplus(x), sigmoid(x)};
            return {-std::log(std::max(1 - x, eps)), 1 - x > eps ? 1 / (1 - x) : 0};
        }
        const double s = from_logits_ ? sigmoid(x) : x;
        const double hinge = std::max(0.0, s - margin_);
        return {hinge * hinge, 2 * hinge * inner(s)};
    }

  private:
    static constexpr double eps = 1e-7;

    // The derivative of the affinity s by what was given.
    double inner(double s) const { return from_logits_ ? s * (1 - s) : 1; }

    static double sigmoid(double logit) { return 1 / (1 + std::exp(-logit)); }
    static double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

    double margin_;
    bool cross_entropy_, from_logits_;
};

}  // namespace malis
