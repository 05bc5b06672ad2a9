#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"
#include "problems.hpp"
#include "reference.hpp"

using namespace malis;
using namespace malis::test;

namespace {

template <class T>
std::vector<T> as_vector(const Buffer<T>& buffer) {
    return {buffer.begin(), buffer.end()};
}

// What the curve says, from the contingency table of one segmentation.
struct Scores {
    std::int64_t true_positives = 0, false_positives = 0;
    double f_score = 1, voi_split = 0, voi_merge = 0;
    std::int64_t true_pairs = 0, foreground = 0;
};

// By halves: one after the other, the rounding of as many terms as voxels would add up.
double sum_of(std::vector<double> terms) {
    if (terms.empty()) return 0;
    for (std::size_t n = terms.size(); n > 1; n = (n + 1) / 2) {
        for (std::size_t i = 0; i < n / 2; ++i) terms[i] += terms[n - 1 - i];
    }
    return terms[0];
}

Scores scores_of(const std::vector<std::size_t>& component, const std::vector<std::int32_t>& seg) {
    std::map<std::pair<std::size_t, std::int32_t>, std::int64_t> joint;
    std::map<std::size_t, std::int64_t> segments;
    std::map<std::int32_t, std::int64_t> truth;
    std::int64_t voxels = 0;
    for (std::size_t v = 0; v < seg.size(); ++v) {
        if (seg[v] == 0) continue;
        ++joint[{component[v], seg[v]}];
        ++segments[component[v]];
        ++truth[seg[v]];
        ++voxels;
    }
    const auto pairs = [](const auto& counts) {
        std::int64_t sum = 0;
        for (const auto& [key, n] : counts) sum += n * (n - 1) / 2;
        return sum;
    };
    Scores s;
    s.true_positives = pairs(joint);
    s.false_positives = pairs(segments) - s.true_positives;
    const std::int64_t compared = pairs(segments) + pairs(truth);
    if (compared > 0) s.f_score = static_cast<double>(2 * s.true_positives) / static_cast<double>(compared);
    s.true_pairs = pairs(truth);
    s.foreground = voxels;
    std::vector<double> split, merge;
    for (const auto& [key, n] : joint) {
        const double share = static_cast<double>(n) / static_cast<double>(voxels);
        split.push_back(-share * std::log2(static_cast<double>(n) / static_cast<double>(truth[key.second])));
        merge.push_back(-share * std::log2(static_cast<double>(n) / static_cast<double>(segments[key.first])));
    }
    s.voi_split = sum_of(split);
    s.voi_merge = sum_of(merge);
    return s;
}

bool near(double a, double b) { return std::abs(a - b) <= 1e-13; }

template <class T>
void check_curve(const Volume& volume, const Graph& graph, const std::vector<T>& aff,
                 const std::vector<std::int32_t>& seg, std::size_t at_most) {
    const RandCurve<T> curve = rand_curve(volume, aff.data(), seg.data(), 1);
    std::set<T> affinities;
    for (std::size_t e = 0; e < graph.edges(); ++e)
        if (graph.exists(e)) affinities.insert(aff[e]);
    CHECK_SAME(as_vector(curve.thresholds), (std::vector<T>(affinities.rbegin(), affinities.rend())));
    const std::size_t entries = curve.thresholds.size();
    const std::size_t steps = curve.first.size();
    CHECK_EQUAL(curve.true_positives.size(), steps);
    CHECK_EQUAL(steps > 0, entries > 0);
    std::size_t step = 0;
    double best = -1;
    T best_threshold = std::numeric_limits<T>::infinity();
    for (std::size_t i = 0; i < entries; ++i) {
        if (step + 1 < steps && curve.first[step + 1] <= static_cast<std::int64_t>(i)) ++step;
        CHECK(curve.first[step] <= static_cast<std::int64_t>(i));
        if (i % (1 + entries / at_most) != 0) continue;
        std::vector<char> connects(graph.edges());
        for (std::size_t e = 0; e < graph.edges(); ++e) connects[e] = aff[e] >= curve.thresholds[i];
        const Scores s = scores_of(flood(graph, connects), seg);
        CHECK_EQUAL(curve.true_positives[step], s.true_positives);
        CHECK_EQUAL(curve.false_positives[step], s.false_positives);
        CHECK(near(curve.voi_split[step], s.voi_split));
        CHECK(near(curve.voi_merge[step], s.voi_merge));
        CHECK_EQUAL(curve.true_pairs, s.true_pairs);
        CHECK_EQUAL(curve.foreground, s.foreground);
        if (s.f_score > best) {
            best = s.f_score;
            best_threshold = curve.thresholds[i];
        }
    }
    if (entries < at_most) CHECK_EQUAL(curve.best_threshold, best_threshold);

    const RandCurve<T> again = rand_curve(volume, aff.data(), seg.data(), 3);
    CHECK_SAME(as_vector(again.thresholds), as_vector(curve.thresholds));
    CHECK_SAME(as_vector(again.first), as_vector(curve.first));
    CHECK_SAME(as_vector(again.true_positives), as_vector(curve.true_positives));
    CHECK_SAME(as_vector(again.false_positives), as_vector(curve.false_positives));
    CHECK_SAME(as_vector(again.voi_split), as_vector(curve.voi_split));
    CHECK_SAME(as_vector(again.voi_merge), as_vector(curve.voi_merge));
}

template <class R>
void check_sort(Random& random) {
    for (const std::size_t n : {0, 1, 2, 255, 256, 1000, 70000, 300000}) {
        for (const unsigned width : {0u, 3u, 11u, 12u, 32u, 63u}) {
            for (const unsigned shift : {0u, 7u}) {
                Buffer<R> keys(n), scratch;
                for (R& key : keys)
                    key = static_cast<R>((random.bits() & ((std::uint64_t{1} << width) - 1)) << shift | 5u);
                std::vector<R> expected = as_vector(keys);
                std::sort(expected.begin(), expected.end());
                radix_sort(keys, scratch, 1 + static_cast<int>(n % 3));
                CHECK_SAME(as_vector(keys), expected);
            }
        }
    }
}

}  // namespace

