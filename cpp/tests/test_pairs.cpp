#include <cmath>
#include <cstdint>
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

template <class T, class Label>
Counts counts_of(const Volume& volume, const std::vector<T>& aff, const std::vector<Label>& seg,
                 const PairOptions& options) {
    Counts counts{std::vector<std::int64_t>(volume.edges(), -1), std::vector<std::int64_t>(volume.edges(), -1)};
    count_pairs(volume, aff.data(), seg.data(), options, counts.pos.data(), counts.neg.data());
    return counts;
}

// The same with the indices of huge volumes.
template <class T, class Label>
Counts counts_of_64_bits(const Volume& volume, const std::vector<T>& aff, const std::vector<Label>& seg,
                         const PairOptions& options) {
    using Index = std::uint64_t;
    Counts counts{std::vector<std::int64_t>(volume.edges(), -1), std::vector<std::int64_t>(volume.edges(), -1)};
    Labels<Index> labels = compact_labels<Index>(seg.data(), seg.size(), options, options.threads);
    CountSink<T, Index> sink(counts.pos.data(), counts.neg.data(), volume.edges());
    sink.clear(options.threads);
    count_on_grid<T, Index>(make_grid<Index>(volume), aff.data(), std::move(labels), options, sink);
    return counts;
}

template <class Node, class T, class Label>
Counts counts_of_list(const Graph& graph, const std::vector<T>& aff, const std::vector<Label>& seg,
                      const PairOptions& options) {
    const std::vector<Node> node1(graph.node1.begin(), graph.node1.end()),
        node2(graph.node2.begin(), graph.node2.end());
    Counts counts{std::vector<std::int64_t>(graph.edges(), -1), std::vector<std::int64_t>(graph.edges(), -1)};
    count_edge_pairs(node1.data(), node2.data(), graph.edges(), aff.data(), seg.data(), graph.nodes, options,
                     counts.pos.data(), counts.neg.data());
    return counts;
}

void check_counts(const Counts& counts, const Counts& expected) {
    CHECK_SAME(counts.pos, expected.pos);
    CHECK_SAME(counts.neg, expected.neg);
}

template <class T>
void random_volumes(std::uint64_t seed) {
    Random random(seed);
    for (const Seg seg_kind : all_segs) {
        for (const Aff aff_kind : all_affs) {
            for (int i = 0; i < 5; ++i) {
                const std::size_t dims = 1 + random.below(3);
                const std::array<std::size_t, 3> shape{dims > 2 ? 1 + random.below(6) : 1,
                                                       dims > 1 ? 1 + random.below(9) : 1, 1 + random.below(13)};
                const Volume volume{shape, random_nhood(shape, random)};
                const Graph graph = graph_of(volume);
                const auto seg = make_seg(volume, seg_kind, random);
                const auto aff = make_aff<T>(volume, seg, aff_kind, random);
                const Mask edges = make_mask(volume.edges(), 0.8, random),
                           voxels = make_mask(volume.voxels(), 0.2, random);
                for (PairOptions options : all_options()) {
                    for (int masks = 0; masks < 4; ++masks) {
                        options.edge_mask = masks & 1 ? edges.get() : nullptr;
                        options.unlabelled_mask = masks & 2 ? voxels.get() : nullptr;
                        options.ignore_label.reset();
                        if (i > 2) options.ignore_label = seg[random.below(seg.size())];
                        if (options.ignore_label == 0 && !options.ignore_background) options.ignore_label.reset();
                        const Counts expected = reference_counts(graph, aff, seg, options);
                        options.threads = 1 + 2 * (i % 2);
                        context = "seg " + std::to_string(static_cast<int>(seg_kind)) + ", aff " +
                                  std::to_string(static_cast<int>(aff_kind)) + ", trial " + std::to_string(i) + ", " +
                                  describe(options);
                        check_counts(counts_of(volume, aff, seg, options), expected);
                        check_counts(counts_of_64_bits(volume, aff, seg, options), expected);
                        check_counts(counts_of_list<std::uint32_t>(graph, aff, seg, options), expected);
                        check_counts(counts_of_list<std::uint64_t>(graph, aff, seg, options), expected);
                    }
                }
            }
        }
    }
}

}  // namespace

