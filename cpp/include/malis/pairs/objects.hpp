// The voxels of every label of a volume, as runs along the last axis.
//
//     seg    . . 7 7 7 . 9 9 7 7        label   0 0 1 1 1 0 2 2 1 1
//     runs, grouped by label:   0: [0,2) [5,6)     1: [2,5) [8,10)     2: [6,8)
//     local numbers             0: 0 1    2        1: 0 1 2  3 4       2: 0 1
//
// The edges within a label follow from its runs alone: a run, moved by an offset, and the runs that it then meets
// overlap in *stretches*, along which affinities and the local numbers of both ends count up one by one.
//
//     offset 1 along y      run      [3 4 5 6 7]            local 20 21 22 23 24
//                           meets  [. . .]   [. . .]        local 8 9 10   11 12 13
//     stretches             (20, 9, 2 edges), (23, 11, 2 edges)
//
// No label or local number is ever looked up per edge, and an object of some thousand voxels stays in cache from its
// first edge to its last.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/select.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"

namespace malis {

template <class Index>
struct Run {
    Index v;  // its first voxel
    Index length;
    Index first;  // the local number of its first voxel
    Index y, x;   // where it begins
};

template <class Index>
struct Objects {
    Buffer<Run<Index>> runs;       // by label, in the order of the volume
    std::vector<Index> first_run;  // of label l: runs[first_run[l]] .. runs[first_run[l + 1]]
    std::vector<Index> voxels;     // number of voxels of every label

    Index labels() const { return static_cast<Index>(voxels.size()); }
};

namespace detail {

// The runs of a slab of rows, in the order of the volume: f(label, voxel, y, x, length).
template <class Index, class F>
void each_run(const Grid<Index>& grid, const Labels<Index>& labels, Index first_row, Index last_row, F&& f) {
    const Index rows_per_poll = static_cast<Index>(steps_per_poll) / grid.width + 1;
    Index y = first_row % grid.height;
    for (Index row = first_row; row < last_row; ++row) {
        if (row % rows_per_poll == 0) poll();
        const Index first = row * grid.width;
        const Index* label = labels.of.data() + first;
        Index begin = 0;
        for (Index block = 0; block < grid.width - 1; block += 64) {
            std::uint64_t changes = select_changes(label + block, std::min<Index>(64, grid.width - 1 - block));
            for (; changes != 0; changes &= changes - 1) {
                const Index end = block + static_cast<Index>(lowest_bit(changes)) + 1;
                f(label[begin], first + begin, y, begin, end - begin);
                begin = end;
            }
        }
        f(label[begin], first + begin, y, begin, grid.width - begin);
        if (++y == grid.height) y = 0;
    }
}

// Of one label in one slab: how many runs and voxels; later, how many there are before those.
template <class Index>
struct RunCount {
    Index runs, voxels;
};

// Turns counts per slab and label into the places where the runs of each begin, and adds them up.
template <class Index>
void place_runs(std::vector<std::vector<RunCount<Index>>>& slabs, Objects<Index>& objects) {
    const std::size_t labels = objects.voxels.size();
    Index runs = 0;
    for (std::size_t l = 0; l < labels; ++l) {
        objects.first_run[l] = runs;
        Index voxels = 0;
        for (auto& slab : slabs) {
            const RunCount<Index> here = slab[l];
            slab[l] = {runs, voxels};
            runs += here.runs;
            voxels += here.voxels;
        }
        objects.voxels[l] = voxels;
    }
    objects.first_run[labels] = runs;
    objects.runs.reset(runs);
}

}  // namespace detail

// Sorts the runs of a volume by their label: counts them, finds the place of each, and writes them.
template <class Index>
Objects<Index> find_objects(const Grid<Index>& grid, const Labels<Index>& labels, int threads) {
    const std::size_t count = static_cast<std::size_t>(labels.count) + 1;
    Objects<Index> objects;
    objects.first_run.resize(count + 1);
    objects.voxels.resize(count);
    const std::size_t slabs = std::min<std::size_t>(grid.rows, slabs_for(grid.voxels, threads));
    std::vector<std::vector<detail::RunCount<Index>>> tables(slabs);
    const auto each_run = [&](std::size_t slab, auto&& f) {
        detail::each_run(grid, labels, part_begin(grid.rows, slabs, slab), part_begin(grid.rows, slabs, slab + 1), f);
    };
    parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
        std::vector<detail::RunCount<Index>> counts(count, {0, 0});
        each_run(slab, [&](Index l, Index, Index, Index, Index length) {
            ++counts[l].runs;
            counts[l].voxels += length;
        });
        tables[slab] = std::move(counts);
    });
    detail::place_runs(tables, objects);
    parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
        std::vector<detail::RunCount<Index>>& next = tables[slab];
        each_run(slab, [&](Index l, Index v, Index y, Index x, Index length) {
            objects.runs[next[l].runs++] = {v, length, next[l].voxels, y, x};
            next[l].voxels += length;
        });
    });
    return objects;
}

