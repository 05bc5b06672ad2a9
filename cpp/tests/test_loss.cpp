#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"
#include "problems.hpp"
#include "reference.hpp"

using namespace malis;
using namespace malis::test;

namespace {

template <class T>
struct Result {
    double loss;
    std::vector<T> grad;
};

template <class T>
Result<T> loss_of(const Volume& volume, const std::vector<T>& aff, const std::vector<std::int32_t>& seg,
                  const PairOptions& options, const LossOptions& loss) {
    Result<T> result{0, std::vector<T>(volume.edges(), T(99))};
    result.loss = malis_loss(volume, aff.data(), seg.data(), options, loss, result.grad.data());
    return result;
}

// The loss from the counts, by its formula.
template <class T>
double formula(const Counts& counts, const std::vector<T>& aff, const LossOptions& o) {
    double sum_pos = 0, sum_neg = 0;
    for (const auto n : counts.pos) sum_pos += static_cast<double>(n);
    for (const auto n : counts.neg) sum_neg += static_cast<double>(n);
    if (!o.normalize) sum_pos = sum_neg = 1;
    double loss = 0;
    for (std::size_t e = 0; e < aff.size(); ++e) {
        const double p = sum_pos > 0 ? static_cast<double>(counts.pos[e]) / sum_pos : 0;
        const double q = sum_neg > 0 ? static_cast<double>(counts.neg[e]) / sum_neg : 0;
        if (p == 0 && q == 0) continue;  // an infinite affinity that decides nothing
        double x = static_cast<double>(aff[e]);
        double f, g;
        if (o.from_logits && o.pointwise == Pointwise::squared_hinge) x = 1 / (1 + std::exp(-x));
        if (o.from_logits && o.pointwise == Pointwise::cross_entropy) {
            f = std::log(1 + std::exp(-x));
            g = std::log(1 + std::exp(x));
        } else if (o.pointwise == Pointwise::squared_hinge) {
            f = std::pow(std::max(0.0, 1 - o.margin - x), 2);
            g = std::pow(std::max(0.0, x - o.margin), 2);
        } else {
            f = -std::log(std::max(x, 1e-7));
            g = -std::log(std::max(1 - x, 1e-7));
        }
        loss += 2 * (p > 0 ? o.pos_loss_weight * p * f : 0) + 2 * (q > 0 ? (1 - o.pos_loss_weight) * q * g : 0);
    }
    return loss;
}

std::vector<LossOptions> loss_options() {
    std::vector<LossOptions> all;
    for (int i = 0; i < 16; ++i) {
        LossOptions o;
        o.normalize = i & 1;
        o.pointwise = i & 2 ? Pointwise::cross_entropy : Pointwise::squared_hinge;
        o.from_logits = i & 4;
        if (i & 8) {
            o.margin = 0.1;
            o.pos_loss_weight = 0.8;
        }
        all.push_back(o);
    }
    return all;
}

// Affinities without ties that stay in order under steps of 1e-6 and keep away from the corners of the hinges.
std::vector<double> distinct_aff(std::size_t n, bool logits, Random& random) {
    std::vector<double> aff(n);
    for (std::size_t e = 0; e < n; ++e) aff[e] = (static_cast<double>(e) + 0.4321) / static_cast<double>(n);
    for (std::size_t e = n; e > 1; --e) std::swap(aff[e - 1], aff[random.below(e)]);
    if (logits) {
        for (auto& a : aff) a = 6 * a - 3;
    }
    return aff;
}

bool close(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }

// Small objects before and after one so large that all threads share it, and an object in pieces: wherever work is
// divided, the parts of the loss must be summed in one order.
Volume mixed_volume(std::vector<std::int32_t>& seg) {
    const Volume volume{{70, 80, 80}, nearest_neighbours()};
    seg.resize(volume.voxels());
    for (std::size_t v = 0; v < seg.size(); ++v) {
        const std::size_t z = v / 6400, y = v / 80 % 80, x = v % 80;
        seg[v] = z < 2    ? static_cast<std::int32_t>(1 + y / 9 + 10 * (x / 9))
                 : z < 50 ? (z % 11 == 0 && y % 4 == 0 ? 0 : 100)
                 : z < 55 ? (y % 10 == 0 ? 0 : 101)
                          : static_cast<std::int32_t>(102 + y / 5 + 16 * (x / 5));
    }
    return volume;
}

}  // namespace