MALIS_TEST(small_example) {
    // By hand, on a line of voxels: 0.9 joins the first two of object 1, then 0.2 its third across the background
    // (in no constrained pass: that edge is not intra); 0.4 joins object 2.
    //
    //     seg        1     1     .     1     2     2
    //     aff          0.9   0.5   0.2   0.7   0.4
    const Volume volume{{1, 1, 6}, {{0, 0, 1}}};
    const std::vector<std::uint8_t> seg{1, 1, 0, 1, 2, 2};
    const std::vector<float> aff{0.9f, 0.5f, 0.2f, 0.7f, 0.4f, 0.99f};
    PairOptions options;
    Counts counts = counts_of(volume, aff, seg, options);
    CHECK_SAME(counts.pos, (std::vector<std::int64_t>{1, 0, 0, 0, 1, 0}));
    CHECK_SAME(counts.neg, (std::vector<std::int64_t>{0, 0, 4, 2, 0, 0}));
    options.constrain_positive = options.constrain_negative = false;
    counts = counts_of(volume, aff, seg, options);
    CHECK_SAME(counts.pos, (std::vector<std::int64_t>{1, 0, 2, 0, 1, 0}));
    CHECK_SAME(counts.neg, (std::vector<std::int64_t>{0, 0, 4, 1, 1, 0}));
}

MALIS_TEST(random_volumes_of_floats) { random_volumes<float>(31); }
MALIS_TEST(random_volumes_of_doubles) { random_volumes<double>(37); }

MALIS_TEST(labels_of_any_type) {
    Random random(41);
    const Volume volume{{3, 10, 12}, nearest_neighbours()};
    const auto seg = make_seg(volume, Seg::split, random);
    const auto aff = make_aff<float>(volume, seg, Aff::noisy, random);
    PairOptions options;
    const Counts expected = reference_counts(graph_of(volume), aff, seg, options);
    const auto as = [&](auto largest) {
        using Label = decltype(largest);
        std::vector<Label> labels(seg.size());
        for (std::size_t v = 0; v < seg.size(); ++v) labels[v] = seg[v] == 2 ? largest : static_cast<Label>(seg[v]);
        return counts_of(volume, aff, labels, options);
    };
    check_counts(as(std::numeric_limits<std::int8_t>::max()), expected);
    check_counts(as(std::numeric_limits<std::uint16_t>::max()), expected);
    check_counts(as(std::numeric_limits<std::int16_t>::max()), expected);
    check_counts(as(std::numeric_limits<std::uint32_t>::max()), expected);
    check_counts(as(std::numeric_limits<std::uint64_t>::max()), expected);
    check_counts(as(std::numeric_limits<std::int64_t>::max()), expected);
}

// Enough voxels that loops run on several threads.
MALIS_TEST(large_volumes) {
    Random random(43);
    for (const Seg kind : {Seg::random, Seg::cells, Seg::split, Seg::single, Seg::background, Seg::distinct}) {
        const bool flat = kind == Seg::split;
        const Volume volume = flat ? Volume{{1, 220, 210}, {{0, -1, 0}, {0, 0, -1}, {0, 4, 3}}}
                                   : Volume{{40, 41, 43}, nearest_neighbours()};
        const Graph graph = graph_of(volume);
        const auto seg = make_seg(volume, kind, random);
        const auto aff = make_aff<float>(volume, seg, kind == Seg::random ? Aff::ties : Aff::noisy, random);
        const Mask edges = make_mask(volume.edges(), 0.9, random), voxels = make_mask(volume.voxels(), 0.1, random);
        for (int i = 0; i < 4; ++i) {
            PairOptions options;
            options.constrain_positive = i != 2;
            options.constrain_negative = i != 2;
            options.ignore_background = i != 1;
            if (i == 3) {
                options.edge_mask = edges.get();
                options.unlabelled_mask = voxels.get();
            }
            const Counts expected = reference_counts(graph, aff, seg, options);
            for (const int threads : {1, 3}) {
                options.threads = threads;
                context = "seg " + std::to_string(static_cast<int>(kind)) + ", " + describe(options);
                check_counts(counts_of(volume, aff, seg, options), expected);
                if (threads == 1) continue;
                check_counts(counts_of_64_bits(volume, aff, seg, options), expected);
                check_counts(counts_of_list<std::uint64_t>(graph, aff, seg, options), expected);
            }
        }
    }
}

