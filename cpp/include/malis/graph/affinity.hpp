// The affinity graph of a segmentation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/support/parallel.hpp"

namespace malis {

namespace detail {

template <class Index, class Label>
void same_labels(const Grid<Index>& grid, const Label* seg, std::int32_t* aff, int threads) {
    const std::size_t rows = grid.rows * grid.steps.size();
    parallel_ranges(rows, (std::size_t{1} << 15) / grid.width + 1, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t r = begin; r < end; ++r) {
            const std::size_t k = r / grid.rows;
            const Index row = static_cast<Index>(r - k * grid.rows);
            const auto& step = grid.steps[k];
            const Index z = row / grid.height;
            const auto x = grid.range(step, z, row - z * grid.height);
            std::int32_t* to = aff + r * grid.width;
            const Label* from = seg + static_cast<std::size_t>(row) * grid.width;
            if (x.begin >= x.end) {
                std::memset(to, 0, grid.width * sizeof *to);
                continue;
            }
            for (Index i = 0; i < x.begin; ++i) to[i] = 0;
            const Label* other = seg + static_cast<Index>(row * grid.width + x.begin + step.distance);
            for (Index i = x.begin; i < x.end; ++i)
                to[i] = static_cast<std::int32_t>((from[i] == other[i - x.begin]) & (from[i] > Label(0)));
            for (Index i = x.end; i < grid.width; ++i) to[i] = 0;
        }
    });
}

}  // namespace detail

// aff[k, v] = 1 where v and v + offset k carry the same label and it is not 0, else 0. Throws std::invalid_argument for
// negative labels.
template <class Index>
void seg_to_affgraph(const Grid<Index>& grid, LabelArray seg, std::int32_t* aff, int threads) {
    check_labels(seg, grid.voxels, "seg", threads);
    seg.visit([&](const auto* labels) { detail::same_labels(grid, labels, aff, threads); });
}

}  // namespace malis