MALIS_TEST(formula_of_the_loss) {
    Random random(3);
    for (const Seg seg_kind : all_segs) {
        for (int i = 0; i < 3; ++i) {
            const std::array<std::size_t, 3> shape{1 + random.below(4), 1 + random.below(8), 2 + random.below(8)};
            const Volume volume{shape, random_nhood(shape, random)};
            const Graph graph = graph_of(volume);
            const auto seg = make_seg(volume, seg_kind, random);
            const Mask edges = make_mask(volume.edges(), 0.8, random), voxels = make_mask(volume.voxels(), 0.2, random);
            for (PairOptions options : all_options()) {
                if (i == 1) {
                    options.edge_mask = edges.get();
                    options.unlabelled_mask = voxels.get();
                }
                for (const LossOptions& loss : loss_options()) {
                    auto aff = make_aff<double>(volume, seg, i == 2 ? Aff::ties : Aff::uniform, random);
                    if (loss.from_logits) {
                        for (auto& a : aff) a = 8 * a - 4;
                    }
                    context = describe(options);
                    const Result<double> result = loss_of(volume, aff, seg, options, loss);
                    const double expected = formula(reference_counts(graph, aff, seg, options), aff, loss);
                    CHECK(close(result.loss, expected, 1e-12));
                    const std::vector<float> single(aff.begin(), aff.end());
                    const double of_single = formula(reference_counts(graph, single, seg, options), single, loss);
                    CHECK(close(loss_of(volume, single, seg, options, loss).loss, of_single, 1e-12));
                }
            }
        }
    }
}

MALIS_TEST(gradient_by_differences) {
    Random random(5);
    for (const Seg seg_kind : {Seg::cells, Seg::split, Seg::touching, Seg::random}) {
        const Volume volume{{2, 5, 6}, {{-1, 0, 0}, {0, -1, 0}, {0, 0, -1}, {0, 2, 1}}};
        const auto seg = make_seg(volume, seg_kind, random);
        const Mask edges = make_mask(volume.edges(), 0.8, random);
        for (PairOptions options : all_options()) {
            options.edge_mask = seg_kind == Seg::touching ? edges.get() : nullptr;
            for (const LossOptions& loss : loss_options()) {
                context = describe(options);
                auto aff = distinct_aff(volume.edges(), loss.from_logits, random);
                const Result<double> result = loss_of(volume, aff, seg, options, loss);
                const double step = 1e-6, scale = loss.normalize ? 1 : 1000;
                std::size_t wrong = 0, some = 0;
                for (std::size_t e = 0; e < aff.size(); ++e) {
                    const double at = aff[e];
                    aff[e] = at + step;
                    const double above = loss_of(volume, aff, seg, options, loss).loss;
                    aff[e] = at - step;
                    const double below = loss_of(volume, aff, seg, options, loss).loss;
                    aff[e] = at;
                    const double slope = (above - below) / (2 * step);
                    wrong += !(std::abs(slope - result.grad[e]) <= 1e-6 * scale * (1 + std::abs(slope)));
                    some += result.grad[e] != 0;
                }
                CHECK_EQUAL(wrong, std::size_t{0});
                CHECK(some > 0);
                const std::vector<float> single(aff.begin(), aff.end());
                const Result<float> of_single = loss_of(volume, single, seg, options, loss);
                for (std::size_t e = 0; e < aff.size(); ++e)
                    wrong += !close(static_cast<double>(of_single.grad[e]), result.grad[e], 2e-5);
                CHECK_EQUAL(wrong, std::size_t{0});
            }
        }
    }
}

