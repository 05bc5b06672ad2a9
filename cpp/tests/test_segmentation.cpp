#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"
#include "problems.hpp"
#include "reference.hpp"

using namespace malis;
using namespace malis::test;

namespace {

struct Segmentation {
    std::vector<std::int32_t> seg;
    std::vector<std::int64_t> sizes;
};

// Components numbered by decreasing size, equal ones by their first voxel; small ones are background.
Segmentation by_size(const std::vector<std::size_t>& component, std::int64_t size_thresh) {
    std::vector<std::int64_t> size(component.empty() ? 0 : 1 + *std::max_element(component.begin(), component.end()));
    for (const std::size_t c : component) ++size[c];
    std::vector<std::size_t> order;
    Segmentation result{{}, {0}};
    for (std::size_t c = 0; c < size.size(); ++c) {
        if (size[c] > size_thresh) order.push_back(c);
        else result.sizes[0] += size[c];
    }
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return size[a] > size[b]; });
    std::vector<std::int32_t> number(size.size(), 0);
    for (const std::size_t c : order) {
        number[c] = static_cast<std::int32_t>(result.sizes.size());
        result.sizes.push_back(size[c]);
    }
    for (const std::size_t c : component) result.seg.push_back(number[c]);
    return result;
}

// Of the components of a chunk those stay that hold an open voxel or are large, in the order of their first voxels.
template <class T, class Index>
void check_chunk_components(const Volume& volume, const std::vector<T>& aff, T threshold,
                            const std::vector<std::size_t>& component) {
    const auto voxels = static_cast<std::int64_t>(volume.voxels());
    const std::vector<std::int64_t> open{voxels - 1, 0, voxels / 2, 0};
    std::map<std::size_t, std::int64_t> size, number;
    for (const std::size_t c : component) ++size[c];
    std::map<std::size_t, bool> is_open;
    for (const std::int64_t v : open) is_open[component[static_cast<std::size_t>(v)]] = true;
    for (const std::int64_t size_thresh : {0, 1, 5}) {
        std::vector<std::uint16_t> expected;
        std::vector<std::int64_t> sizes{0}, first;
        number.clear();
        for (std::size_t v = 0; v < component.size(); ++v) {
            const std::size_t c = component[v];
            const bool stays = is_open.count(c) != 0 || size[c] > size_thresh;
            if (stays && number.count(c) == 0) {
                number[c] = static_cast<std::int64_t>(sizes.size());
                sizes.push_back(size[c]);
                first.push_back(static_cast<std::int64_t>(v));
            }
            sizes[0] += !stays;
            expected.push_back(static_cast<std::uint16_t>(stays ? number[c] : 0));
        }
        for (const int threads : {1, 3}) {
            std::vector<std::uint16_t> seg(volume.voxels(), 9);
            const auto found = chunk_components<Index>(volume, aff.data(), static_cast<double>(threshold), open.data(),
                                                       open.size(), size_thresh, threads);
            CHECK_SAME(label_chunk(found, seg.data()), first);
            CHECK_SAME(found.sizes, sizes);
            CHECK_SAME(seg, expected);
        }
    }
}

template <class T, class Index>
void check_components(const Volume& volume, const Graph& graph, const std::vector<T>& aff, T threshold) {
    std::vector<char> connected(graph.edges());
    for (std::size_t e = 0; e < graph.edges(); ++e) connected[e] = aff[e] >= threshold;
    const auto component = flood(graph, connected);
    for (const std::int64_t size_thresh : {0, 1, 5}) {
        const Segmentation expected = by_size(component, size_thresh);
        for (const int threads : {1, 3}) {
            std::vector<std::int32_t> seg(volume.voxels(), -9);
            const auto sizes = components<T, Index>(make_grid<Index>(volume), aff.data(), AtLeast<T>{threshold},
                                                    size_thresh, seg.data(), threads);
            CHECK_SAME(seg, expected.seg);
            CHECK_SAME(sizes, expected.sizes);
        }
    }
    check_chunk_components<T, Index>(volume, aff, threshold, component);
    std::vector<std::int64_t> seg(volume.voxels());
    const Mask mask(new bool[graph.edges()]);
    for (std::size_t e = 0; e < graph.edges(); ++e) mask[e] = connected[e];
    list_components(EdgeList<Index>{graph.node1.data(), graph.node2.data(), graph.edges(), graph.nodes}, mask.get(),
                    seg.data());
    for (auto& s : seg) --s;  // numbers from 1, by first node
    CHECK_SAME(seg, (std::vector<std::int64_t>(component.begin(), component.end())));
}