// An object so large that all threads work on it, in one piece or in many, beside small ones.
MALIS_TEST(large_objects) {
    Random random(47);
    const Volume volume{{66, 70, 72}, nearest_neighbours()};
    const Graph graph = graph_of(volume);
    for (const bool pieces : {false, true}) {
        std::vector<std::int32_t> seg(volume.voxels());
        for (std::size_t v = 0; v < seg.size(); ++v) {
            const std::size_t z = v / (70 * 72), y = v / 72 % 70, x = v % 72;
            seg[v] = z < 3 ? static_cast<std::int32_t>(2 + x / 9) : pieces && (y == 30 || x % 24 == 5) ? 0 : 1;
        }
        const auto aff = make_aff<float>(volume, seg, pieces ? Aff::ties : Aff::noisy, random);
        PairOptions options;
        const Counts expected = reference_counts(graph, aff, seg, options);
        for (const int threads : {1, 2, 3}) {
            options.threads = threads;
            context = describe(options);
            check_counts(counts_of(volume, aff, seg, options), expected);
        }
        check_counts(counts_of_64_bits(volume, aff, seg, options), expected);
    }
}

// What is unknown lies together, or here and there, or all over the volume: then objects hang together everywhere.
MALIS_TEST(masks_of_large_volumes) {
    Random random(67);
    const std::array<std::size_t, 3> shape{36, 41, 43};
    const Volume volume{shape, {{-1, 0, 0}, {0, -1, 0}, {0, 0, -1}, {0, 3, -2}}};
    const Graph graph = graph_of(volume);
    const std::size_t n = volume.voxels();
    const auto place = [&](std::size_t v) {
        return std::array<std::size_t, 3>{v / (shape[1] * shape[2]), v / shape[2] % shape[1], v % shape[2]};
    };
    const auto in_cube = [&](std::size_t v) {
        const auto [z, y, x] = place(v);
        return z > 10 && z < 25 && y > 10 && y < 25 && x > 10 && x < 25;
    };
    enum Where { everywhere, slab, cube, scattered, rare };
    for (const Seg seg_kind : {Seg::cells, Seg::touching, Seg::split, Seg::random, Seg::distinct, Seg::single}) {
        const auto seg = make_seg(volume, seg_kind, random);
        for (const Where where : {everywhere, slab, cube, scattered, rare}) {
            const auto aff = make_aff<float>(volume, seg,
                                             where == slab   ? Aff::ties
                                             : where == rare ? Aff::uniform
                                                             : Aff::noisy,
                                             random);
            const auto marked = [&](std::size_t v) {
                return where == everywhere ? random.chance(0.5)
                       : where == slab     ? place(v)[0] < 9
                       : where == cube     ? in_cube(v)
                                           : random.chance(where == scattered ? 0.1 : 0.002);
            };
            Mask edges(new bool[volume.edges()]), voxels(new bool[n]);
            for (std::size_t e = 0; e < volume.edges(); ++e) edges[e] = !marked(e % n);
            auto partly_ignored = seg;
            for (std::size_t v = 0; v < n; ++v) {
                voxels[v] = marked(v);
                if (marked(v)) partly_ignored[v] = -7;
            }
            for (int masks = 1; masks < 8; ++masks) {
                if (masks > 4 && where != cube && where != scattered) continue;
                PairOptions options;
                options.ignore_background = masks != 3;
                if (masks & 1) options.edge_mask = edges.get();
                if (masks & 2) options.unlabelled_mask = voxels.get();
                if (masks & 4) options.ignore_label = -7;
                if (masks == 5) options.constrain_positive = false;
                if (masks == 6) options.constrain_negative = false;
                const auto& labels = masks & 4 ? partly_ignored : seg;
                const Counts expected = reference_counts(graph, aff, labels, options);
                for (const int threads : {1, 2, 3}) {
                    options.threads = threads;
                    context = "seg " + std::to_string(static_cast<int>(seg_kind)) + ", where " +
                              std::to_string(static_cast<int>(where)) + ", masks " + std::to_string(masks) + ", " +
                              describe(options);
                    check_counts(counts_of(volume, aff, labels, options), expected);
                }
                if (where == scattered) check_counts(counts_of_64_bits(volume, aff, labels, options), expected);
            }
        }
    }
}

