// Connected components of affinity graphs, numbered by their size, and what becomes of small ones.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/edge_list.hpp"
#include "malis/graph/every_edge.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/select.hpp"
#include "malis/segmentation/join.hpp"
#include "malis/segmentation/parents.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

namespace detail {

// Turns parents into numbers of components, in the order of their first voxels; returns how many voxels each has.
template <class Index>
std::vector<std::int64_t> sweep_parents(Index* parent, std::size_t n) {
    std::vector<std::int64_t> size;
    in_steps(n, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) {  // a root is met before the other voxels of its component
            if (parent[v] == static_cast<Index>(v)) {
                parent[v] = static_cast<Index>(size.size());
                size.push_back(1);
            } else {
                parent[v] = parent[parent[v]];
                ++size[parent[v]];
            }
        }
    });
    return size;
}

}  // namespace detail

// Numbers the components whose parents are given by decreasing size (equal sizes: by their first voxel), those of at
// most size_thresh voxels 0. Returns the number of voxels of every number, 0 included. parent is overwritten.
template <class Index, class Label>
std::vector<std::int64_t> number_components(Index* parent, std::size_t n, std::int64_t size_thresh, Label* seg,
                                            int threads) {
    const std::vector<std::int64_t> size = detail::sweep_parents(parent, n);
    std::vector<Index> order;
    std::int64_t background = 0;
    in_steps(size.size(), [&](std::size_t begin, std::size_t end) {
        for (std::size_t c = begin; c < end; ++c) {
            if (size[c] > size_thresh) order.push_back(static_cast<Index>(c));
            else background += size[c];
        }
    });
    std::stable_sort(order.begin(), order.end(), polling([&](Index a, Index b) { return size[a] > size[b]; }));
    std::vector<Label> number(size.size(), 0);
    std::vector<std::int64_t> sizes{background};
    sizes.reserve(order.size() + 1);
    for (const Index c : order) {
        number[c] = static_cast<Label>(sizes.size());
        sizes.push_back(size[c]);
    }
    parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) seg[v] = number[parent[v]];
    });
    return sizes;
}

// Which edges connect: those of at least a threshold, or, as in the older packages, those whose affinity is not about 0.
// `bits(aff, aff_end, count)` says so of up to 64 edges; affinities may be read as far as `aff_end`.
template <class T>
struct AtLeast {
    T threshold;
    std::uint64_t bits(const T* aff, const T* aff_end, std::size_t count) const {
        return detail::select_passing<detail::Strength::strong>(aff, aff_end, threshold, count);
    }
};
// Bytes are compared as they are.
template <>
struct AtLeast<std::uint8_t> {
    unsigned lowest;  // 256 where none connects
    static AtLeast value(float threshold) { return {detail::lowest_byte_of(threshold)}; }
    std::uint64_t bits(const std::uint8_t* aff, const std::uint8_t* aff_end, std::size_t count) const {
        if (lowest > 255) return 0;
        return detail::select_passing<detail::Strength::strong>(aff, aff_end, static_cast<std::uint8_t>(lowest), count);
    }
};
template <class T>
struct NotZero {
    static constexpr T about_zero = T(1e-5);  // as in the older packages
    std::uint64_t bits(const T* aff, const T*, std::size_t count) const {
        std::uint64_t bits = 0;
        for (std::size_t i = 0; i < count; ++i) bits |= static_cast<std::uint64_t>(std::fabs(aff[i]) > about_zero) << i;
        return bits;
    }
};

namespace detail {

// The parents of all voxels once the edges that connect have joined them.
template <class T, class Index, class Connects>
Buffer<Index> join_components(const Grid<Index>& grid, const T* aff, Connects connects, int threads) {
    const T* const aff_end = aff + static_cast<std::size_t>(grid.edges());
    const auto select = [&](Index edge, Index, Index, Index count) {
        return connects.bits(aff + edge, aff_end, count);
    };
    return join_voxels(grid, select, threads);
}

}  // namespace detail

// Connected components of a list of edges: seg holds the number of the component of every node, from 1, in the order of
// their first nodes.
template <class Index, class Label>
void list_components(const EdgeList<Index>& list, const bool* connected, Label* seg) {
    Buffer<Index> parents(list.nodes);
    Index* parent = parents.data();
    in_steps(list.nodes, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) parent[i] = static_cast<Index>(i);
    });
    in_steps(list.edges, [&](std::size_t begin, std::size_t end) {
        list.each(begin, end, [&](Index edge, Index a, Index b) {
            if (connected[edge]) detail::join_lowest(parent, a, b);
        });
    });
    Label next = 0;
    in_steps(list.nodes, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i)
            seg[i] =
                parent[i] == static_cast<Index>(i) ? ++next : seg[detail::lowest_root(parent, static_cast<Index>(i))];
    });
}

namespace detail {

// Joins small components along their edges: in the order of edges, every edge that joins two components of which at
// least one has at most size_thresh nodes.
template <class T, class Index>
void merge_small(const Grid<Index>& grid, Affinities<T> aff, Buffer<Index>& parents, std::int64_t size_thresh,
                 int threads) {
    threads = threads_for(grid.voxels, threads);
    UnionFind<Index> segments, sets;
    segments.reset(grid.voxels, threads);
    sets.reset(grid.voxels, threads);
    in_steps(static_cast<std::size_t>(grid.voxels), [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) segments.unite(static_cast<Index>(v), parents[v]);
    });
    // Edges between two large components join nothing, now or later. In `sets` all of them are one, so that Kruskal's
    // algorithm drops these edges as cycles.
    constexpr Index none = static_cast<Index>(-1);
    Index large = none;
    const auto is_large = [&](Index root) { return static_cast<std::int64_t>(segments.size(root)) > size_thresh; };
    const auto add_large = [&](Index node) {
        if (large == none) large = node;
        else sets.unite(large, node);
    };
    in_steps(static_cast<std::size_t>(grid.voxels), [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) {
            const Index node = static_cast<Index>(v);
            if (is_large(segments.find(node))) add_large(node);
            else sets.unite(node, parents[v]);
        }
    });
    KruskalScratch<T, Index> scratch;
    const EveryEdge<T> visit{aff};
    kruskal<T, Index>(every_edge<T, Index>(grid, visit, threads), sets, scratch, threads,
                      [&](const Record<T, Index>& r, Index root_a, Index root_b) {
                          sets.link(root_a, root_b);
                          const Index a = segments.find(r.a), b = segments.find(r.b);
                          const bool known = is_large(a) || is_large(b);
                          const Index joined = segments.link(a, b);
                          if (!known && is_large(joined)) add_large(joined);
                          return true;
                      });
    parents = parents_of(segments, threads);
}

}  // namespace detail

// What becomes of components of at most size_thresh voxels.
enum class Small { drop, merge };

// Connected components of the edges that connect. seg holds 1.. by decreasing size afterwards.
template <class T, class Index, class Label, class Connects>
std::vector<std::int64_t> components(const Grid<Index>& grid, const T* aff, Connects connects, std::int64_t size_thresh,
                                     Label* seg, int threads, Small small = Small::drop) {
    Buffer<Index> parents = detail::join_components(grid, aff, connects, threads);
    if (small == Small::merge) detail::merge_small<AffinityValue<T>, Index>(grid, aff, parents, size_thresh, threads);
    return number_components<Index, Label>(parents.data(), grid.voxels, size_thresh, seg, threads);
}

}  // namespace malis
