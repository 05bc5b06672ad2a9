// Lists of nodes that are those of a volume, as nodelist_like() makes them: for each offset every voxel, and the voxel
// that the offset leads to or a number that is no node.
//
// A volume is guessed from a few entries of the lists and then compared with every one of them. What is not equal in all
// of them is no volume, and a guess that is equal has the same edges in the same order, so nothing else could be meant.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "malis/graph/grid.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/read_once.hpp"

namespace malis {

struct GridOfLists {
    std::array<std::size_t, 3> shape;
    std::vector<Offset> nhood;
};

namespace detail {

template <class Node>
class NodeLists {
  public:
    NodeLists(const Node* node1, const Node* node2, std::size_t edges, std::size_t nodes)
        : node1_(node1), node2_(node2), nodes_(nodes), offsets_(nodes == 0 ? 0 : edges / nodes) {}

    std::optional<GridOfLists> recognise(int threads) {
        // The distances of nearest neighbours are the lengths of rows and slices. Other offsets take a longer look.
        std::vector<std::size_t> lengths{nodes_};
        for (std::size_t k = 0; k < offsets_; ++k) {
            first_.push_back(first_edge(k));
            if (const auto& edge = first_.back())
                lengths.push_back(static_cast<std::size_t>(edge->a < edge->b ? edge->b - edge->a : edge->a - edge->b));
        }
        if (auto grid = with_lengths(lengths, threads)) return grid;
        for (std::size_t k = 0; k < offsets_; ++k)
            if (first_[k]) add_periods(k, first_[k]->v, lengths);
        return with_lengths(lengths, threads);
    }

  private:
    static constexpr int most_guesses = 64;

    // The first edge of an offset: its place among those of the offset, and its ends.
    struct First {
        std::size_t v;
        std::uint64_t a, b;
    };

    bool exists(std::size_t e) const { return node1_[e] < nodes_ && node2_[e] < nodes_ && node1_[e] != node2_[e]; }

    std::optional<First> first_edge(std::size_t k) const {
        for (std::size_t v = 0; v < nodes_; ++v) {
            if (v % steps_per_poll == 0) poll();
            const std::uint64_t a = read_once(node1_ + k * nodes_ + v), b = read_once(node2_ + k * nodes_ + v);
            if (a < nodes_ && b < nodes_ && a != b) return First{v, a, b};
        }
        return std::nullopt;
    }

    // Edges are missing at one end of the axes that an offset leads along: they begin again with each row, or slice.
    void add_periods(std::size_t k, std::size_t first, std::vector<std::size_t>& lengths) const {
        std::size_t period = 0, last = first;
        for (std::size_t v = first + 1; v < nodes_; ++v) {
            if (v % steps_per_poll == 0) poll();
            if (!exists(k * nodes_ + v) || exists(k * nodes_ + v - 1)) continue;
            if (period == 0) {
                lengths.push_back(period = v - first);
            } else if (v - last != period) {
                lengths.push_back(v - first);
                return;
            }
            last = v;
        }
    }

    std::optional<GridOfLists> with_lengths(std::vector<std::size_t> lengths, int threads) const {
        std::sort(lengths.begin(), lengths.end());
        lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
        int guesses = 0;
        for (const std::size_t row : lengths) {
            for (const std::size_t slice : lengths) {
                if (row == 0 || slice % row != 0 || nodes_ % slice != 0 || ++guesses > most_guesses) continue;
                GridOfLists grid = guess({nodes_ / slice, slice / row, row});
                if (equal(grid, threads)) return grid;
            }
        }
        return std::nullopt;
    }

    // With a shape, the ends of one edge tell the offset.
    GridOfLists guess(const std::array<std::size_t, 3>& shape) const {
        GridOfLists grid{shape, {}};
        const auto at = [&](std::size_t v, int axis) {
            const std::size_t x = axis == 0   ? v / shape[2] / shape[1]
                                  : axis == 1 ? v / shape[2] % shape[1]
                                              : v % shape[2];
            return static_cast<std::int64_t>(x);
        };
        for (const auto& edge : first_) {
            // Without an edge, an offset that joins nothing.
            const std::size_t from = edge ? static_cast<std::size_t>(edge->a) : 0;
            const std::size_t to = edge ? static_cast<std::size_t>(edge->b) : 0;
            grid.nhood.push_back({at(to, 0) - at(from, 0), at(to, 1) - at(from, 1), at(to, 2) - at(from, 2)});
        }
        return grid;
    }

    // All offsets of a row, then the next row: a wrong guess shows early at one of them.
    bool equal(const GridOfLists& grid, int threads) const {
        const auto [depth, height, width] = grid.shape;
        const std::size_t rows = depth * height;
        std::atomic<bool> all{true};
        parallel_ranges(
            rows * offsets_, (std::size_t{1} << 15) / width + 1, threads,
            [&, width = width, height = height, depth = depth](std::size_t begin, std::size_t end) {
                for (std::size_t r = begin; r < end && all.load(std::memory_order_relaxed); ++r) {
                    const std::size_t k = r % offsets_, row = r / offsets_;
                    const Offset& o = grid.nhood[k];
                    const std::int64_t z = static_cast<std::int64_t>(row / height) + o.z,
                                       y = static_cast<std::int64_t>(row % height) + o.y,
                                       w = static_cast<std::int64_t>(width);
                    const bool decides = o.z != 0 || o.y != 0 || o.x != 0;
                    const bool inside = decides && z >= 0 && z < static_cast<std::int64_t>(depth) && y >= 0 &&
                                        y < static_cast<std::int64_t>(height);
                    const std::size_t from =
                        inside ? static_cast<std::size_t>(std::clamp<std::int64_t>(-o.x, 0, w)) : 0;
                    const std::size_t to =
                        inside ? std::max(from, static_cast<std::size_t>(std::clamp<std::int64_t>(w - o.x, 0, w))) : 0;
                    const std::uint64_t v = row * width;
                    const std::uint64_t u =
                        static_cast<std::uint64_t>((z * static_cast<std::int64_t>(height) + y) * w + o.x);
                    const Node* const a = node1_ + k * nodes_ + v;
                    const Node* const b = node2_ + k * nodes_ + v;
                    bool wrong = false;
                    for (std::size_t x = 0; x < from; ++x) wrong |= exists(k * nodes_ + v + x);
                    for (std::size_t x = to; x < width; ++x) wrong |= exists(k * nodes_ + v + x);
                    Node difference = 0;  // in any bit: what compilers make vectors of
                    for (std::size_t x = from; x < to; ++x)
                        difference |= (a[x] ^ static_cast<Node>(v + x)) | (b[x] ^ static_cast<Node>(u + x));
                    wrong |= difference != 0;
                    if (wrong) all.store(false, std::memory_order_relaxed);
                }
            });
        return all.load();
    }

    const Node* node1_;
    const Node* node2_;
    std::size_t nodes_, offsets_;
    std::vector<std::optional<First>> first_;  // per offset
};

}  // namespace detail

// The volume of which these are the lists of nodes, edge by edge; none where there is no such grid.
template <class Node>
std::optional<GridOfLists> recognise_grid(const Node* node1, const Node* node2, std::size_t edges, std::size_t nodes,
                                          int threads) {
    constexpr std::size_t most_offsets = 1024;
    if (nodes == 0 || edges == 0 || edges % nodes != 0 || edges / nodes > most_offsets) return std::nullopt;
    return detail::NodeLists<Node>(node1, node2, edges, nodes).recognise(threads);
}

}  // namespace malis