MALIS_TEST(same_bits_on_any_number_of_threads) {
    Random random(7);
    std::vector<std::int32_t> seg;
    const Volume volume = mixed_volume(seg);
    const auto aff = make_aff<float>(volume, seg, Aff::noisy, random);
    for (int i = 0; i < 8; ++i) {
        PairOptions options;
        options.constrain_positive = options.constrain_negative = i % 4 != 2;
        options.ignore_background = i % 4 != 3;
        LossOptions loss;
        loss.normalize = i % 4 != 1;
        loss.margin = i < 4 ? -1 : 0.3;  // every edge has its part, or most of those within objects have none
        const Result<float> one = loss_of(volume, aff, seg, options, loss);
        CHECK(one.loss > 0);
        for (const int threads : {2, 3, 5}) {
            options.threads = threads;
            context = describe(options);
            const Result<float> many = loss_of(volume, aff, seg, options, loss);
            CHECK_EQUAL(many.loss, one.loss);
            CHECK(std::memcmp(many.grad.data(), one.grad.data(), one.grad.size() * sizeof(float)) == 0);
        }
    }
}

MALIS_TEST(batches_are_single_samples) {
    Random random(11);
    const Volume volume{{1, 30, 31}, nearest_neighbours()};
    const std::size_t samples = 7, n = volume.voxels(), m = volume.edges();
    std::vector<float> aff;
    std::vector<std::int32_t> seg;
    for (std::size_t i = 0; i < samples; ++i) {
        const auto of_seg = make_seg(volume, all_segs[i], random);
        const auto of_aff = make_aff<float>(volume, of_seg, Aff::noisy, random);
        seg.insert(seg.end(), of_seg.begin(), of_seg.end());
        aff.insert(aff.end(), of_aff.begin(), of_aff.end());
    }
    const Mask edges = make_mask(samples * m, 0.9, random), voxels = make_mask(samples * n, 0.1, random);
    for (const bool masks : {false, true}) {
        for (const int threads : {1, 2, 3, 20}) {
            PairOptions options;
            options.threads = threads;
            options.edge_mask = masks ? edges.get() : nullptr;
            options.unlabelled_mask = masks ? voxels.get() : nullptr;
            context = describe(options);
            std::vector<double> losses(samples);
            std::vector<float> grad(samples * m, 99);
            malis_loss_batch(volume, samples, aff.data(), seg.data(), options, LossOptions{}, losses.data(),
                             grad.data());
            for (std::size_t i = 0; i < samples; ++i) {
                PairOptions of_sample;
                if (masks) {
                    of_sample.edge_mask = edges.get() + i * m;
                    of_sample.unlabelled_mask = voxels.get() + i * n;
                }
                std::vector<float> expected(m);
                CHECK_EQUAL(losses[i], malis_loss(volume, aff.data() + i * m, seg.data() + i * n, of_sample,
                                                  LossOptions{}, expected.data()));
                CHECK(std::memcmp(expected.data(), grad.data() + i * m, m * sizeof(float)) == 0);
            }
        }
    }
    aff[5 * m + 3] = std::numeric_limits<float>::quiet_NaN();
    for (const int threads : {1, 3}) {
        PairOptions options;
        options.threads = threads;
        std::vector<double> losses(samples);
        std::vector<float> grad(samples * m);
        CHECK_THROWS(std::invalid_argument, "NaN",
                     malis_loss_batch(volume, samples, aff.data(), seg.data(), options, LossOptions{}, losses.data(),
                                      grad.data()));
    }
}

