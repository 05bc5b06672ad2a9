// Segmentations from affinity graphs: connected components and the maximin watershed, seeded and unseeded.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "malis/buffer.hpp"
#include "malis/edge_list.hpp"
#include "malis/grid.hpp"
#include "malis/kruskal.hpp"
#include "malis/order.hpp"
#include "malis/parallel.hpp"
#include "malis/segmentation/block_watershed.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/union_find.hpp"

namespace malis {


// Numbers the components whose parents are given by decreasing size (equal sizes: by their first voxel), those of at
// most size_thresh voxels 0. Returns the number of voxels of every number, 0 included. parent is overwritten.
template <class Index, class Label>
std::vector<std::int64_t> number_components(Index* parent, std::size_t n, std::int64_t size_thresh, Label* seg,
                                            int threads) {
    // Sweeps parents to component numbers in the order of their first voxel, in place: a root is met before its nodes.
    std::vector<std::int64_t> size;
    for (std::size_t v = 0; v < n; ++v) {
        if (parent[v] == static_cast<Index>(v)) {
            parent[v] = static_cast<Index>(size.size());
            size.push_back(1);
        } else {
            parent[v] = parent[parent[v]];
            ++size[parent[v]];
        }
    }
    std::vector<Index> order;
    std::int64_t background = 0;
    for (std::size_t c = 0; c < size.size(); ++c) {
        if (size[c] > size_thresh) order.push_back(static_cast<Index>(c));
        else background += size[c];
    }
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return size[a] > size[b]; });
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
    const std::size_t slabs =
        threads > 1 && grid.voxels > 65536 ? std::min<std::size_t>(grid.rows, static_cast<std::size_t>(threads)) : 1;
    const auto slab_row = [&](std::size_t s) {
        return static_cast<Index>(static_cast<std::uint64_t>(grid.rows) * s / slabs);
    };
    const auto join_row = [&](std::size_t k, Index row) {
        const auto& step = grid.steps[k];
        const Index z = row / grid.height;
        const auto x = grid.range(step, z, row - z * grid.height);
        if (x.begin >= x.end) return;
        const Index v = row * grid.width + x.begin;
        const T* a = aff + static_cast<std::size_t>(k) * grid.voxels + v;
        for (Index i = 0; i < x.end - x.begin; ++i) {
            if (connects(a[i])) detail::join_lowest(parent, static_cast<Index>(v + i),
                                                    static_cast<Index>(v + i + step.distance));
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

// The parents of all nodes from their sets, whose roots are any of their nodes.
template <class Index>
Buffer<Index> parents_of(UnionFind<Index>& sets, int threads) {
    const std::size_t n = sets.nodes();
    const Index* root = sets.roots(threads);
    constexpr Index none = static_cast<Index>(-1);
    Buffer<Index> parents(n), first(n);
    std::fill(first.begin(), first.end(), none);
    for (std::size_t v = 0; v < n; ++v) {
        Index& lowest = first[root[v]];
        if (lowest == none) lowest = static_cast<Index>(v);
        parents[v] = lowest;
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
    for (std::size_t i = 0; i < list.nodes; ++i) parent[i] = static_cast<Index>(i);
    list.each(0, list.edges, [&](Index edge, Index a, Index b) {
        if (connected[edge]) detail::join_lowest(parent, a, b);
    });
    Label next = 0;
    for (std::size_t i = 0; i < list.nodes; ++i)
        seg[i] = parent[i] == static_cast<Index>(i) ? ++next : seg[detail::lowest_root(parent, static_cast<Index>(i))];
}

namespace detail {

template <class T>
struct EveryEdge {
    const T* aff;
    template <class Index, class Collect>
    void edge(Index edge, Index a, Index b, Collect& collect) const {
        if (passes<Collect::strength>(aff[edge], collect.threshold)) collect(aff[edge], edge, a, b);
    }
    template <class Index, class Collect>
    void row(Index first, Index v, Index u, Index count, Collect& collect) const {
        for (Index i = 0; i < count; ++i) edge(first + i, static_cast<Index>(v + i), static_cast<Index>(u + i), collect);
    }
};

template <class T, class Index>
GridScan<T, Index, EveryEdge<T>> every_edge(const Grid<Index>& grid, const EveryEdge<T>& visit, int threads) {
    return {grid, visit, threads};
}
template <class T, class Index>
EdgeListScan<T, Index, EveryEdge<T>> every_edge(const EdgeList<Index>& list, const EveryEdge<T>& visit,
                                                   int threads) {
    return {list, visit, threads};
}

}  // namespace detail

namespace detail {

// Gives every node the seed that it is joined to: edges are taken in order, and one that joins a component without a seed
// to another gives it the seed of that one; two seeds are never joined. `seed` enters with every seed's own number at
// the seeds and `no_seed` elsewhere.
template <class T, class Index, class Graph>
void flood_in_one_go(const Graph& graph, const T* aff, Buffer<Index>& seed, int threads) {
    const std::size_t nodes = seed.size();
    constexpr Index none = no_seed<Index>;
    if (nodes < (std::size_t{1} << 15)) threads = 1;
    // All seeds are one node here, so that whatever leads to a second seed is dropped as a cycle...
    UnionFind<Index> sets;
    sets.reset(nodes, threads);
    Index first = none;
    for (std::size_t v = 0; v < nodes; ++v) {
        if (seed[v] == none) continue;
        if (first == none) first = static_cast<Index>(v);
        else sets.unite(first, static_cast<Index>(v));
    }
    if (first == none) return;
    // ... and here they are not: this tells which of them it was.
    UnionFind<Index> basins;
    basins.reset(nodes, threads);
    KruskalScratch<T, Index> scratch;
    const EveryEdge<T> visit{aff};
    kruskal<T, Index>(every_edge<T, Index>(graph, visit, threads), sets, scratch, threads,
                      [&](const Record<T, Index>& r, Index root_a, Index root_b) {
                          sets.link(root_a, root_b);
                          const Index a = basins.find(r.a), b = basins.find(r.b);
                          const Index of_both = seed[a] != none ? seed[a] : seed[b];
                          seed[basins.link(a, b)] = of_both;
                          return true;
                      });
    for (std::size_t v = 0; v < nodes; ++v) seed[v] = seed[basins.find(static_cast<Index>(v))];
}

template <class T, class Index>
void flood_from_seeds(const EdgeList<Index>& list, const T* aff, Buffer<Index>& seed, int threads) {
    flood_in_one_go<T, Index>(list, aff, seed, threads);
}
template <class T, class Index>
void flood_from_seeds(const Grid<Index>& grid, const T* aff, Buffer<Index>& seed, int threads) {
    if (const auto blocks = blocks_that_pay(grid)) block_watershed<T, Index>(grid, aff, *blocks, seed.data(), threads);
    else flood_in_one_go<T, Index>(grid, aff, seed, threads);
}

}  // namespace detail

// The seeded maximin watershed. seg enters with the seeds (0: none), and leaves with the label of the seed that each node
// is joined to first in the order of edges, or 0 where none is.
template <class T, class Index, class Graph, class Label>
void watershed(const Graph& graph, const T* aff, std::size_t nodes, Label* seg, int threads) {
    constexpr std::size_t grain = std::size_t{1} << 16;
    Buffer<Index> seed(nodes);
    parallel_ranges(nodes, grain, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v)
            seed[v] = seg[v] != Label(0) ? static_cast<Index>(v) : detail::no_seed<Index>;
    });
    detail::flood_from_seeds(graph, aff, seed, threads);
    // In place: a seed keeps its label, and is not written while others read it.
    parallel_ranges(nodes, grain, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v)
            if (seed[v] != static_cast<Index>(v)) seg[v] = seed[v] != detail::no_seed<Index> ? seg[seed[v]] : Label(0);
    });
}