template <class T, class Index>
void check_watershed(const Volume& volume, const Graph& graph, const std::vector<T>& aff, double seeds,
                     Random& random) {
    std::vector<std::int32_t> seed(volume.voxels(), 0);
    for (auto& s : seed) {
        if (random.chance(seeds)) s = static_cast<std::int32_t>(1 + random.below(1000));
    }
    const std::size_t an_edge = random.below(graph.edges());
    for (const T threshold : {-std::numeric_limits<T>::infinity(), aff[an_edge], T(2)}) {
        const auto expected = reference_watershed(graph, aff, seed, threshold);
        for (const int threads : {1, 3}) {
            std::vector<std::int32_t> seg = seed;
            watershed<T, Index>(make_grid<Index>(volume), aff.data(), threshold, volume.voxels(), seg.data(), threads);
            CHECK_SAME(seg, expected);
            seg = seed;
            watershed<T, Index>(EdgeList<Index>{graph.node1.data(), graph.node2.data(), graph.edges(), graph.nodes},
                                aff.data(), threshold, volume.voxels(), seg.data(), threads);
            CHECK_SAME(seg, expected);
        }
    }
}

template <class T, class Index>
void check_merge_small(const Volume& volume, const Graph& graph, const std::vector<T>& aff, T threshold) {
    std::vector<char> connected(graph.edges());
    for (std::size_t e = 0; e < graph.edges(); ++e) connected[e] = aff[e] >= threshold;
    const auto component = flood(graph, connected);
    for (const std::int64_t size_thresh : {0, 1, 3, 20, 1000000}) {
        const Segmentation expected = by_size(reference_merge_small(graph, aff, component, size_thresh), size_thresh);
        for (const int threads : {1, 3}) {
            std::vector<std::int32_t> seg(volume.voxels(), -9);
            const auto sizes = components<T, Index>(make_grid<Index>(volume), aff.data(), AtLeast<T>{threshold},
                                                    size_thresh, seg.data(), threads, Small::merge);
            CHECK_SAME(seg, expected.seg);
            CHECK_SAME(sizes, expected.sizes);
        }
    }
}

template <class T, class Index>
void check_basins(const Volume& volume, const Graph& graph, const std::vector<T>& aff, T threshold) {
    const Segmentation expected = by_size(reference_basins(graph, aff, threshold), 1);
    for (const int threads : {1, 3}) {
        std::vector<std::int32_t> seg(volume.voxels(), -9);
        const auto sizes =
            watershed_basins<T, Index>(make_grid<Index>(volume), aff.data(), threshold, 1, seg.data(), threads);
        CHECK_SAME(seg, expected.seg);
        CHECK_SAME(sizes, expected.sizes);
    }
}

