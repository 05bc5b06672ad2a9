// Connected components of a volume: joins the ends of the edges that are selected, many rows at once.
//
// The parents of union-find lie in the order of the volume and lead to lower voxels. Slabs of rows are joined on their
// own, each by one thread, with the edges that stay inside of the slab; the edges between two slabs follow.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "malis/graph/grid.hpp"
#include "malis/graph/select.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

// Returns the parent of every voxel after all selected edges have joined their ends. `select(edge, v, u, count)` returns
// as bits which of the edges edge + i, between voxels v + i and u + i, connect, for i < count <= 64.
template <class Index, class Select>
class JoinedVoxels {
  public:
    JoinedVoxels(const Grid<Index>& grid, const Select& select, int threads)
        : grid_(grid),
          select_(select),
          rows_per_poll_(static_cast<Index>(steps_per_poll) / grid.width + 1),
          parents_(grid.voxels) {
        const std::size_t slabs = std::min<std::size_t>(grid.rows, slabs_for(grid.voxels, threads));
        const auto slab_row = [&](std::size_t s) { return part_begin(grid.rows, slabs, s); };
        parallel_for(slabs, threads,
                     [&](std::size_t slab, std::size_t) { join_inside(slab_row(slab), slab_row(slab + 1)); });
        for (std::size_t slab = 0; slabs > 1 && slab < slabs; ++slab) join_across(slab_row(slab), slab_row(slab + 1));
    }

    Buffer<Index>& parents() { return parents_; }

  private:
    // The row of the other end; it may lie outside of the volume.
    std::int64_t other_row(std::size_t k, Index row) const {
        const Offset& o = grid_.steps[k].offset;
        return static_cast<std::int64_t>(row) + o.z * static_cast<std::int64_t>(grid_.height) + o.y;
    }

    // All selected edges between the rows [begin, end).
    void join_inside(Index begin, Index end) {
        const Index last_voxel = end * grid_.width;
        for (Index row = begin; row < end; ++row) {
            const std::size_t chained = start_row(row);
            for (std::size_t k = 0; k < grid_.steps.size(); ++k) {
                // An offset forward meets rows that have no parents yet: these wait.
                const std::int64_t other = other_row(k, row);
                if (k != chained && other >= static_cast<std::int64_t>(begin) &&
                    other <= static_cast<std::int64_t>(row))
                    join_row(k, row, last_voxel);
            }
        }
        for (std::size_t k = 0; k < grid_.steps.size(); ++k) {
            for (Index row = begin; row < end; ++row) {
                const std::int64_t other = other_row(k, row);
                if (other > static_cast<std::int64_t>(row) && other < static_cast<std::int64_t>(end))
                    join_row(k, row, last_voxel);
            }
        }
    }

    // All selected edges from the rows [begin, end) to other rows.
    void join_across(Index begin, Index end) {
        for (std::size_t k = 0; k < grid_.steps.size(); ++k) {
            for (Index row = begin; row < end; ++row) {
                const std::int64_t other = other_row(k, row);
                if (other < static_cast<std::int64_t>(begin) || other >= static_cast<std::int64_t>(end))
                    join_row(k, row, grid_.voxels);
            }
        }
    }

    // Gives the voxels of a row their first parents: themselves, or, where the neighbourhood has the next voxel of the
    // row, what the selected edges to it make of them. Returns the channel that this took care of.
    std::size_t start_row(Index row) {
        Index* const parent = parents_.data() + row * grid_.width;
        for (Index x = 0; x < grid_.width; ++x) parent[x] = row * grid_.width + x;
        for (std::size_t k = 0; k < grid_.steps.size(); ++k) {
            const auto& step = grid_.steps[k];
            const Offset& o = step.offset;
            if (o.z != 0 || o.y != 0 || o.x * o.x != 1 || grid_.width < 2) continue;
            const Index v = row * grid_.width + (o.x < 0 ? 1 : 0);
            for (Index block = 0; block < grid_.width - 1; block += 64) {
                const Index count = std::min<Index>(64, grid_.width - 1 - block);
                const Index edge = static_cast<Index>(k) * grid_.voxels + v + block;
                const std::uint64_t selected = select_(edge, v + block, v + block + step.distance, count);
                for (Index i = 0; i < count; ++i) {
                    Index* const p = parent + block + i + 1;
                    *p = (selected >> i & 1) != 0 ? p[-1] : *p;
                }
            }
            return k;
        }
        return grid_.steps.size();
    }

    // The selected edges of one offset from one row. No parent from `end` on is read.
    void join_row(std::size_t k, Index row, Index end) {
        if (row % rows_per_poll_ == 0) poll();
        const auto& step = grid_.steps[k];
        if (!step.decides) return;
        const Index z = row / grid_.height;
        const auto x = grid_.range(step, z, row - z * grid_.height);
        if (x.begin >= x.end) return;
        Index* const parent = parents_.data();
        const Index first = row * grid_.width + x.begin;
        for (Index block = 0; block < x.end - x.begin; block += 64) {
            const Index count = std::min<Index>(64, x.end - x.begin - block);
            const Index v = first + block, u = v + step.distance;
            std::uint64_t selected = select_(static_cast<Index>(k) * grid_.voxels + v, v, u, count);
            if (selected == 0) continue;
            selected = detail::select_first_of_equals(selected, parent + v, end - v, parent + u, end - u, count);
            for (; selected != 0; selected &= selected - 1) {
                const Index i = static_cast<Index>(detail::lowest_bit(selected));
                detail::join_lowest(parent, static_cast<Index>(v + i), static_cast<Index>(u + i));
            }
        }
    }

    const Grid<Index>& grid_;
    const Select& select_;
    const Index rows_per_poll_;
    Buffer<Index> parents_;
};

template <class Index, class Select>
Buffer<Index> join_voxels(const Grid<Index>& grid, const Select& select, int threads) {
    return std::move(JoinedVoxels<Index, Select>(grid, select, threads).parents());
}

}  // namespace malis
