// Gives every connected part of a label a label of its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/select.hpp"
#include "malis/segmentation/join.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"

namespace malis {

// Numbers the parts 1.. in the order of their first voxels. Background stays 0; unlabelled and ignored voxels get the
// numbers behind the last part.
template <class Index>
void connect_labels(const Grid<Index>& grid, Labels<Index>& labels, int threads) {
    Index* const label = labels.of.data();
    const auto same = [label](Index, Index v, Index u, Index count) {
        return detail::select_same(label + v, label + u, count);
    };
    const Buffer<Index> parents = join_voxels(grid, same, threads);
    constexpr Index ignored = static_cast<Index>(-1), unlabelled = static_cast<Index>(-2);
    // In the order of the volume: a parent is a lower voxel, whose label is the number of the part already.
    Index parts = 0;
    in_steps(grid.voxels, [&](Index begin, Index end) {
        for (Index v = begin; v < end; ++v) {
            if (label[v] == 0) continue;
            if (parents[v] != v) label[v] = label[parents[v]];
            else if (label[v] == labels.ignored) label[v] = ignored;
            else if (label[v] == labels.unlabelled) label[v] = unlabelled;
            else label[v] = ++parts;
        }
    });
    labels.count = parts;
    if (labels.ignored != 0) labels.ignored = ++labels.count;
    if (labels.unlabelled != 0) labels.unlabelled = ++labels.count;
    if (labels.count == parts) return;
    in_steps(grid.voxels, [&](Index begin, Index end) {
        for (Index v = begin; v < end; ++v)
            label[v] = label[v] == ignored ? labels.ignored : label[v] == unlabelled ? labels.unlabelled : label[v];
    });
}

}  // namespace malis