// Masks on objects that all threads work on, and on more unlabelled voxels than that.
MALIS_TEST(masks_of_large_objects) {
    Random random(71);
    const Volume volume{{66, 90, 92}, nearest_neighbours()};
    const Graph graph = graph_of(volume);
    const std::size_t n = volume.voxels();
    std::vector<std::int32_t> seg(n);
    Mask voxels(new bool[n]);
    for (std::size_t v = 0; v < n; ++v) {
        const std::size_t z = v / (90 * 92), y = v / 92 % 90, x = v % 92;
        seg[v] = z < 3 ? static_cast<std::int32_t>(2 + x / 9) : y == 30 || x == 50 ? 0 : 1;
        voxels[v] = z > 20;
    }
    const auto aff = make_aff<float>(volume, seg, Aff::noisy, random);
    const Mask edges = make_mask(volume.edges(), 0.9, random), first_planes(new bool[volume.edges()]);
    for (std::size_t e = 0; e < volume.edges(); ++e) first_planes[e] = e % n < 3 * 90 * 92;
    enum Where { scattered, unlabelled, but_for_first_planes };
    for (const Where masks : {scattered, unlabelled, but_for_first_planes}) {
        PairOptions options;
        if (masks == scattered) options.edge_mask = edges.get();
        if (masks == unlabelled) options.unlabelled_mask = voxels.get();
        if (masks == but_for_first_planes) options.edge_mask = first_planes.get();
        const Counts expected = reference_counts(graph, aff, seg, options);
        for (const int threads : {1, 3}) {
            options.threads = threads;
            context = "masks " + std::to_string(static_cast<int>(masks)) + ", " + describe(options);
            check_counts(counts_of(volume, aff, seg, options), expected);
        }
    }
}

MALIS_TEST(counts_beyond_32_bits) {
    // Two halves that only the weakest edge joins, as one object and as two.
    const std::size_t half = 150000;
    const Volume volume{{1, 1, 2 * half}, {{0, 0, -1}}};
    std::vector<float> aff(2 * half);
    Random random(53);
    for (auto& a : aff) a = static_cast<float>(0.5 + 0.5 * random.real());
    aff[half] = 0.25f;
    for (const bool one : {true, false}) {
        std::vector<std::int64_t> seg(2 * half, 1);
        if (!one) std::fill(seg.begin() + static_cast<std::ptrdiff_t>(half), seg.end(), 2);
        for (const int threads : {1, 2}) {
            PairOptions options;
            options.threads = threads;
            const Counts counts = counts_of(volume, aff, seg, options);
            CHECK_EQUAL(one ? counts.pos[half] : counts.neg[half], std::int64_t{22500000000});
            CHECK_EQUAL(one ? counts.neg[half] : counts.pos[half], 0);
            std::int64_t pos = 0;
            for (const std::int64_t n : counts.pos) pos += n;
            CHECK_EQUAL(pos, one ? std::int64_t{44999850000} : std::int64_t{22499850000});
        }
    }
}