MALIS_TEST(cutoff_affinities) {
    // From the idle affinity on, and not before, the hinges are zero; around them for both types and for logits.
    for (const double margin : {0.0, 0.1, 0.3, 0.5, 1.0, -0.5}) {
        for (const bool logits : {false, true}) {
            LossOptions options;
            options.margin = margin;
            options.from_logits = logits;
            std::vector<float> grad(2, 0);
            LossSink<float, std::uint32_t> sink(grad.data(), 2, 1, options, Layout::channels_first, 1);
            sink.expect_positive(1);
            sink.expect_negative(1);
            const float infinity = std::numeric_limits<float>::infinity();
            const float positive = sink.positive_cutoff(), negative = sink.negative_cutoff();
            const auto near = [&](float at, float towards) {
                return logits ? at + (towards > 0 ? 1e-3f : -1e-3f) : std::nextafter(at, towards);
            };
            for (float x = positive; x < infinity && x < positive + 1; x += 0.01f)
                CHECK_EQUAL(sink.positive(to_rank(x), 0, 1, 0), 0.0);
            if (positive < infinity) CHECK(sink.positive(to_rank(near(positive, -infinity)), 0, 1, 0) > 0);
            for (float x = negative; x > -infinity && x > negative - 1; x -= 0.01f)
                CHECK_EQUAL(sink.negative(to_rank(x), 1, 1, 0), 0.0);
            if (negative > -infinity) CHECK(sink.negative(to_rank(near(negative, infinity)), 1, 1, 0) > 0);
        }
    }
    // Few, many and all edges that are idle; objects of all sizes, in one piece and in several.
    Random random(17);
    std::vector<std::int32_t> seg;
    const Volume volume = mixed_volume(seg);
    for (const double strong : {0.02, 0.3, 0.5, 0.8, 1.0}) {
        std::vector<float> aff(volume.edges());
        for (auto& a : aff) a = static_cast<float>(random.chance(strong) ? 0.8 + 0.2 * random.real() : random.real());
        std::vector<std::int64_t> pos(aff.size()), neg(aff.size());
        for (const int threads : {1, 3}) {
            PairOptions options;
            options.threads = threads;
            count_pairs(volume, aff.data(), seg.data(), options, pos.data(), neg.data());
            for (const double weight : {0.0, 0.5, 1.0}) {
                LossOptions loss;
                loss.pos_loss_weight = weight;
                const Result<float> result = loss_of(volume, aff, seg, options, loss);
                CHECK(close(result.loss, formula(Counts{pos, neg}, aff, loss), 1e-12));
                double positive = 0, negative = 0;
                for (const auto n : pos) positive += static_cast<double>(n);
                for (const auto n : neg) negative += static_cast<double>(n);
                std::size_t wrong = 0;
                for (std::size_t e = 0; e < aff.size(); ++e) {
                    const double x = aff[e], p = static_cast<double>(pos[e]), q = static_cast<double>(neg[e]);
                    const double expected = -4 * weight * p / positive * std::max(0.0, 0.7 - x) +
                                            4 * (1 - weight) * q / negative * std::max(0.0, x - 0.3);
                    wrong += !(std::abs(static_cast<double>(result.grad[e]) - expected) <= 1e-6 * std::abs(expected));
                }
                CHECK_EQUAL(wrong, std::size_t{0});
            }
        }
    }
}

MALIS_TEST(scale_of_the_gradient) {
    Random random(12);
    const Volume volume{{4, 9, 8}, nearest_neighbours()};
    const auto seg = make_seg(volume, Seg::split, random);
    const auto aff = make_aff<double>(volume, seg, Aff::noisy, random);
    for (LossOptions loss : loss_options()) {
        const Result<double> whole = loss_of(volume, aff, seg, PairOptions{}, loss);
        loss.scale = 0.25;
        const Result<double> part = loss_of(volume, aff, seg, PairOptions{}, loss);
        CHECK_EQUAL(part.loss, whole.loss);
        std::vector<double> expected = whole.grad;
        for (double& slope : expected) slope *= 0.25;
        CHECK_SAME(part.grad, expected);
    }
}

MALIS_TEST(nothing_to_decide) {
    const Volume volume{{1, 4, 5}, nearest_neighbours()};
    Random random(13);
    for (const Seg kind : {Seg::background, Seg::single}) {
        const auto seg = make_seg(volume, kind, random);
        const std::vector<double> aff(volume.edges(), kind == Seg::single ? 1.0 : 0.4);
        for (const LossOptions& loss : loss_options()) {
            // Affinities of 1 in an object are right but for a cross entropy, whose slope never ends.
            if (loss.from_logits || (kind == Seg::single && loss.pointwise == Pointwise::cross_entropy)) continue;
            const Result<double> result = loss_of(volume, aff, seg, PairOptions{}, loss);
            CHECK_EQUAL(result.loss, 0.0);
            CHECK_SAME(result.grad, std::vector<double>(volume.edges(), 0.0));
        }
    }
}