MALIS_TEST(sort) {
    Random random(91);
    check_sort<std::uint32_t>(random);
    check_sort<std::uint64_t>(random);
}

MALIS_TEST(small_volumes) {
    Random random(92);
    each_small_volume(random, [&](const Volume& volume, const auto& seg, Aff kind) {
        check_curve(volume, graph_of(volume), make_aff<float>(volume, seg, kind, random), seg, 60);
        check_curve(volume, graph_of(volume), make_aff<double>(volume, seg, kind, random), seg, 60);
    });
}

MALIS_TEST(large_volumes) {
    Random random(93);
    for (const Volume& volume :
         {Volume{{41, 42, 45}, nearest_neighbours()}, Volume{{1, 270, 260}, {{0, -1, 0}, {0, 0, 1}, {0, 200, 3}}},
          Volume{{1, 1, 200000}, {{0, 0, -1}, {0, 0, 40000}}}}) {
        for (const Seg kind : {Seg::cells, Seg::random, Seg::distinct}) {
            const auto seg = make_seg(volume, kind, random);
            for (const Aff affinities : {Aff::noisy, Aff::ties}) {
                context = std::to_string(volume.shape[2]) + " " + std::to_string(static_cast<int>(kind));
                check_curve(volume, graph_of(volume), make_aff<float>(volume, seg, affinities, random), seg, 3);
            }
        }
    }
}

// However many components are joined one after the other, the entropies of the whole are those of the whole.
MALIS_TEST(entropies_do_not_drift) {
    const Volume volume{{1, 1, 1000000}, {{0, 0, -1}}};
    std::vector<double> aff(volume.edges());
    std::vector<std::uint8_t> seg(volume.voxels());
    for (std::size_t v = 0; v < aff.size(); ++v) {
        aff[v] = -static_cast<double>(v);
        seg[v] = static_cast<std::uint8_t>(1 + v % 4);
    }
    const RandCurve<double> curve = rand_curve(volume, aff.data(), seg.data(), 1);
    CHECK_EQUAL(curve.thresholds.size(), volume.voxels() - 1);
    CHECK_EQUAL(curve.voi_split[curve.voi_split.size() - 1], 0.0);
    CHECK(std::abs(curve.voi_merge[curve.voi_merge.size() - 1] - 2.0) <= 1e-14);
}

MALIS_TEST(counts_fit_into_63_bits) {
    using Voxels = std::vector<std::uint64_t>;
    const std::uint64_t most = 0xFFFFFFFFu;
    const detail::CurveTruth largest = detail::truth_of(Voxels{7, most});
    CHECK_EQUAL(static_cast<std::int64_t>(largest.all.pos), std::int64_t{9223372030412324865});
    CHECK_EQUAL(largest.foreground, static_cast<std::uint64_t>(most));
    CHECK_THROWS(std::invalid_argument, "2**32", detail::truth_of(Voxels{7, most, 1}));
}

MALIS_TEST(nan) {
    const Volume volume{{1, 1, 3}, {{0, 0, -1}}};
    const std::vector<float> aff{0.0f, std::numeric_limits<float>::quiet_NaN(), 1.0f};
    const std::vector<int> seg{1, 1, 1};
    CHECK_THROWS(std::invalid_argument, "aff must not contain NaN", rand_curve(volume, aff.data(), seg.data(), 1));
}
