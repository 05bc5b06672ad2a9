#include <cstdint>
#include <map>
#include <vector>

#include "check.hpp"
#include "malis/tree/label_histogram.hpp"
#include "problems.hpp"

using namespace malis;
using namespace malis::test;

namespace {

// Joins random components until one is left and compares every step with maps.
template <class Index>
void against_maps(std::size_t nodes, Index labels, Index unlabelled, double background, std::uint64_t max_voxels,
                  bool chain, std::uint64_t seed) {
    Random random(seed);
    LabelHistograms<Index> histograms(nodes, labels, unlabelled, 2);
    std::vector<std::map<Index, std::uint64_t>> maps(nodes);
    std::vector<std::uint64_t> foreground(nodes, 0);
    for (std::size_t i = 0; i < nodes; ++i) {
        const Index label = random.chance(background) ? Index{0} : static_cast<Index>(1 + random.below(labels));
        const std::uint64_t voxels = 1 + random.below(max_voxels);
        histograms.set(static_cast<Index>(i), label, static_cast<Index>(voxels));
        if (label == 0) continue;
        maps[i][label] = voxels;
        foreground[i] = voxels;
    }
    std::vector<std::size_t> roots(nodes);
    for (std::size_t i = 0; i < nodes; ++i) roots[i] = i;
    std::size_t wrong = 0;
    while (roots.size() > 1) {
        const std::size_t at = random.below(roots.size());
        const std::size_t from = roots[at];
        roots[at] = roots.back();
        roots.pop_back();
        // One that grows, or all of them alike, and both ways round.
        std::size_t& slot = roots[chain ? 0 : random.below(roots.size())];
        const bool swap = random.chance(0.5);
        const std::size_t into = swap ? from : slot, gone = swap ? slot : from;
        slot = into;
        std::uint64_t all = foreground[into] * foreground[gone], same = 0, same_unlabelled = 0;
        auto &large = maps[into].size() < maps[gone].size() ? maps[gone] : maps[into],
             &small = maps[into].size() < maps[gone].size() ? maps[into] : maps[gone];
        for (const auto& [label, n] : small) {
            auto& m = large[label];
            same += n * m;
            if (label == unlabelled) same_unlabelled += n * m;
            m += n;
        }
        if (&large != &maps[into]) maps[into] = std::move(large);
        maps[gone].clear();
        foreground[into] += foreground[gone];
        std::uint64_t told = 0;
        const PairCount pairs = histograms.merge(
            static_cast<Index>(into), static_cast<Index>(gone),
            [&](Index x, Index y) { told += static_cast<std::uint64_t>(x) * static_cast<std::uint64_t>(y); });
        wrong += told != same || pairs.pos != same - same_unlabelled || pairs.neg != all - same ||
                 histograms.foreground(static_cast<Index>(into)) != foreground[into];
    }
    CHECK_EQUAL(wrong, std::size_t{0});
}

template <class Index>
void all_kinds() {
    std::uint64_t seed = 100;
    for (const bool chain : {false, true}) {
        for (const std::size_t labels : {1, 2, 3, 8, 9, 17, 300, 4000}) {
            const Index l = static_cast<Index>(labels);
            context = std::to_string(labels) + " labels" + (chain ? ", chain" : "");
            against_maps<Index>(50, l, 0, 0.3, 1, chain, ++seed);
            against_maps<Index>(3000, l, 0, 0.0, 1000, chain, ++seed);
            against_maps<Index>(3000, l, l, 0.5, 5, chain, ++seed);
        }
    }
}

}  // namespace

MALIS_TEST(maps_32) { all_kinds<std::uint32_t>(); }
MALIS_TEST(maps_64) { all_kinds<std::uint64_t>(); }

MALIS_TEST(many_labels) {
    against_maps<std::uint32_t>(100000, 60000, 60000, 0.1, 3, true, 1);
    against_maps<std::uint32_t>(100000, 60000, 0, 0.1, 3, false, 2);
}

MALIS_TEST(counts_beyond_32_bits) {
    LabelHistograms<std::uint32_t> histograms(4, 2, 0, 1);
    histograms.set(0, 1, 3000000000u);
    histograms.set(1, 1, 1000000000u);
    histograms.set(2, 2, 200000000u);
    PairCount pairs = histograms.merge(0, 1);
    CHECK_EQUAL(pairs.pos, std::uint64_t{3000000000000000000u});
    CHECK_EQUAL(pairs.neg, std::uint64_t{0});
    pairs = histograms.merge(2, 0);
    CHECK_EQUAL(pairs.pos, std::uint64_t{0});
    CHECK_EQUAL(pairs.neg, std::uint64_t{800000000000000000u});
}