MALIS_TEST(infinite_affinities) {
    // They are ordered like any number; what they decide, the hinges tell: infinitely right, or no finite loss.
    const Volume volume{{1, 1, 3}, {{0, 0, 1}}};
    const double inf = std::numeric_limits<double>::infinity();
    const Result<double> result = loss_of<double>(volume, {inf, -inf, 0}, {1, 1, 2}, PairOptions{}, LossOptions{});
    CHECK_EQUAL(result.loss, 0.0);
    CHECK_SAME(result.grad, (std::vector<double>{0, 0, 0}));
    CHECK_THROWS(std::invalid_argument, "finite loss and gradient, got -inf at edge 0",
                 loss_of<double>(volume, {-inf, -inf, 0}, {1, 1, 2}, PairOptions{}, LossOptions{}));
    LossOptions logits;
    logits.from_logits = true;
    const Result<double> wrong = loss_of<double>(volume, {-inf, inf, 0}, {1, 1, 2}, PairOptions{}, logits);
    CHECK(close(wrong.loss, 2 * 0.7 * 0.7, 1e-12));
    CHECK_SAME(wrong.grad, (std::vector<double>{0, 0, 0}));
    logits.pointwise = Pointwise::cross_entropy;
    CHECK_THROWS(std::invalid_argument, "finite loss and gradient",
                 loss_of<double>(volume, {-inf, inf, 0}, {1, 1, 2}, PairOptions{}, logits));
    const Result<double> sure = loss_of<double>(volume, {-1e4, 1e4, 0}, {1, 1, 2}, PairOptions{}, logits);
    CHECK(close(sure.loss, 2e4, 1e-12));
    CHECK_SAME(sure.grad, (std::vector<double>{-1, 1, 0}));
    logits.from_logits = false;
    CHECK_THROWS(std::invalid_argument, "aff must hold values from 0 to 1, got 1.5 at flat index 1",
                 loss_of<double>(volume, {0, 1.5, 0}, {1, 1, 2}, PairOptions{}, logits));
}

MALIS_TEST(offsets_beyond_any_volume) {
    // They join nothing, and nothing overflows on the way there.
    Random random(14);
    Volume volume{{4, 9, 8}, nearest_neighbours()};
    const auto seg = make_seg(volume, Seg::split, random);
    const auto aff = make_aff<double>(volume, seg, Aff::noisy, random);
    const Result<double> near = loss_of(volume, aff, seg, PairOptions{}, LossOptions{});
    using Limits = std::numeric_limits<std::int64_t>;
    for (const std::int64_t far : {std::int64_t{4}, std::int64_t{1} << 32, std::int64_t{1} << 40, Limits::max(),
                                   Limits::min(), Limits::min() + 1, -(std::int64_t{1} << 40)}) {
        for (int axis = 0; axis < 3; ++axis) {
            Volume more = volume;
            more.nhood.push_back({axis == 0 ? far : 0, axis == 1 ? 3 * (far / 4) : 1, axis == 2 ? far : -1});
            if (far == 4 && axis != 0) continue;
            auto values = aff;
            values.resize(more.edges(), 0.9);
            const Result<double> result = loss_of(more, values, seg, PairOptions{}, LossOptions{});
            CHECK_EQUAL(result.loss, near.loss);
            CHECK(std::memcmp(result.grad.data(), near.grad.data(), near.grad.size() * sizeof(double)) == 0);
            std::vector<std::int32_t> graph(more.edges());
            seg_to_affgraph(make_grid<std::uint64_t>(more), seg.data(), graph.data(), 1);
            CHECK(std::all_of(graph.begin() + static_cast<std::ptrdiff_t>(volume.edges()), graph.end(),
                              [](std::int32_t a) { return a == 0; }));
        }
    }
}
