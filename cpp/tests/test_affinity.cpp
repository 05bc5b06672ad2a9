#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"
#include "problems.hpp"
#include "reference.hpp"

using namespace malis;
using namespace malis::test;

namespace {

template <class Label>
void check_affgraph(const Volume& volume, const std::vector<std::int32_t>& seg, Label large) {
    const Graph graph = graph_of(volume);
    std::vector<Label> labels(seg.size());
    for (std::size_t v = 0; v < seg.size(); ++v) labels[v] = seg[v] == 2 ? large : static_cast<Label>(seg[v] % 100);
    std::vector<std::int32_t> expected(graph.edges());
    for (std::size_t e = 0; e < graph.edges(); ++e) {
        expected[e] = graph.node2[e] != Graph::missing && labels[graph.node1[e]] == labels[graph.node2[e]] &&
                      labels[graph.node1[e]] != 0;
    }
    for (const int threads : {1, 3}) {
        std::vector<std::int32_t> aff(graph.edges(), 7);
        seg_to_affgraph(make_grid<std::uint32_t>(volume), labels.data(), aff.data(), threads);
        CHECK_SAME(aff, expected);
        std::fill(aff.begin(), aff.end(), 7);
        seg_to_affgraph(make_grid<std::uint64_t>(volume), labels.data(), aff.data(), threads);
        CHECK_SAME(aff, expected);
    }
}

}  // namespace

MALIS_TEST(edges_within_objects) {
    Random random(11);
    for (int i = 0; i < 60; ++i) {
        const std::array<std::size_t, 3> shape{1 + random.below(6), 1 + random.below(9), 1 + random.below(20)};
        const Volume volume{shape, random_nhood(shape, random)};
        const auto seg = make_seg(volume, all_segs[static_cast<std::size_t>(i) % std::size(all_segs)], random);
        check_affgraph<std::uint8_t>(volume, seg, 255);
        check_affgraph<std::int32_t>(volume, seg, std::numeric_limits<std::int32_t>::max());
        check_affgraph<std::uint64_t>(volume, seg, std::numeric_limits<std::uint64_t>::max());
    }
    const std::array<std::size_t, 3> shape{30, 40, 50};
    const Volume volume{shape, {{-1, 0, 0}, {0, 0, 0}, {3, -2, 1}, {0, 39, -49}, {0, 0, 50}}};
    check_affgraph<std::int64_t>(volume, make_seg(volume, Seg::split, random), std::int64_t{1} << 40);
}

MALIS_TEST(zero_offset_tells_the_foreground) {
    const Volume volume{{1, 1, 4}, {{0, 0, 0}}};
    const std::vector<std::uint8_t> seg{3, 0, 0, 1};
    std::vector<std::int32_t> aff(4);
    seg_to_affgraph(make_grid<std::uint32_t>(volume), seg.data(), aff.data(), 1);
    CHECK_SAME(aff, (std::vector<std::int32_t>{1, 0, 0, 1}));
}
