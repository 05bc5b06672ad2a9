#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"
#include "problems.hpp"
#include "reference.hpp"

using namespace malis;
using namespace malis::test;

namespace {

// A volume of some hundred voxels and blocks of a few, so that all that happens at faces happens often.
struct Problem {
    Volume volume;
    BlockShape blocks;
};

Problem random_problem(Random& random) {
    const std::size_t dims = 1 + random.below(3);
    const std::array<std::size_t, 3> shape{dims > 2 ? 1 + random.below(6) : 1, dims > 1 ? 1 + random.below(9) : 1,
                                           1 + random.below(13)};
    return {{shape, random_nhood(shape, random)}, {1 + random.below(4), 1 + random.below(4), 1 + random.below(6)}};
}

// Calls f(problem, seg, aff) for volumes of every kind.
template <class T, class F>
void each_problem(std::uint64_t seed, F&& f) {
    Random random(seed);
    for (const Seg seg_kind : all_segs) {
        for (const Aff aff_kind : all_affs) {
            for (int i = 0; i < 12; ++i) {
                const Problem problem = random_problem(random);
                const auto seg = make_seg(problem.volume, seg_kind, random);
                const auto aff = make_aff<T>(problem.volume, seg, aff_kind, random);
                context = "seg " + std::to_string(static_cast<int>(seg_kind)) + ", aff " +
                          std::to_string(static_cast<int>(aff_kind)) + ", trial " + std::to_string(i);
                f(problem, seg, aff);
            }
        }
    }
    context.clear();
}

template <class T, class Index>
void check_counts(const Problem& problem, const std::vector<std::int32_t>& seg, const std::vector<T>& aff,
                  bool ignore_background) {
    const Volume& volume = problem.volume;
    PairOptions options;
    options.constrain_positive = options.constrain_negative = false;
    options.ignore_background = ignore_background;
    const Counts expected = reference_counts(graph_of(volume), aff, seg, options);
    const Grid<Index> grid = make_grid<Index>(volume);
    const auto labels = compact_labels<Index>(seg.data(), seg.size(), LabelOptions{ignore_background}, 1);
    const std::vector<std::int64_t> none(volume.edges(), 0);
    for (const int threads : {1, 3}) {
        for (const bool positive : {true, false}) {
            for (const bool negative : {true, false}) {
                if (!positive && !negative) continue;
                Counts counts{none, none};
                CountSink<T, Index> sink(counts.pos.data(), counts.neg.data(), volume.edges());
                count_on_blocks<T, Index>(grid, aff.data(), labels, {}, problem.blocks, threads, positive, negative,
                                          sink);
                CHECK_SAME(counts.pos, positive ? expected.pos : none);
                CHECK_SAME(counts.neg, negative ? expected.neg : none);
            }
        }
    }
}

template <class T>
void check_loss(const Problem& problem, const std::vector<std::int32_t>& seg, const std::vector<T>& aff, Layout layout,
                bool want_positive) {
    using Index = std::uint32_t;
    const Volume& volume = problem.volume;
    const Grid<Index> grid = make_grid<Index>(volume);
    const auto labels = compact_labels<Index>(seg.data(), seg.size(), LabelOptions{}, 1);
    std::vector<T> expected(volume.edges()), grad(volume.edges());
    const auto sink_for = [&](std::vector<T>& to, int threads) {
        return LossSink<T, Index>(to.data(), volume.voxels(), volume.nhood.size(), LossOptions{}, layout, threads);
    };
    auto one = sink_for(expected, 1);
    one.clear(1);
    const double loss = count_unconstrained<T, Index>(grid, aff.data(), labels, {}, 1, want_positive, true, one);
    one.finish(1);
    double first = 0;
    for (const int threads : {1, 3}) {
        auto sink = sink_for(grad, threads);
        sink.clear(threads);
        const double value =
            count_on_blocks<T, Index>(grid, aff.data(), labels, {}, problem.blocks, threads, want_positive, true, sink);
        sink.finish(threads);
        CHECK_SAME(grad, expected);
        CHECK(std::abs(value - loss) <= 1e-12 * (1 + std::abs(loss)));
        if (threads == 1) first = value;
        CHECK_EQUAL(value, first);  // the same sum on any number of threads
    }
}

template <class T, class Index>
void check_tree(const Problem& problem, const std::vector<T>& aff) {
    const Graph graph = graph_of(problem.volume);
    std::vector<Index> expected;
    Forest forest(graph.nodes);
    for (const std::size_t e : order_of(aff)) {
        if (!graph.exists(e)) continue;
        const std::size_t a = forest.root(graph.node1[e]), b = forest.root(graph.node2[e]);
        if (a == b) continue;
        forest.join(a, b);
        expected.push_back(static_cast<Index>(e));
    }
    const Grid<Index> grid = make_grid<Index>(problem.volume);
    for (const int threads : {1, 3}) {
        std::vector<Index> edges;
        for (const auto& edge : block_spanning_tree<T, Index>(grid, aff.data(), problem.blocks, threads)) {
            edges.push_back(edge.edge);
            CHECK(from_rank<T>(edge.rank) == aff[edge.edge]);
        }
        CHECK_SAME(edges, expected);
    }
}

template <class T, class Index>
void check_watershed(const Problem& problem, const std::vector<std::int32_t>& seg, const std::vector<T>& aff,
                     double density) {
    Random random(aff.size());
    std::vector<std::int32_t> seeds(seg.size());
    for (std::size_t v = 0; v < seg.size(); ++v) seeds[v] = random.chance(density) ? seg[v] : 0;
    for (const T threshold : {-std::numeric_limits<T>::infinity(), aff[random.below(aff.size())]}) {
        const auto expected = reference_watershed(graph_of(problem.volume), aff, seeds, threshold);
        for (const int threads : {1, 3}) {
            std::vector<Index> seed;
            for (std::size_t v = 0; v < seg.size(); ++v)
                seed.push_back(seeds[v] != 0 ? static_cast<Index>(v) : detail::no_seed<Index>);
            block_watershed<T, Index>(make_grid<Index>(problem.volume), aff.data(), problem.blocks, to_rank(threshold),
                                      seed.data(), threads);
            std::vector<std::int32_t> result;
            for (const Index v : seed) result.push_back(v != detail::no_seed<Index> ? seeds[v] : 0);
            CHECK_SAME(result, expected);
        }
    }
}

// Against the same volume without blocks; test_rand_curve.cpp compares the curve with all segmentations.
template <class T, class Index>
void check_curve(const Problem& problem, const std::vector<std::int32_t>& seg, const std::vector<T>& aff) {
    const Grid<Index> grid = make_grid<Index>(problem.volume);
    const auto labels = compact_labels<Index>(seg.data(), seg.size(), LabelOptions{}, 1);
    const auto curve_of = [&](std::optional<BlockShape> blocks, int threads) {
        return detail::rand_curve<T, Index>(grid, aff.data(), labels, blocks, threads);
    };
    const auto expected = curve_of(std::nullopt, 1);
    for (const int threads : {1, 3}) {
        const auto curve = curve_of(problem.blocks, threads);
        CHECK_EQUAL(curve.best_threshold, expected.best_threshold);
        const auto same = [](const auto& a, const auto& b) {
            return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
        };
        CHECK(same(curve.thresholds, expected.thresholds));
        CHECK(same(curve.first, expected.first));
        CHECK(same(curve.true_positives, expected.true_positives));
        CHECK(same(curve.false_positives, expected.false_positives));
        CHECK(same(curve.voi_split, expected.voi_split));
        CHECK(same(curve.voi_merge, expected.voi_merge));
    }
}

MALIS_TEST(curves) {
    each_problem<float>(8, [](const auto& problem, const auto& seg, const auto& aff) {
        check_curve<float, std::uint32_t>(problem, seg, aff);
    });
    each_problem<double>(9, [](const auto& problem, const auto& seg, const auto& aff) {
        check_curve<double, std::uint64_t>(problem, seg, aff);
    });
}

MALIS_TEST(watersheds) {
    for (const double density : {0.02, 0.1, 0.5}) {
        each_problem<float>(6, [&](const auto& problem, const auto& seg, const auto& aff) {
            check_watershed<float, std::uint32_t>(problem, seg, aff, density);
        });
    }
    each_problem<double>(7, [](const auto& problem, const auto& seg, const auto& aff) {
        check_watershed<double, std::uint64_t>(problem, seg, aff, 0.1);
    });
}

MALIS_TEST(trees) {
    each_problem<float>(
        4, [](const auto& problem, const auto&, const auto& aff) { check_tree<float, std::uint32_t>(problem, aff); });
    each_problem<double>(
        5, [](const auto& problem, const auto&, const auto& aff) { check_tree<double, std::uint64_t>(problem, aff); });
}

MALIS_TEST(counts) {
    each_problem<float>(1, [](const auto& problem, const auto& seg, const auto& aff) {
        check_counts<float, std::uint32_t>(problem, seg, aff, true);
        check_counts<float, std::uint32_t>(problem, seg, aff, false);
    });
    each_problem<double>(2, [](const auto& problem, const auto& seg, const auto& aff) {
        check_counts<double, std::uint64_t>(problem, seg, aff, true);
    });
}

MALIS_TEST(losses) {
    each_problem<float>(3, [](const auto& problem, const auto& seg, const auto& aff) {
        if (context.find("aff 4") != std::string::npos) return;  // infinite affinities have no loss
        check_loss(problem, seg, aff, Layout::channels_first, true);
        check_loss(problem, seg, aff, Layout::channels_last, true);
        check_loss(problem, seg, aff, Layout::channels_first, false);
    });
}

MALIS_TEST(shapes_of_blocks) {
    const auto check = [](std::size_t depth, std::size_t height, std::size_t width, BlockShape expected) {
        const BlockShape shape = block_shape(depth, height, width);
        CHECK_EQUAL(shape.depth, expected.depth);
        CHECK_EQUAL(shape.height, expected.height);
        CHECK_EQUAL(shape.width, expected.width);
    };
    check(128, 128, 128, {32, 32, 32});
    check(1, 512, 512, {1, 128, 256});
    check(1, 1, 100000, {1, 1, 32768});
    check(5, 300, 300, {8, 64, 64});
    check(3, 4, 5, {4, 4, 8});
}

MALIS_TEST(long_offsets_do_without_blocks) {
    const auto pays = [](std::vector<Offset> nhood) {
        return few_face_edges(make_grid<std::uint32_t>({{64, 64, 64}, std::move(nhood)}), {32, 32, 32});
    };
    CHECK(pays({{-1, 0, 0}, {0, -1, 0}, {0, 0, -1}}));
    CHECK(!pays({{-4, -27, -27}}));
    CHECK(pays({}));
}

}  // namespace
