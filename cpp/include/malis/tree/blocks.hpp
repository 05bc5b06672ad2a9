// A volume in blocks that fit in cache: their shape, the numbers of their voxels, and the edges that leave them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

#include "malis/graph/affinities.hpp"
#include "malis/graph/grid.hpp"
#include "malis/support/buffer.hpp"
#include "malis/tree/order.hpp"

namespace malis {

struct BlockShape {
    std::size_t depth, height, width;
};

// The share of edges that has to lie within blocks.
constexpr double least_inside = 0.75;
// As the edges of a block have numbers of 32 bits, of which 15 are for the voxel.
constexpr std::size_t most_block_offsets = std::size_t{1} << 17;

namespace detail {

// Numbers of the voxels, and of the open components, of one block.
using Local = std::uint16_t;
constexpr std::size_t block_voxels = std::size_t{1} << 15;
constexpr Local no_node = static_cast<Local>(-1);

}  // namespace detail

// Blocks of at most 2^15 voxels, as near to cubes as the volume allows: these have the fewest face edges. Rows are as
// long as they can be without that, for what goes along rows.
inline BlockShape block_shape(std::size_t depth, std::size_t height, std::size_t width) {
    const auto bits_of = [](std::size_t n) {
        unsigned bits = 0;
        while ((std::size_t{1} << bits) < n) ++bits;
        return bits;
    };
    const unsigned most[3] = {bits_of(depth), bits_of(height), bits_of(width)};
    unsigned bits[3] = {0, 0, 0};
    for (unsigned left = 15; left > 0; --left) {
        int shortest = -1;
        for (int axis = 2; axis >= 0; --axis)
            if (bits[axis] < most[axis] && (shortest < 0 || bits[axis] < bits[shortest])) shortest = axis;
        if (shortest < 0) break;
        ++bits[shortest];
    }
    return {std::size_t{1} << bits[0], std::size_t{1} << bits[1], std::size_t{1} << bits[2]};
}

// Whether blocks pay: most edges have to lie within one.
template <class Index>
bool few_face_edges(const Grid<Index>& grid, BlockShape shape) {
    if (grid.steps.size() > most_block_offsets) return false;
    double inside = 0, all = 0;
    for (const auto& step : grid.steps) {
        if (!step.decides) continue;
        const auto share = [](std::int64_t offset, std::size_t size, std::size_t block) {
            const double o = static_cast<double>(offset < 0 ? -offset : offset);
            return block >= size ? 1.0 : std::max(0.0, 1 - o / static_cast<double>(block));
        };
        inside += share(step.offset.z, grid.depth, shape.depth) * share(step.offset.y, grid.height, shape.height) *
                  share(step.offset.x, grid.width, shape.width);
        all += 1;
    }
    return inside >= least_inside * all;
}

// The shape of blocks where these pay, none where they do not.
template <class Index>
std::optional<BlockShape> blocks_that_pay(const Grid<Index>& grid) {
    const BlockShape shape = block_shape(grid.depth, grid.height, grid.width);
    if (!few_face_edges(grid, shape)) return std::nullopt;
    return shape;
}

// A volume, divided into blocks.
//
// A voxel of a block has the number row << row_bits | x, with rows counted over y and then z, so that rows of a block
// may be shorter than those that numbers have room for, and an offset is a distance between numbers.
template <class T, class Index>
class Blocks {
  public:
    using Local = detail::Local;
    struct Block {
        Index z, y, x;  // its first voxel
        Index depth, height, width;
        std::size_t voxels() const { return static_cast<std::size_t>(depth) * height * width; }
    };

    Blocks(const Grid<Index>& grid, Affinities<T> aff, BlockShape shape)
        : grid(grid),
          aff(aff),
          depth_(static_cast<Index>(std::min<std::size_t>(shape.depth, grid.depth))),
          height_(static_cast<Index>(std::min<std::size_t>(shape.height, grid.height))),
          width_(static_cast<Index>(std::min<std::size_t>(shape.width, grid.width))),
          along_z_(count(grid.depth, depth_)),
          along_y_(count(grid.height, height_)),
          along_x_(count(grid.width, width_)) {
        while ((std::size_t{1} << row_bits) < width_) ++row_bits;
    }