// Bytes give what their values as float give.
template <class Index>
void check_bytes(const Volume& volume, const std::vector<std::int32_t>& labels, const std::vector<std::uint8_t>& bytes,
                 float threshold) {
    std::vector<float> aff(bytes.size());
    for (std::size_t e = 0; e < bytes.size(); ++e) aff[e] = static_cast<float>(bytes[e]) / 255.0f;
    const auto grid = make_grid<Index>(volume);
    std::vector<std::int32_t> seg(volume.voxels()), expected(volume.voxels());
    for (const int threads : {1, 3}) {
        const auto same = [&](const auto& sizes, const auto& expected_sizes) {
            CHECK_SAME(seg, expected);
            CHECK_SAME(sizes, expected_sizes);
        };
        for (const Small small : {Small::drop, Small::merge}) {
            same(components(grid, bytes.data(), AtLeast<std::uint8_t>::value(threshold), 3, seg.data(), threads, small),
                 components(grid, aff.data(), AtLeast<float>{threshold}, 3, expected.data(), threads, small));
        }
        same(watershed_basins<float, Index>(grid, bytes.data(), threshold, 1, seg.data(), threads),
             watershed_basins<float, Index>(grid, aff.data(), threshold, 1, expected.data(), threads));
        for (std::size_t v = 0; v < seg.size(); ++v) seg[v] = expected[v] = v % 19 == 0 ? static_cast<int>(v + 1) : 0;
        watershed<float, Index>(grid, bytes.data(), threshold, seg.size(), seg.data(), threads);
        watershed<float, Index>(grid, aff.data(), threshold, seg.size(), expected.data(), threads);
        CHECK_SAME(seg, expected);

        const auto tree = detail::spanning_tree<float, std::int32_t>(grid, bytes.data(), threads);
        const auto expected_tree = detail::spanning_tree<float, std::int32_t>(grid, aff.data(), threads);
        CHECK_SAME(tree.edges, expected_tree.edges);
        CHECK_SAME(tree.affinities, expected_tree.affinities);

        const auto compact = compact_labels<Index>(labels.data(), volume.voxels(), LabelOptions{}, threads);
        const auto blocks = blocks_that_pay(grid);
        const auto curve = detail::rand_curve<float, Index>(grid, bytes.data(), compact, blocks, threads);
        const auto expected_curve = detail::rand_curve<float, Index>(grid, aff.data(), compact, blocks, threads);
        CHECK_SAME(curve.thresholds, expected_curve.thresholds);
        CHECK_SAME(curve.first, expected_curve.first);
        CHECK_SAME(curve.true_positives, expected_curve.true_positives);
        CHECK_SAME(curve.voi_merge, expected_curve.voi_merge);
    }
}

// Parts of labels are the components of the edges within labels.
template <class Index, class Label>
void check_parts(const Volume& volume, const Graph& graph, const std::vector<std::int32_t>& labels) {
    const std::vector<Label> seg(labels.begin(), labels.end());
    std::vector<char> connected(graph.edges());
    for (std::size_t e = 0; e < graph.edges(); ++e) {
        const bool exists = graph.node2[e] != Graph::missing;
        connected[e] = exists && seg[graph.node1[e]] == seg[graph.node2[e]];
    }
    const auto component = flood(graph, connected);
    std::vector<Label> expected(seg.size());
    std::map<std::size_t, Label> number;
    for (std::size_t v = 0; v < seg.size(); ++v)
        if (seg[v] != 0)
            expected[v] = number.try_emplace(component[v], static_cast<Label>(number.size() + 1)).first->second;
    const auto grid = make_grid<Index>(volume);
    for (const int threads : {1, 3}) {
        std::vector<Label> found(seg.size(), 99);
        detail::LabelRuns<Index> runs(grid, threads);
        const std::vector<std::make_unsigned_t<Label>> bits(seg.begin(), seg.end());
        CHECK(!runs.join(bits.data()));
        CHECK_EQUAL(static_cast<std::size_t>(runs.number()), number.size());
        runs.write(found.data());
        CHECK_SAME(found, expected);
    }
}

}  // namespace

MALIS_TEST(bytes_stand_for_floats) {
    CHECK_EQUAL(detail::lowest_byte_of(0.0f), 0u);
    CHECK_EQUAL(detail::lowest_byte_of(1.0f), 255u);
    CHECK_EQUAL(detail::lowest_byte_of(std::nextafter(1.0f, 2.0f)), 256u);
    CHECK_EQUAL(detail::lowest_byte_of(std::numeric_limits<float>::quiet_NaN()), 256u);
    for (unsigned byte = 0; byte < 256; ++byte) {
        const float value = static_cast<float>(byte) / 255.0f;
        CHECK_EQUAL(detail::lowest_byte_of(value), byte);
        CHECK_EQUAL(detail::lowest_byte_of(std::nextafter(value, 2.0f)), byte + 1);
    }
    Random random(79);
    const auto check = [&](const Volume& volume, unsigned values) {
        const auto labels = make_seg(volume, Seg::cells, random);
        std::vector<std::uint8_t> bytes(volume.edges());
        for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random.below(values) * (255 / (values - 1)));
        const float threshold = static_cast<float>(random.below(256)) / 255.0f;
        check_bytes<std::uint32_t>(volume, labels, bytes, threshold);
        check_bytes<std::uint64_t>(volume, labels, bytes, threshold);
    };
    for (int i = 0; i < 60; ++i) {
        const std::array<std::size_t, 3> shape{1 + random.below(6), 1 + random.below(9), 1 + random.below(140)};
        context = "volume " + std::to_string(i);
        check(Volume{shape, random_nhood(shape, random)}, i % 2 == 0 ? 256 : 4);
    }
    check(Volume{{40, 41, 45}, nearest_neighbours()}, 256);
    check(Volume{{1, 300, 270}, {{0, -1, 0}, {0, 0, -1}, {0, 9, 4}}}, 256);
}