namespace detail {

// Joins small components along their edges: in the order of edges, every edge that joins two components of which at
// least one has at most size_thresh nodes.
template <class T, class Index>
void merge_small(const Grid<Index>& grid, const T* aff, Buffer<Index>& parents, std::int64_t size_thresh, int threads) {
    if (grid.voxels < (std::size_t{1} << 15)) threads = 1;
    UnionFind<Index> segments, sets;
    segments.reset(grid.voxels, threads);
    sets.reset(grid.voxels, threads);
    for (std::size_t v = 0; v < grid.voxels; ++v) segments.unite(static_cast<Index>(v), parents[v]);
    // Edges between two large components join nothing, now or later. In `sets` all of them are one, so that Kruskal's
    // algorithm drops these edges as cycles.
    constexpr Index none = static_cast<Index>(-1);
    Index large = none;
    const auto is_large = [&](Index root) { return static_cast<std::int64_t>(segments.size(root)) > size_thresh; };
    const auto add_large = [&](Index node) {
        if (large == none) large = node;
        else sets.unite(large, node);
    };
    for (std::size_t v = 0; v < grid.voxels; ++v) {
        const Index node = static_cast<Index>(v);
        if (is_large(segments.find(node))) add_large(node);
        else sets.unite(node, parents[v]);
    }
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

// The strongest edge of every voxel, the first of equals: its affinity, and the voxel it leads to (the voxel itself where
// it has no edge of at least `threshold`).
template <class T, class Index>
void strongest_edges(const Grid<Index>& grid, const T* aff, T threshold, T* strongest, Index* target, int threads) {
    parallel_ranges(grid.rows, (std::size_t{1} << 15) / grid.width + 1, threads, [&](std::size_t begin, std::size_t end) {
        for (Index row = static_cast<Index>(begin); row < static_cast<Index>(end); ++row) {
            const Index z = row / grid.height, y = row - z * grid.height;
            for (Index v = row * grid.width; v < (row + 1) * grid.width; ++v) target[v] = v;
            for (std::size_t k = 0; k < grid.steps.size(); ++k) {
                const auto& step = grid.steps[k];
                if (!step.decides) continue;
                const Offset back_offset{-step.offset.z, -step.offset.y, -step.offset.x};
                const Index back_distance = static_cast<Index>(Index{0} - step.distance);
                const typename Grid<Index>::Step back{back_offset, back_distance, true};
                // Of the two edges of one offset at a voxel, that of the lower voxel has the lower index.
                const auto take = [&](const typename Grid<Index>::Step& to, bool own) {
                    const auto x = grid.range(to, z, y);
                    for (Index v = row * grid.width + x.begin; v < row * grid.width + x.end; ++v) {
                        const Index u = v + to.distance;
                        const T a = aff[static_cast<std::size_t>(k) * grid.voxels + (own ? v : u)];
                        const bool better = (a >= threshold) & ((target[v] == v) | (a > strongest[v]));
                        strongest[v] = better ? a : strongest[v];
                        target[v] = better ? u : target[v];
                    }
                };
                const bool own_first = back_distance < step.distance;  // the offset leads back
                take(own_first ? step : back, own_first);
                take(own_first ? back : step, !own_first);
            }
        }
    });
}

// Edges as strong as the strongest of one of their ends, between different components.
template <class T, class Index>
struct SteepestEdges {
    const T* aff;
    const T* strongest;
    const Index* component;
    T threshold;

    template <class Collect>
    void row(Index first, Index v, Index u, Index count, Collect& collect) const {
        for (Index i = 0; i < count; ++i, ++v, ++u) {
            const T a = aff[first + i];
            if (((a == strongest[v]) | (a == strongest[u])) & (component[v] != component[u]) & (a >= threshold) &&
                passes<Collect::strength>(a, collect.threshold))
                collect(a, static_cast<Index>(first + i), component[v], component[u]);
        }
    }
};

// The basins of the affinity graph, as parents.
//
// A component of edges of one affinity that no stronger edge touches is a regional maximum, the seed of a basin; all
// other voxels follow as in the seeded watershed. Seeds need not be found for that. Every voxel joins where its
// strongest edge leads, as it does in the watershed. If no two affinities are equal that is all. Otherwise a component
// may be a part of a plateau: then its strongest affinity is also that of an edge that leads on, to the rest of the
// plateau or to higher ground, and it follows the first of these, until its strongest affinity is that of no edge that
// leaves it.
template <class T, class Index>
Buffer<Index> basins(const Grid<Index>& grid, const T* aff, T threshold, int threads) {
    const std::size_t n = grid.voxels;
    if (n < (std::size_t{1} << 15)) threads = 1;
    Buffer<T> strongest(n);
    Buffer<Index> parents(n);
    Buffer<Index> component(n);
    strongest_edges(grid, aff, threshold, strongest.data(), component.data(), threads);
    std::iota(parents.begin(), parents.end(), Index{0});
    for (std::size_t v = 0; v < n; ++v) join_lowest(parents.data(), static_cast<Index>(v), component[v]);
    Buffer<Rank<T>> level;  // of every component: its strongest affinity, or that of no edge
    for (std::size_t v = 0; v < n; ++v) {
        const bool alone = component[v] == static_cast<Index>(v);
        const Rank<T> rank = alone ? std::numeric_limits<Rank<T>>::max() : to_rank(strongest[v]);
        if (parents[v] == static_cast<Index>(v)) {
            component[v] = static_cast<Index>(level.size());
            level.push_back(rank);
        } else {
            parents[v] = parents[parents[v]];
            component[v] = component[parents[v]];
            level[component[v]] = std::min(level[component[v]], rank);
        }
    }

    UnionFind<Index> sets, segments;
    sets.reset(level.size(), threads);
    segments.reset(level.size(), threads);
    KruskalScratch<T, Index> scratch;
    const SteepestEdges<T, Index> visit{aff, strongest.data(), component.data(), threshold};
    const GridScan<T, Index, SteepestEdges<T, Index>> source(grid, visit, threads);
    kruskal<T, Index>(source, sets, scratch, threads, [&](const Record<T, Index>& r, Index root_a, Index root_b) {
        sets.link(root_a, root_b);
        const Index a = segments.find(r.a), b = segments.find(r.b);
        if (level[a] == r.rank || level[b] == r.rank) {
            const Rank<T> joined = std::min(level[a], level[b]);
            level[segments.link(a, b)] = joined;
        }
        return true;
    });
    const Buffer<Index> first = parents_of(segments, threads);
    Buffer<Index> voxel(level.size());  // the first of every component
    for (std::size_t v = n; v-- > 0;) voxel[component[v]] = static_cast<Index>(v);
    for (std::size_t v = 0; v < n; ++v) parents[v] = voxel[first[component[v]]];
    return parents;
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
std::vector<std::int64_t> components(const Grid<Index>& grid, const T* aff, Connects connects,
                                     std::int64_t size_thresh, Label* seg, int threads, Small small = Small::drop) {
    Buffer<Index> parents = detail::join_components(grid, aff, connects, threads);
    if (small == Small::merge) detail::merge_small<T, Index>(grid, aff, parents, size_thresh, threads);
    return number_components<Index, Label>(parents.data(), grid.voxels, size_thresh, seg, threads);
}

// The unseeded maximin watershed: one basin for each regional maximum of the edges of at least `threshold`. seg holds
// 1.. by decreasing size afterwards.
template <class T, class Index, class Label>
std::vector<std::int64_t> watershed_basins(const Grid<Index>& grid, const T* aff, T threshold,
                                           std::int64_t size_thresh, Label* seg, int threads) {
    Buffer<Index> parents = detail::basins<T, Index>(grid, aff, threshold, threads);
    return number_components<Index, Label>(parents.data(), grid.voxels, size_thresh, seg, threads);
}

}  // namespace malis
