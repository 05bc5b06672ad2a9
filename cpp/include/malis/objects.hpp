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
#include <vector>

#include "malis/buffer.hpp"
#include "malis/grid.hpp"
#include "malis/labels.hpp"
#include "malis/parallel.hpp"
#include "malis/select.hpp"

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

template <class Index>
Objects<Index> find_objects(const Grid<Index>& grid, const Labels<Index>& labels, int threads) {
    Objects<Index> objects;
    const std::size_t count = static_cast<std::size_t>(labels.count) + 1;
    // Every slab needs a table over all labels: no more slabs than threads.
    const std::size_t slabs =
        std::min<std::size_t>(grid.rows, threads > 1 && grid.voxels > 65536 ? static_cast<std::size_t>(threads) : 1);
    const auto each_run = [&](std::size_t slab, auto&& f) {
        const auto slab_row = [&](std::size_t s) {
            return static_cast<Index>(static_cast<std::uint64_t>(grid.rows) * s / slabs);
        };
        Index y = slab_row(slab) % grid.height;
        for (Index row = slab_row(slab); row < slab_row(slab + 1); ++row) {
            const Index first = row * grid.width;
            const Index* label = labels.of.data() + first;
            Index begin = 0;
            for (Index block = 0; block < grid.width - 1; block += 64) {
                std::uint64_t changes =
                    detail::select_changes(label + block, std::min<Index>(64, grid.width - 1 - block));
                for (; changes != 0; changes &= changes - 1) {
                    const Index end = block + static_cast<Index>(detail::lowest_bit(changes)) + 1;
                    f(label[begin], first + begin, y, begin, end - begin);
                    begin = end;
                }
            }
            f(label[begin], first + begin, y, begin, grid.width - begin);
            if (++y == grid.height) y = 0;
        }
    };
    struct Count {
        Index runs, voxels;
    };
    std::vector<std::vector<Count>> at(slabs);
    parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
        std::vector<Count> counts(count, Count{0, 0});
        each_run(slab, [&](Index l, Index, Index, Index, Index length) {
            ++counts[l].runs;
            counts[l].voxels += length;
        });
        at[slab] = std::move(counts);
    });
    objects.first_run.resize(count + 1);
    objects.voxels.resize(count);
    Index runs = 0;
    for (std::size_t l = 0; l < count; ++l) {
        objects.first_run[l] = runs;
        Index voxels = 0;
        for (std::size_t slab = 0; slab < slabs; ++slab) {
            const Count here = at[slab][l];
            at[slab][l] = {runs, voxels};
            runs += here.runs;
            voxels += here.voxels;
        }
        objects.voxels[l] = voxels;
    }
    objects.first_run[count] = runs;
    objects.runs.reset(runs);
    parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
        std::vector<Count>& next = at[slab];
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
void find_stretches(const Grid<Index>& grid, const Objects<Index>& objects, Index l, Buffer<Stretch<Index>>& stretches) {
    using R = Run<Index>;
    const R* const begin = objects.runs.data() + objects.first_run[l];
    const R* const end = objects.runs.data() + objects.first_run[l + 1];
    const std::size_t runs = static_cast<std::size_t>(end - begin);
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
        for (const R* run = begin; run != end; ++run) {
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

}  // namespace malis
