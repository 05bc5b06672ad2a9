#include <cstdint>
#include <limits>
#include <map>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"
#include "problems.hpp"

using namespace malis;
using namespace malis::test;

namespace {

// Equal labels have equal numbers and different ones different numbers; the background is 0 or an object of its own.
template <class Index, class Label>
void check_numbers(const std::vector<Label>& seg, const bool* unlabelled, bool ignore_background, int threads) {
    const Labels<Index> labels =
        compact_labels<Index>(seg.data(), seg.size(), LabelOptions{ignore_background, unlabelled}, threads);
    CHECK_EQUAL(labels.of.size(), seg.size());
    std::map<Label, Index> number_of;
    std::map<Index, Label> label_of;
    std::size_t wrong = 0;
    bool any_unlabelled = false;
    for (std::size_t v = 0; v < seg.size(); ++v) {
        const Index number = labels.of[v];
        wrong += number > labels.count;
        if (unlabelled != nullptr && unlabelled[v]) {
            any_unlabelled = true;
            wrong += number != labels.unlabelled || number == 0;
            continue;
        }
        wrong += labels.unlabelled != 0 && number == labels.unlabelled;
        if (ignore_background || seg[v] != 0) wrong += (number == 0) != (seg[v] == 0);
        else wrong += number == 0;
        wrong += number_of.emplace(seg[v], number).first->second != number;
        wrong += label_of.emplace(number, seg[v]).first->second != seg[v];
    }
    CHECK_EQUAL(wrong, std::size_t{0});
    CHECK_EQUAL(labels.unlabelled != 0, any_unlabelled);
    CHECK(static_cast<std::size_t>(labels.count) <= seg.size() + 260);
}

template <class Label>
void all_numbers() {
    using limits = std::numeric_limits<Label>;
    Random random(sizeof(Label));
    for (const std::size_t n : {1, 7, 1000, 150000}) {
        if (n > 1000 && sizeof(Label) % 4 != 0) continue;  // the larger types stand for all
        const Mask some = make_mask(n, 0.2, random), none = make_mask(n, 0, random);
        for (int kind = 0; kind < 4; ++kind) {
            std::vector<Label> seg(n);
            Label run = 0;
            for (auto& l : seg) {
                if (random.chance(0.4)) {
                    if (kind == 0) run = static_cast<Label>(random.below(5));
                    // The largest labels of the type.
                    else if (kind == 1)
                        run = random.chance(0.3) ? Label(0) : static_cast<Label>(limits::max() - random.below(100));
                    // As many as there can be.
                    else if (kind == 2)
                        run = static_cast<Label>(random.bits() & static_cast<std::uint64_t>(limits::max()));
                    // Few large labels between small ones.
                    else run = random.chance(0.1) ? limits::max() : static_cast<Label>(random.below(3));
                }
                l = run;
            }
            for (const bool ignore_background : {true, false}) {
                for (const bool* unlabelled : {static_cast<const bool*>(nullptr), static_cast<const bool*>(some.get()),
                                               static_cast<const bool*>(none.get())}) {
                    check_numbers<std::uint32_t>(seg, unlabelled, ignore_background, 1);
                    check_numbers<std::uint64_t>(seg, unlabelled, ignore_background, 3);
                }
            }
            if constexpr (std::is_signed<Label>::value) {
                seg[n / 2] = -1;
                seg[n - 1] = -7;
                for (const int threads : {1, 3})
                    CHECK_THROWS(std::invalid_argument, "seg must hold labels of at least 0, got -7",
                                 compact_labels<std::uint32_t>(seg.data(), n, LabelOptions{}, threads));
                seg[n / 2] = limits::lowest();
                if (n > 1)
                    CHECK_THROWS(std::invalid_argument, std::to_string(limits::lowest()),
                                 compact_labels<std::uint32_t>(seg.data(), n, LabelOptions{false}, 3));
            }
        }
    }
}

template <class Index>
void check_objects(const Volume& volume, const std::vector<std::int32_t>& seg, bool ignore_background, int threads) {
    const Grid<Index> grid = make_grid<Index>(volume);
    const Labels<Index> labels =
        compact_labels<Index>(seg.data(), seg.size(), LabelOptions{ignore_background}, threads);
    const Objects<Index> objects = find_objects(grid, labels, threads);
    CHECK_EQUAL(objects.labels(), labels.count + 1);
    CHECK_EQUAL(objects.first_run.size(), static_cast<std::size_t>(labels.count) + 2);
    // Voxels of a label are numbered in the order of the volume.
    std::vector<Index> seen(objects.labels(), 0), local(seg.size());
    std::size_t wrong = 0;
    for (std::size_t v = 0; v < seg.size(); ++v) local[v] = seen[labels.of[v]]++;
    CHECK_SAME(objects.voxels, seen);
    // The runs of a label are all its voxels, in the order of the volume; each lies in one row.
    for (Index l = 0; l < objects.labels(); ++l) {
        Index voxels = 0;
        for (Index r = objects.first_run[l]; r < objects.first_run[l + 1]; ++r) {
            const Run<Index>& run = objects.runs[r];
            wrong += run.length == 0 || run.first != voxels || local[run.v] != voxels;
            wrong += run.x != run.v % grid.width || run.y != run.v / grid.width % grid.height ||
                     (run.v + run.length - 1) / grid.width != run.v / grid.width;
            for (Index i = 0; i < run.length; ++i) wrong += labels.of[run.v + i] != l;
            voxels += run.length;
        }
        wrong += voxels != objects.voxels[l];
    }
    CHECK_EQUAL(wrong, std::size_t{0});
    // The stretches of all labels are all edges between voxels of the same label, each once, in order.
    struct Edge {
        Index label, a, b;
    };
    std::map<Index, Edge> expected, found;
    for (std::size_t k = 0; k < volume.nhood.size(); ++k) {
        if (!grid.steps[k].decides) continue;
        for (Index v = 0; v < grid.voxels; ++v) {
            const Index row = v / grid.width, x = v % grid.width;
            const auto range = grid.range(grid.steps[k], row / grid.height, row % grid.height);
            if (x < range.begin || x >= range.end) continue;
            const Index u = v + grid.steps[k].distance;
            if (labels.of[v] == labels.of[u])
                expected[static_cast<Index>(k) * grid.voxels + v] = {labels.of[v], local[v], local[u]};
        }
    }
    Buffer<Stretch<Index>> stretches;
    for (Index l = 0; l < objects.labels(); ++l) {
        find_stretches(grid, objects, l, stretches);
        Index next = 0;
        for (const Stretch<Index>& s : stretches) {
            wrong += s.count == 0 || s.edge < next;
            next = s.edge + s.count;
            for (Index i = 0; i < s.count; ++i) found[s.edge + i] = {l, s.a + i, s.b + i};
        }
    }
    CHECK_EQUAL(found.size(), expected.size());
    for (const auto& [edge, e] : expected) {
        const auto at = found.find(edge);
        wrong += at == found.end() || at->second.label != e.label || at->second.a != e.a || at->second.b != e.b;
    }
    CHECK_EQUAL(wrong, std::size_t{0});
}

// Bits of unknown edges against the definition, and every edge that an object has an end of.
template <class Index>
void check_unknown(const Volume& volume, const std::vector<std::int32_t>& seg, double known, Random& random) {
    const Grid<Index> grid = make_grid<Index>(volume);
    LabelOptions options;
    const Mask mask = make_mask(volume.edges(), known, random), voxels = make_mask(volume.voxels(), 0.3, random);
    options.unlabelled_mask = voxels.get();
    options.ignore_label = 2;
    auto labels = compact_labels<Index>(seg.data(), seg.size(), options, 1);
    const UnknownEdges<Index> unknown = unknown_edges(grid, labels, mask.get(), 2);
    std::size_t wrong = 0;
    bool any = false;
    std::vector<std::size_t> ends(volume.edges(), 0);  // that exist
    std::vector<char> rows(grid.rows, 0);
    for (std::size_t k = 0; k < grid.steps.size(); ++k) {
        for (Index v = 0; v < grid.voxels; ++v) {
            const Index row = v / grid.width, x = v % grid.width, e = static_cast<Index>(k) * grid.voxels + v;
            const auto range = grid.range(grid.steps[k], row / grid.height, row % grid.height);
            bool expected = false;
            if (grid.steps[k].decides && x >= range.begin && x < range.end) {
                const Index u = v + grid.steps[k].distance, a = labels.of[v], b = labels.of[u];
                expected = !mask[e] || (labels.unlabelled != 0 && a == labels.unlabelled && b == a) ||
                           (labels.ignored != 0 && (a == labels.ignored || b == labels.ignored));
                ends[e] = 2;
                if (expected) rows[row] = rows[u / grid.width] = 1;
            }
            any |= expected;
            wrong += unknown(e) != expected;
        }
    }
    CHECK_EQUAL(unknown.any(), any);
    if (any) CHECK(rows_of_unknown_edges(grid, unknown) == rows);
    labels.forget_ignored(1);
    CHECK_EQUAL(labels.ignored, Index{0});
    const Objects<Index> objects = find_objects(grid, labels, 1);
    const WaysOut<Index> ways(grid);
    for (Index l = 0; l < objects.labels(); ++l) {
        ways.each_edge_of(
            grid, objects, l, [](Index) { return true; },
            [&](Index edge, Index v, Index u, Index, Index count) {
                wrong += count == 0 || count > 64;
                for (Index i = 0; i < count; ++i) {
                    const Index owner = (edge + i) % grid.voxels;
                    wrong += labels.of[v + i] != l || (owner != v + i && owner != u + i) || ends[edge + i]-- == 0;
                }
            });
    }
    for (const std::size_t left : ends) wrong += left;
    CHECK_EQUAL(wrong, std::size_t{0});
}

}  // namespace

