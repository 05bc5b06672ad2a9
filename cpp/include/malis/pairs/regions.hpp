// Regions: the parts of the objects that the positive pass leaves, as not every object is connected. They are what the
// negative pass begins with.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/block_forest.hpp"

namespace malis::detail {

// An object of several regions, and where the regions of its voxels begin in a list of them.
template <class Index>
struct SplitObject {
    Index label;
    std::size_t at;
};

// Regions as the positive pass finds them, object by object, numbered within each.
template <class T, class Index>
struct ObjectRegions {
    // The objects of several regions, as one thread found them: the region of each of their voxels, by local number.
    struct Split {
        std::vector<SplitObject<Index>> objects;
        Buffer<Index> region;
    };
    std::vector<Index> count;  // per label: how many regions its object has
    std::vector<Split> split;  // per thread
    // How regions grow (divide.hpp), from the number of a region and with its label: several lists.
    std::vector<Buffer<ForestLink<T, Index>>> growths;
};

// Regions numbered in the volume, by label.
template <class Index>
struct Regions {
    Buffer<Index> of;           // per voxel of an object: the number of its region
    std::vector<Index> label;   // per region
    std::vector<Index> voxels;  // per region, with what it grows by
    std::vector<Index> first;   // per label: its first region
};

template <class T, class Index>
Regions<Index> number_regions(const Grid<Index>& grid, const Labels<Index>& labels, const Objects<Index>& objects,
                              const ObjectRegions<T, Index>& found, int threads) {
    const Index count = objects.labels();
    std::vector<Index> first(count);
    Index regions = 0;
    for (Index l = 1; l < count; ++l) {
        first[l] = regions;
        regions += found.count[l];
    }
    Regions<Index> numbered;
    numbered.label.resize(regions);
    numbered.voxels.assign(regions, 0);
    for (Index l = 1; l < count; ++l) {
        for (Index i = 0; i < found.count[l]; ++i) numbered.label[first[l] + i] = l;
        if (found.count[l] == 1) numbered.voxels[first[l]] = objects.voxels[l];
    }
    numbered.of.reset(grid.voxels);
    Index* const of = numbered.of.data();
    constexpr Index runs_per_poll = static_cast<Index>(steps_per_poll / 64);
    for (const auto& split : found.split) {
        for (const SplitObject<Index>& object : split.objects) {
            const Index base = first[object.label];
            for (Index r = objects.first_run[object.label]; r < objects.first_run[object.label + 1]; ++r) {
                if (r % runs_per_poll == 0) poll();
                const Run<Index>& run = objects.runs[r];
                const Index* region = split.region.data() + object.at + run.first;
                for (Index i = 0; i < run.length; ++i) {
                    of[run.v + i] = base + region[i];
                    ++numbered.voxels[base + region[i]];
                }
            }
        }
    }
    numbered.first = first;
    // Objects of one region follow, in the order of memory. Those of several are done.
    constexpr Index done = static_cast<Index>(-1);
    for (Index l = 1; l < count; ++l)
        if (found.count[l] > 1) first[l] = done;
    parallel_ranges(grid.voxels, std::size_t{1} << 15, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) {
            const Index region = first[labels.of[v]];
            of[v] = region == done ? of[v] : region;
        }
    });
    return numbered;
}

}  // namespace malis::detail