MALIS_TEST(parts_of_labels) {
    Random random(83);
    for (int i = 0; i < 300; ++i) {
        const std::array<std::size_t, 3> shape{1 + random.below(5), 1 + random.below(9), 1 + random.below(90)};
        const Volume volume{shape, random_nhood(shape, random)};
        context = "volume " + std::to_string(i);
        const auto seg = make_seg(volume, all_segs[static_cast<std::size_t>(i) % std::size(all_segs)], random);
        check_parts<std::uint32_t, std::int64_t>(volume, graph_of(volume), seg);
        check_parts<std::uint64_t, std::uint32_t>(volume, graph_of(volume), seg);
    }
    for (const Volume& volume :
         {Volume{{41, 42, 45}, nearest_neighbours()},
          Volume{{41, 42, 45}, {{1, 0, 0}, {-30, 1, 2}, {0, 1, -1}, {0, 0, 0}, {29, -3, 1}}},
          Volume{{1, 270, 260}, {{0, -1, 0}, {0, 0, 1}, {0, 200, 3}}},
          Volume{{1, 1, 70000}, {{0, 0, -1}, {0, 0, 40000}}}, Volume{{1, 70000, 1}, {{0, 1, 0}}}})
        check_parts<std::uint32_t, std::int32_t>(volume, graph_of(volume), make_seg(volume, Seg::cells, random));
}

MALIS_TEST(small_volumes) {
    Random random(71);
    for (int i = 0; i < 200; ++i) {
        const std::array<std::size_t, 3> shape{1 + random.below(6), 1 + random.below(9), 1 + random.below(14)};
        const Volume volume{shape, random_nhood(shape, random)};
        const Graph graph = graph_of(volume);
        const auto seg = make_seg(volume, all_segs[static_cast<std::size_t>(i) % std::size(all_segs)], random);
        const Aff kind = all_affs[static_cast<std::size_t>(i / 7) % std::size(all_affs)];
        context = "volume " + std::to_string(i);
        const auto aff = make_aff<float>(volume, seg, kind, random);
        const auto aff_64 = make_aff<double>(volume, seg, kind, random);
        for (const float threshold : {0.25f, 0.5f, 0.9f}) {
            check_components<float, std::uint32_t>(volume, graph, aff, threshold);
            check_components<double, std::uint64_t>(volume, graph, aff_64, static_cast<double>(threshold));
            check_merge_small<float, std::uint32_t>(volume, graph, aff, threshold);
            check_merge_small<double, std::uint64_t>(volume, graph, aff_64, static_cast<double>(threshold));
            check_basins<float, std::uint32_t>(volume, graph, aff, threshold);
            check_basins<double, std::uint64_t>(volume, graph, aff_64, static_cast<double>(threshold));
        }
        check_basins<float, std::uint32_t>(volume, graph, aff, -std::numeric_limits<float>::infinity());
        check_basins<double, std::uint64_t>(volume, graph, aff_64, -std::numeric_limits<double>::infinity());
        for (const double seeds : {0.0, 0.02, 0.2, 1.0}) {
            check_watershed<float, std::uint32_t>(volume, graph, aff, seeds, random);
            check_watershed<double, std::uint64_t>(volume, graph, aff_64, seeds, random);
        }
    }
}

