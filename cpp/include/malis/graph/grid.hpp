// Affinity graphs of volumes: a voxel is a node, an offset of the neighbourhood leads from it to another.
//
//     edge index = k * voxels + v      joins v and v + offset k, where both lie in the volume
//
// Volumes have three axes (z, y, x); fewer are padded with leading ones. Edges are never listed: loops go along rows
// of x, in which labels, affinities and both ends of an offset are contiguous in memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "malis/support/interrupt.hpp"
#include "malis/support/split.hpp"

namespace malis {

struct Offset {
    std::int64_t z, y, x;
};

template <class Index>
class Grid {
  public:
    // An offset with its distance in memory. `Index` arithmetic wraps, so that a negative step works unsigned too.
    struct Step {
        Offset offset;
        Index distance;
        bool decides;  // false for the zero offset, which joins a voxel to itself, and for one that leaves the volume
    };
    // Part of a row from which an offset stays in the volume: x in [begin, end), empty where it never does.
    struct Range {
        Index begin, end;
    };

    Grid(Index depth, Index height, Index width, const std::vector<Offset>& offsets)
        : depth(depth), height(height), width(width), rows(depth * height), voxels(depth * height * width) {
        steps.reserve(offsets.size());
        for (const Offset& offset : offsets) {
            // As far as the side of the volume is as good as farther, and does not overflow what follows.
            const Offset o{within(offset.z, depth), within(offset.y, height), within(offset.x, width)};
            const bool stays = shorter(o.z, depth) && shorter(o.y, height) && shorter(o.x, width);
            const std::int64_t distance =
                stays ? (o.z * static_cast<std::int64_t>(height) + o.y) * static_cast<std::int64_t>(width) + o.x : 0;
            steps.push_back({o, static_cast<Index>(distance), stays && (o.z != 0 || o.y != 0 || o.x != 0)});
        }
    }

    // Whether index arithmetic on voxels, edges and the nodes of the passes fits into Index.
    static bool fits(std::uint64_t voxels, std::uint64_t offsets) {
        constexpr std::uint64_t limit = static_cast<Index>(-1);
        return voxels <= limit / (offsets + 5) - 2;
    }

    Range range(const Step& step, Index z, Index y) const {
        if (!inside(z, step.offset.z, depth) || !inside(y, step.offset.y, height)) return {0, 0};
        return across(step);
    }

    // The range of rows for which the other axes stay in the volume; empty where that is so for no row.
    Range across(const Step& step) const {
        if (!shorter(step.offset.z, depth) || !shorter(step.offset.y, height) || !shorter(step.offset.x, width))
            return {0, 0};
        const std::int64_t x = step.offset.x, w = static_cast<std::int64_t>(width);
        return {static_cast<Index>(x < 0 ? -x : 0), static_cast<Index>(x > 0 ? w - x : w)};
    }

    // Whether nearest neighbours along every axis join all voxels; there may be other ways to do so.
    bool connected() const {
        const auto joins = [&](std::int64_t z, std::int64_t y, std::int64_t x) {
            for (const Step& step : steps) {
                const Offset& o = step.offset;
                if (step.decides && std::abs(o.z) == z && std::abs(o.y) == y && std::abs(o.x) == x) return true;
            }
            return false;
        };
        return (depth == 1 || joins(1, 0, 0)) && (height == 1 || joins(0, 1, 0)) && (width == 1 || joins(0, 0, 1));
    }

    Index edges() const { return static_cast<Index>(steps.size()) * voxels; }

    const Index depth, height, width, rows, voxels;
    std::vector<Step> steps;

  private:
    static std::int64_t within(std::int64_t offset, Index size) {
        const std::int64_t s = static_cast<std::int64_t>(size);
        return std::max(-s, std::min(s, offset));
    }
    static bool shorter(std::int64_t offset, Index size) {
        const std::int64_t s = static_cast<std::int64_t>(size);
        return offset < s && -offset < s;
    }
    static bool inside(Index at, std::int64_t offset, Index size) {
        const std::int64_t to = static_cast<std::int64_t>(at) + offset;
        return to >= 0 && to < static_cast<std::int64_t>(size);
    }
};

// How many rows of a volume are sampled, for thresholds: more where rows are short, so that there are at least a thousand
// edges of every offset. A third or three times as many change the instructions of a loss by less than 0.5 %.
constexpr std::size_t sampled_rows = 12, sampled_row_voxels = 1024;

// The edges of a volume in the order of their index, as a Source (source.hpp); visit.row() says which take part.
template <class T, class Index, class Visit>
class GridScan {
  public:
    GridScan(const Grid<Index>& grid, const Visit& visit, int threads) : grid_(grid), visit_(visit) {
        pieces_ = std::min<std::size_t>(grid.rows, chunks_for(threads));
    }

    std::size_t chunks() const { return grid_.steps.size() * pieces_; }

    template <class Collect>
    void scan(std::size_t chunk, Collect& collect) const {
        const std::size_t k = chunk / pieces_, piece = chunk % pieces_;
        const Index begin = part_begin(grid_.rows, pieces_, piece), end = part_begin(grid_.rows, pieces_, piece + 1);
        in_steps(begin, end, steps_per_poll / grid_.width + 1, [&](Index first, Index last) {
            for (Index row = first; row < last; ++row) scan_row(k, row, collect);
        });
    }

    template <class Collect>
    double sample(Collect& collect) const {
        const Index wanted = std::min<Index>(
            grid_.rows, static_cast<Index>(sampled_rows + sampled_row_voxels / static_cast<std::size_t>(grid_.width)));
        for (Index i = 0; i < wanted; ++i) {
            // A golden-ratio sequence over the rows: evenly spread, and in step with no period of the data.
            const double at = 0.5 + 0.6180339887498949 * static_cast<double>(i);
            const Index row = std::min<Index>(
                grid_.rows - 1, static_cast<Index>((at - static_cast<double>(static_cast<std::int64_t>(at))) *
                                                   static_cast<double>(grid_.rows)));
            for (std::size_t k = 0; k < grid_.steps.size(); ++k) scan_row(k, row, collect);
        }
        return static_cast<double>(grid_.rows) / static_cast<double>(wanted);
    }

  private:
    template <class Collect>
    void scan_row(std::size_t k, Index row, Collect& collect) const {
        const auto& step = grid_.steps[k];
        if (!step.decides) return;
        const Index z = row / grid_.height;
        const auto x = grid_.range(step, z, row - z * grid_.height);
        if (x.begin >= x.end) return;
        const Index v = row * grid_.width + x.begin;
        collect.reserve(x.end - x.begin);
        const Index edge = static_cast<Index>(k) * grid_.voxels + v;
        const Index u = v + step.distance;
        visit_.row(edge, v, u, x.end - x.begin, collect);
    }

    const Grid<Index>& grid_;
    const Visit& visit_;
    std::size_t pieces_;
};

}  // namespace malis