    std::size_t size() const { return static_cast<std::size_t>(along_z_) * along_y_ * along_x_; }
    Block operator[](std::size_t i) const {
        const Index x = static_cast<Index>(i % along_x_), rows = static_cast<Index>(i / along_x_);
        const Index y = rows % along_y_, z = rows / along_y_;
        Block b{z * depth_, y * height_, x * width_, depth_, height_, width_};
        b.depth = std::min<Index>(b.depth, grid.depth - b.z);
        b.height = std::min<Index>(b.height, grid.height - b.y);
        b.width = std::min<Index>(b.width, grid.width - b.x);
        return b;
    }
    // How many numbers the voxels of a block may have: some numbers have no voxel.
    std::size_t numbers(const Block& b) const { return static_cast<std::size_t>(b.depth * b.height) << row_bits; }

    std::size_t block_of(Index z, Index y, Index x) const {
        return (static_cast<std::size_t>(z / depth_) * along_y_ + y / height_) * along_x_ + x / width_;
    }
    // The number of a voxel in its block.
    Local number(Index z, Index y, Index x) const {
        const Index first_y = y / height_ * height_;
        const Index height = std::min<Index>(height_, grid.height - first_y);
        return static_cast<Local>(((z % depth_ * height + (y - first_y)) << row_bits) | (x % width_));
    }

    // Calls f(row, z, y) for every row of a block: its number and where it lies in the volume.
    template <class F>
    static void each_row(const Block& b, F&& f) {
        Index row = 0;
        for (Index z = b.z; z < b.z + b.depth; ++z)
            for (Index y = b.y; y < b.y + b.height; ++y) f(row++, z, y);
    }

    // Calls f(v, edge, z, y, x) for every edge of offset k that leaves the block: the number of its voxel inside and where
    // the other lies. Either the edges that voxels inside own, or with `incoming` those of voxels outside.
    template <class F>
    void each_face_edge(const Block& b, std::size_t k, bool incoming, F&& f) const {
        const auto& step = grid.steps[k];
        if (!step.decides) return;
        const std::int64_t sign = incoming ? -1 : 1;
        const std::int64_t dz = sign * step.offset.z, dy = sign * step.offset.y, dx = sign * step.offset.x;
        const Index channel = static_cast<Index>(k) * grid.voxels;
        each_row(b, [&](Index row, Index z, Index y) {
            const std::int64_t oz = static_cast<std::int64_t>(z) + dz, oy = static_cast<std::int64_t>(y) + dy;
            if (oz < 0 || oy < 0 || oz >= static_cast<std::int64_t>(grid.depth) ||
                oy >= static_cast<std::int64_t>(grid.height))
                return;
            const auto within = [](std::int64_t at, Index begin, Index size) {
                const auto from = static_cast<std::int64_t>(begin), count = static_cast<std::int64_t>(size);
                return at >= from && at < from + count;
            };
            const bool inside = within(oz, b.z, b.depth) && within(oy, b.y, b.height);
            const std::int64_t first = b.x, last = static_cast<std::int64_t>(b.x) + b.width;
            const auto stretch = [&](std::int64_t from, std::int64_t to) {  // x of the voxels inside
                from = std::max<std::int64_t>({from, first, -dx});
                to = std::min<std::int64_t>({to, last, static_cast<std::int64_t>(grid.width) - dx});
                for (std::int64_t x = from; x < to; ++x) {
                    const Index v = (z * grid.height + y) * grid.width + static_cast<Index>(x);
                    const Index edge = channel + (incoming ? v - step.distance : v);
                    f(static_cast<Local>((row << row_bits) | static_cast<Index>(x - first)), edge,
                      static_cast<Index>(oz), static_cast<Index>(oy), static_cast<Index>(x + dx));
                }
            };
            if (!inside) {
                stretch(first, last);
            } else {
                stretch(first, std::min(last, first - dx));
                stretch(std::max(first, last - dx), last);
            }
        });
    }

    // The rank of the first edge that leaves the block from each voxel, by number; `never` where there is none.
    void find_first_face_edges(const Block& b, Buffer<Rank<T>>& first) const {
        first.reset(numbers(b));
        std::fill(first.begin(), first.end(), never);
        for (std::size_t k = 0; k < grid.steps.size(); ++k) {
            for (const bool incoming : {false, true}) {
                each_face_edge(b, k, incoming, [&](Local v, Index edge, Index, Index, Index) {
                    // Before `never` whatever is read, or there would be no node for it.
                    first[v] = std::min({first[v], to_rank(aff[edge]), never - 1});
                });
            }
        }
    }

    static constexpr Rank<T> never = std::numeric_limits<Rank<T>>::max();  // later than any affinity

    const Grid<Index>& grid;
    const Affinities<T> aff;
    unsigned row_bits = 0;

  private:
    static Index count(Index size, Index block) { return (size + block - 1) / block; }
    Index depth_, height_, width_;
    Index along_z_, along_y_, along_x_;
};

}  // namespace malis