// Enough voxels that they are divided among threads, with offsets that lead far beyond a thread's part.
MALIS_TEST(large_volumes) {
    Random random(73);
    for (const Volume& volume : {Volume{{41, 42, 45}, nearest_neighbours()},
                                 Volume{{41, 42, 45}, {{1, 0, 0}, {-30, 1, 2}, {0, 1, -1}, {0, 0, 0}, {29, -3, 1}}},
                                 Volume{{1, 270, 260}, {{0, -1, 0}, {0, 0, 1}, {0, 200, 3}}},
                                 Volume{{1, 1, 70000}, {{0, 0, -1}, {0, 0, 40000}}}, Volume{{1, 70000, 1}, {{0, 1, 0}}},
                                 Volume{{1, 300, 300}, {{0, 0, 0}}}}) {
        const Graph graph = graph_of(volume);
        const auto seg = make_seg(volume, Seg::cells, random);
        for (const Aff kind : {Aff::noisy, Aff::ties}) {
            const auto aff = make_aff<float>(volume, seg, kind, random);
            for (const float threshold : {0.3f, 0.5f, 0.75f})
                check_components<float, std::uint32_t>(volume, graph, aff, threshold);
            check_watershed<float, std::uint32_t>(volume, graph, aff, 0.001, random);
            check_merge_small<float, std::uint32_t>(volume, graph, aff, 0.5f);
            check_basins<float, std::uint32_t>(volume, graph, aff, -std::numeric_limits<float>::infinity());
            check_basins<float, std::uint32_t>(volume, graph, aff, 0.3f);
        }
    }
}

MALIS_TEST(parts_of_labels_are_numbered_by_their_first_voxels) {
    // By hand: label 7 lies in two parts along rows; diagonal steps alone connect others.
    const std::vector<std::uint8_t> seg{7, 7, 0, 7,  //
                                        0, 9, 7, 7};
    std::vector<std::uint8_t> connected(seg.size());
    for (const int threads : {1, 2}) {
        connect_labels(Volume{{1, 2, 4}, {{0, -1, 0}, {0, 0, -1}}}, seg.data(), connected.data(), threads);
        CHECK_SAME(connected, (std::vector<std::uint8_t>{1, 1, 0, 2, 0, 3, 2, 2}));
        connect_labels(Volume{{1, 2, 4}, {{0, 1, 1}}}, seg.data(), connected.data(), threads);
        CHECK_SAME(connected, (std::vector<std::uint8_t>{1, 2, 0, 3, 0, 4, 2, 5}));
    }
}

MALIS_TEST(a_small_component_takes_its_best_edge) {
    // By hand: voxel 2 hangs at the first two by 0.4 and at the last three by 0.3.
    const Volume volume{{1, 1, 6}, {{0, 0, -1}}};
    const std::vector<float> aff{0.0f, 0.9f, 0.4f, 0.3f, 0.8f, 0.7f};
    std::vector<std::int32_t> seg(6);
    const auto sizes = components<float, std::uint32_t>(make_grid<std::uint32_t>(volume), aff.data(),
                                                        AtLeast<float>{0.5f}, 1, seg.data(), 1, Small::merge);
    CHECK_SAME(seg, (std::vector<std::int32_t>{1, 1, 1, 2, 2, 2}));
    CHECK_SAME(sizes, (std::vector<std::int64_t>{0, 3, 3}));
}

MALIS_TEST(a_plateau_is_one_basin) {
    // By hand: the maxima are the edges of 0.8, two of them in a row, and that of 0.9; 0.5 drains to the stronger side.
    const Volume volume{{1, 1, 7}, {{0, 0, -1}}};
    const std::vector<double> aff{0.0, 0.8, 0.8, 0.5, 0.5, 0.6, 0.9};
    std::vector<std::int32_t> seg(7);
    const auto sizes =
        watershed_basins<double, std::uint32_t>(make_grid<std::uint32_t>(volume), aff.data(), 0.0, 1, seg.data(), 1);
    CHECK_SAME(seg, (std::vector<std::int32_t>{1, 1, 1, 1, 2, 2, 2}));
    CHECK_SAME(sizes, (std::vector<std::int64_t>{0, 4, 3}));
}

MALIS_TEST(seeds_keep_their_voxels) {
    // By hand: the first seed takes the voxel across 0.9 and not that across 0.3, which the second reached by 0.8.
    const Volume volume{{1, 1, 5}, {{0, 0, 1}}};
    const std::vector<float> aff{0.9f, 0.3f, 0.8f, 1.0f, 0.0f};
    std::vector<std::uint8_t> seg{200, 0, 0, 7, 7};
    watershed<float, std::uint32_t>(make_grid<std::uint32_t>(volume), aff.data(), 0.0f, 5, seg.data(), 1);
    CHECK_SAME(seg, (std::vector<std::uint8_t>{200, 200, 7, 7, 7}));
}
