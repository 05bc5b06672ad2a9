// Connected components of affinity graphs, numbered by their size, and what becomes of small ones.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "malis/graph/edge_list.hpp"
#include "malis/graph/grid.hpp"
#include "malis/segmentation/every_edge.hpp"
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

namespace detail {

// The parents of all voxels once the edges that `connects(aff)` accepts have joined them.
template <class T, class Index, class Connects>
Buffer<Index> join_components(const Grid<Index>& grid, const T* aff, Connects connects, int threads) {
    Buffer<Index> parents(grid.voxels);
    Index* parent = parents.data();
    // Slabs of rows first, each with the edges that stay in it; then the edges between slabs.
    const std::size_t slabs = std::min<std::size_t>(grid.rows, slabs_for(grid.voxels, threads));
    const auto slab_row = [&](std::size_t s) { return part_begin(grid.rows, slabs, s); };
    const Index rows_per_poll = static_cast<Index>(steps_per_poll) / grid.width + 1;
    const auto join_row = [&](std::size_t k, Index row) {
        if (row % rows_per_poll == 0) poll();
        const auto& step = grid.steps[k];
        const Index z = row / grid.height;
        const auto x = grid.range(step, z, row - z * grid.height);
        if (x.begin >= x.end) return;
        const Index v = row * grid.width + x.begin;
        const T* a = aff + static_cast<std::size_t>(k) * grid.voxels + v;
        for (Index i = 0; i < x.end - x.begin; ++i) {
            if (connects(a[i]))
                detail::join_lowest(parent, static_cast<Index>(v + i), static_cast<Index>(v + i + step.distance));
        }
    };
    const auto other_row = [&](std::size_t k, Index row) {
        return static_cast<std::int64_t>(row) + grid.steps[k].offset.z * static_cast<std::int64_t>(grid.height) +
               grid.steps[k].offset.y;
    };
    parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
        const Index begin = slab_row(slab), end = slab_row(slab + 1);
        for (Index row = begin; row < end; ++row) {
            for (Index v = row * grid.width; v < (row + 1) * grid.width; ++v) parent[v] = v;
            for (std::size_t k = 0; k < grid.steps.size(); ++k) {
                // An offset forward meets rows that have no parents yet: these wait.
                const std::int64_t other = other_row(k, row);
                if (grid.steps[k].decides && other >= static_cast<std::int64_t>(begin) &&
                    other <= static_cast<std::int64_t>(row))
                    join_row(k, row);
            }
        }
        for (std::size_t k = 0; k < grid.steps.size(); ++k) {
            if (!grid.steps[k].decides) continue;
            for (Index row = begin; row < end; ++row) {
                const std::int64_t other = other_row(k, row);
                if (other > static_cast<std::int64_t>(row) && other < static_cast<std::int64_t>(end)) join_row(k, row);
            }
        }
    });
    for (std::size_t slab = 0; slabs > 1 && slab < slabs; ++slab) {
        const std::int64_t begin = slab_row(slab), end = slab_row(slab + 1);
        for (std::size_t k = 0; k < grid.steps.size(); ++k) {
            if (!grid.steps[k].decides) continue;
            for (std::int64_t row = begin; row < end; ++row) {
                const std::int64_t other = other_row(k, static_cast<Index>(row));
                if (other < begin || other >= end) join_row(k, static_cast<Index>(row));
            }
        }
    }
    return parents;
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
void merge_small(const Grid<Index>& grid, const T* aff, Buffer<Index>& parents, std::int64_t size_thresh, int threads) {
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

// Which edges connect: those of at least a threshold, or, as in the older packages, those whose affinity is not about 0.
template <class T>
struct AtLeast {
    T threshold;
    bool operator()(T affinity) const { return affinity >= threshold; }
};
template <class T>
struct NotZero {
    bool operator()(T affinity) const { return std::fabs(affinity) > T(1e-5); }
};

// What becomes of components of at most size_thresh voxels.
enum class Small { drop, merge };

// Connected components of the edges that `connects(aff)` accepts. seg holds 1.. by decreasing size afterwards.
template <class T, class Index, class Label, class Connects>
std::vector<std::int64_t> components(const Grid<Index>& grid, const T* aff, Connects connects, std::int64_t size_thresh,
                                     Label* seg, int threads, Small small = Small::drop) {
    Buffer<Index> parents = detail::join_components(grid, aff, connects, threads);
    if (small == Small::merge) detail::merge_small<T, Index>(grid, aff, parents, size_thresh, threads);
    return number_components<Index, Label>(parents.data(), grid.voxels, size_thresh, seg, threads);
}

}  // namespace malis
