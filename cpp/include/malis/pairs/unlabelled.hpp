// Unlabelled voxels, block by block.
//
// No edge between two of them is known, so whatever joins them decides no pairs, and the negative pass can begin with them in
// any number of parts: parts of blocks that fit in cache, which are solved one by one as small objects are (divide.hpp). It
// joins them to each other as it does with the regions of different objects.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/tree/blocks.hpp"

namespace malis {

namespace detail {

// Fewer voxels fit in cache as they are.
constexpr std::size_t most_undivided_unlabelled = 2 * block_voxels;

// Calls f(block, part) for the parts of a run that lie in one block each; parts count no voxels yet.
template <class Index, class F>
void each_part_of_run(const Grid<Index>& grid, const BlockShape& shape, const Run<Index>& run, F&& f) {
    const auto blocks_along = [](Index size, std::size_t side) { return (size - 1) / static_cast<Index>(side) + 1; };
    const Index z = run.v / grid.width / grid.height, width = static_cast<Index>(shape.width);
    const Index row = z / static_cast<Index>(shape.depth) * blocks_along(grid.height, shape.height) +
                      run.y / static_cast<Index>(shape.height);
    for (Index x = run.x, end = run.x + run.length; x < end;) {
        const Index stop = std::min(end, x / width * width + width);
        const Index block = row * blocks_along(grid.width, shape.width) + x / width;
        f(static_cast<std::size_t>(block), Run<Index>{run.v + (x - run.x), stop - x, 0, run.y, x});
        x = stop;
    }
}

}  // namespace detail

// Makes an object of the unlabelled voxels of every block, if there are so many that this pays: with numbers from
// labels.unlabelled on, up to labels.count.
template <class Index>
void divide_unlabelled(const Grid<Index>& grid, Labels<Index>& labels, Objects<Index>& objects) {
    const Index first = labels.unlabelled;
    if (first == 0 || objects.voxels[first] <= detail::most_undivided_unlabelled) return;
    const BlockShape shape = block_shape(grid.depth, grid.height, grid.width);
    const Index begin = objects.first_run[first];
    const std::size_t runs = objects.first_run[first + 1] - begin;
    const auto each_part = [&](const Run<Index>* from, auto&& f) {
        in_steps(from, from + runs, steps_per_poll / 64, [&](const Run<Index>* at, const Run<Index>* end) {
            for (; at != end; ++at) detail::each_part_of_run(grid, shape, *at, f);
        });
    };
    std::vector<Index> count;  // of parts, per block; then where those of the block begin
    each_part(objects.runs.data() + begin, [&](std::size_t block, const Run<Index>&) {
        if (block >= count.size()) count.resize(block + 1, 0);
        ++count[block];
    });
    std::vector<Index> number(count.size());
    objects.first_run.resize(first);
    Index place = begin;
    for (std::size_t block = 0; block < count.size(); ++block) {
        if (count[block] == 0) continue;
        number[block] = static_cast<Index>(objects.first_run.size());
        objects.first_run.push_back(place);
        place += count[block];
        count[block] = objects.first_run.back();
    }
    objects.voxels.resize(first);
    objects.voxels.resize(objects.first_run.size(), 0);
    objects.first_run.push_back(place);
    labels.count = objects.labels() - 1;
    Buffer<Run<Index>> undivided(runs);
    std::copy(objects.runs.begin() + begin, objects.runs.begin() + begin + runs, undivided.begin());
    objects.runs.resize(place);
    each_part(undivided.data(), [&](std::size_t block, Run<Index> part) {
        const Index l = number[block];
        part.first = objects.voxels[l];
        objects.voxels[l] += part.length;
        objects.runs[count[block]++] = part;
        std::fill_n(labels.of.begin() + part.v, part.length, l);
    });
}

}  // namespace malis