// Edges edge + i between the voxels of local numbers a + i and b + i of one label, for i < count.
template <class Index>
struct Stretch {
    Index edge, a, b, count;
};

// All edges within label l, in the order of their index.
template <class Index>
void find_stretches(const Grid<Index>& grid, const Objects<Index>& objects, Index l,
                    Buffer<Stretch<Index>>& stretches) {
    using R = Run<Index>;
    const R* const begin = objects.runs.data() + objects.first_run[l];
    const R* const end = objects.runs.data() + objects.first_run[l + 1];
    const std::size_t runs = static_cast<std::size_t>(end - begin), runs_per_poll = steps_per_poll / 16;
    std::size_t size = 0;
    for (std::size_t k = 0; k < grid.steps.size(); ++k) {
        const auto& step = grid.steps[k];
        const auto x = grid.across(step);
        if (!step.decides || x.begin >= x.end) continue;
        // Two sequences of intervals overlap in no more places than both have intervals.
        stretches.resize(size);
        stretches.reserve(size + 2 * runs);
        Stretch<Index>* to = stretches.data() + size;
        const Index channel = static_cast<Index>(k) * grid.voxels, dy = static_cast<Index>(step.offset.y);
        const R* target = begin;  // moves on with the run
        const R* next_poll = begin + std::min(runs, runs_per_poll);
        for (const R* run = begin; run != end; ++run) {
            if (run == next_poll) {
                poll();
                next_poll += std::min(static_cast<std::size_t>(end - run), runs_per_poll);
            }
            const Index from = std::max(run->x, x.begin), stop = std::min(run->x + run->length, x.end);
            if (from >= stop || static_cast<Index>(run->y + dy) >= grid.height) continue;
            const Index skipped = from - run->x, v = run->v + skipped;
            const Index u = v + step.distance, u_end = u + (stop - from);
            if (u >= grid.voxels) continue;  // x and y stay inside, so this is z
            while (target != end && target->v + target->length <= u) ++target;
            for (const R* other = target; other != end && other->v < u_end; ++other) {
                const Index low = std::max(other->v, u), high = std::min(other->v + other->length, u_end);
                *to++ = {channel + v + (low - u), run->first + skipped + (low - u), other->first + (low - other->v),
                         high - low};
            }
        }
        size = static_cast<std::size_t>(to - stretches.data());
    }
    stretches.resize(size);
}

// All ways out of a voxel: forward along each offset and backward against it.
template <class Index>
class WaysOut {
  public:
    explicit WaysOut(const Grid<Index>& grid) {
        for (std::size_t k = 0; k < grid.steps.size(); ++k) {
            if (!grid.steps[k].decides) continue;
            auto step = grid.steps[k];
            const Index channel = static_cast<Index>(k) * grid.voxels;
            ways_.push_back({step, grid.across(step), channel});
            step.offset = {-step.offset.z, -step.offset.y, -step.offset.x};
            step.distance = Index{0} - step.distance;
            ways_.push_back(
                {step, grid.across(step), channel + step.distance});  // the edge of the voxel at the other end
        }
    }

    // Calls f(edge, v, u, local, count) for all edges from the voxels of label l, in the rows of which wanted(row) is true:
    // edge + i joins v + i, of the local number local + i, and u + i, for i < count <= 64. One within the label comes twice.
    template <class Wanted, class F>
    void each_edge_of(const Grid<Index>& grid, const Objects<Index>& objects, Index l, Wanted&& wanted, F&& f) const {
        const Run<Index>* const begin = objects.runs.data() + objects.first_run[l];
        const Run<Index>* const end = objects.runs.data() + objects.first_run[l + 1];
        in_steps(begin, end, steps_per_poll / 64, [&](const Run<Index>* first, const Run<Index>* last) {
            for (const Run<Index>* run = first; run != last; ++run) {
                if (!wanted((run->v - run->x) / grid.width)) continue;
                for (const Way& way : ways_) {
                    const Index from = std::max(run->x, way.x.begin);
                    const Index stop = std::min(run->x + run->length, way.x.end);
                    const Index y = run->y + static_cast<Index>(way.step.offset.y), skipped = from - run->x;
                    const Index v = run->v + skipped;
                    // x and y stay inside, so what leaves the volume does so along z.
                    if (from >= stop || y >= grid.height || v + way.step.distance >= grid.voxels) continue;
                    for (Index i = 0; i < stop - from; i += 64) {
                        f(way.edge + v + i, v + i, v + i + way.step.distance, run->first + skipped + i,
                          std::min<Index>(64, stop - from - i));
                    }
                }
            }
        });
    }

  private:
    struct Way {
        typename Grid<Index>::Step step;
        typename Grid<Index>::Range x;
        Index edge;  // of voxel 0: that of voxel v is edge + v
    };
    std::vector<Way> ways_;
};

}  // namespace malis