MALIS_TEST(labels_of_all_types) {
    all_numbers<std::uint8_t>();
    all_numbers<std::int8_t>();
    all_numbers<std::uint16_t>();
    all_numbers<std::int16_t>();
    all_numbers<std::uint32_t>();
    all_numbers<std::int32_t>();
    all_numbers<std::uint64_t>();
    all_numbers<std::int64_t>();
}

MALIS_TEST(runs_and_stretches) {
    Random random(5);
    for (const std::array<std::size_t, 3> shape :
         {std::array<std::size_t, 3>{1, 1, 1}, {1, 1, 90}, {1, 50, 1}, {1, 13, 17}, {5, 6, 7}, {40, 43, 47}}) {
        Volume volume{shape, nearest_neighbours()};
        // Longer than some of the volumes, in all directions, and one that joins a voxel to itself.
        volume.nhood.insert(volume.nhood.end(),
                            {{0, 0, 0}, {0, 1, 2}, {1, -3, 2}, {-2, 0, 16}, {0, 12, -5}, {5, 0, 0}, {-4, -5, -6}});
        for (const Seg kind : all_segs) {
            const auto seg = make_seg(volume, kind, random);
            for (const int threads : {1, 3}) {
                check_objects<std::uint32_t>(volume, seg, true, threads);
                check_objects<std::uint64_t>(volume, seg, false, threads);
            }
        }
    }
}

MALIS_TEST(unknown_edges_of_volumes) {
    Random random(7);
    for (const std::array<std::size_t, 3> shape :
         {std::array<std::size_t, 3>{1, 1, 1}, {1, 1, 90}, {1, 50, 1}, {1, 13, 17}, {5, 6, 7}, {20, 13, 70}}) {
        Volume volume{shape, nearest_neighbours()};
        volume.nhood.insert(volume.nhood.end(), {{0, 0, 0}, {0, 1, 2}, {1, -3, 2}, {-2, 0, 16}, {-4, -5, -6}});
        for (const Seg kind : {Seg::random, Seg::cells, Seg::background}) {
            for (const double known : {0.9, 1.0}) {
                const auto seg = make_seg(volume, kind, random);
                check_unknown<std::uint32_t>(volume, seg, known, random);
                check_unknown<std::uint64_t>(volume, seg, known, random);
            }
        }
    }
}