MALIS_TEST(one_kind_alone) {
    Random random(59);
    const Volume volume{{4, 9, 11}, nearest_neighbours()};
    const Graph graph = graph_of(volume);
    const auto seg = make_seg(volume, Seg::cells, random);
    const auto aff = make_aff<float>(volume, seg, Aff::noisy, random);
    for (const PairOptions& options : all_options()) {
        const Counts both = reference_counts(graph, aff, seg, options);
        std::vector<std::int64_t> counts(graph.edges(), -1);
        count_edge_pairs(graph.node1.data(), graph.node2.data(), graph.edges(), aff.data(), seg.data(), graph.nodes,
                         options, counts.data(), static_cast<std::int64_t*>(nullptr));
        CHECK_SAME(counts, both.pos);
        count_edge_pairs(graph.node1.data(), graph.node2.data(), graph.edges(), aff.data(), seg.data(), graph.nodes,
                         options, static_cast<std::int64_t*>(nullptr), counts.data());
        CHECK_SAME(counts, both.neg);
    }
}

MALIS_TEST(graphs_that_are_no_volumes) {
    Random random(61);
    for (const std::size_t nodes : {1, 5, 300, 40000}) {
        Graph graph;
        graph.nodes = nodes;
        const std::size_t edges = nodes > 1000 ? 3 * nodes : nodes * 8;
        for (std::size_t e = 0; e < edges; ++e) {
            graph.node1.push_back(random.chance(0.1) ? Graph::missing : random.below(nodes));
            graph.node2.push_back(random.chance(0.05) ? nodes + random.below(4) : random.below(nodes));
        }
        std::vector<std::uint16_t> seg(nodes);
        for (auto& l : seg) l = static_cast<std::uint16_t>(random.below(6));
        std::vector<double> aff(edges);
        for (auto& a : aff) a = nodes == 300 ? static_cast<double>(random.below(9)) : random.noise();
        const Mask known = make_mask(edges, 0.7, random), unlabelled = make_mask(nodes, 0.3, random);
        for (PairOptions options : all_options()) {
            for (const bool masks : {false, true}) {
                if (nodes > 1000 && !options.ignore_background) continue;
                options.edge_mask = masks ? known.get() : nullptr;
                options.unlabelled_mask = masks ? unlabelled.get() : nullptr;
                const Counts expected = reference_counts(graph, aff, seg, options);
                for (const int threads : {1, 3}) {
                    options.threads = threads;
                    context = std::to_string(nodes) + " nodes, " + describe(options);
                    check_counts(counts_of_list<std::uint32_t>(graph, aff, seg, options), expected);
                }
            }
        }
    }
}

MALIS_TEST(bad_values) {
    const Volume volume{{1, 300, 600}, {{0, -1, 0}, {0, 0, -1}}};
    std::vector<float> aff(volume.edges(), 0.5f);
    std::vector<std::int32_t> seg(volume.voxels(), 1);
    for (const int threads : {1, 3}) {
        PairOptions options;
        options.threads = threads;
        // Also where the edge itself does not exist.
        for (const std::size_t at : {std::size_t{0}, std::size_t{123456}, volume.edges() - 1}) {
            aff[at] = std::numeric_limits<float>::quiet_NaN();
            aff[volume.edges() - 1] = std::numeric_limits<float>::quiet_NaN();
            CHECK_THROWS(std::invalid_argument, "aff must not contain NaN, got NaN at flat index " + std::to_string(at),
                         counts_of(volume, aff, seg, options));
            aff[at] = aff[volume.edges() - 1] = 0.5f;
        }
        seg[77] = -3;
        CHECK_THROWS(std::invalid_argument, "-3", counts_of(volume, aff, seg, options));
        seg[77] = 1;
        Graph graph = graph_of({{1, 1, 5}, {{0, 0, 1}}});
        std::vector<float> weights{1, 2, std::nanf(""), 4, 5};
        CHECK_THROWS(std::invalid_argument, "weights",
                     counts_of_list<std::uint64_t>(graph, weights, std::vector<int>(5, 1), options));
    }
}
