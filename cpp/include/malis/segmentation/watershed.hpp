// The maximin watershed of affinity graphs, from seeds and without.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/every_edge.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/select.hpp"
#include "malis/segmentation/block_watershed.hpp"
#include "malis/segmentation/components.hpp"
#include "malis/segmentation/parents.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

namespace detail {

// Gives every node the seed that it is joined to: edges are taken in order, and one that joins a component without a seed
// to another gives it the seed of that one; two seeds are never joined. `seed` enters with every seed's own number at
// the seeds and `no_seed` elsewhere. Edges of a rank above `last` do not exist.
template <class T, class Index, class Graph>
void flood_in_one_go(const Graph& graph, Affinities<T> aff, Rank<T> last, Buffer<Index>& seed, int threads) {
    const std::size_t nodes = seed.size();
    constexpr Index none = no_seed<Index>;
    threads = threads_for(nodes, threads);
    // All seeds are one node here, so that whatever leads to a second seed is dropped as a cycle...
    UnionFind<Index> sets;
    sets.reset(nodes, threads);
    Index first = none;
    in_steps(nodes, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) {
            if (seed[v] == none) continue;
            if (first == none) first = static_cast<Index>(v);
            else sets.unite(first, static_cast<Index>(v));
        }
    });
    if (first == none) return;
    // ... and here they are not: this tells which of them it was.
    UnionFind<Index> basins;
    basins.reset(nodes, threads);
    KruskalScratch<T, Index> scratch;
    const EveryEdge<T> visit{aff};
    kruskal<T, Index>(every_edge<T, Index>(graph, visit, threads), sets, scratch, threads,
                      [&](const Record<T, Index>& r, Index root_a, Index root_b) {
                          if (r.rank > last) return false;
                          sets.link(root_a, root_b);
                          const Index a = basins.find(r.a), b = basins.find(r.b);
                          const Index of_both = seed[a] != none ? seed[a] : seed[b];
                          seed[basins.link(a, b)] = of_both;
                          return true;
                      });
    in_steps(nodes, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) seed[v] = seed[basins.find(static_cast<Index>(v))];
    });
}

template <class T, class Index>
void flood_from_seeds(const EdgeList<Index>& list, Affinities<T> aff, Rank<T> last, Buffer<Index>& seed, int threads) {
    flood_in_one_go<T, Index>(list, aff, last, seed, threads);
}
template <class T, class Index>
void flood_from_seeds(const Grid<Index>& grid, Affinities<T> aff, Rank<T> last, Buffer<Index>& seed, int threads) {
    const auto blocks = blocks_that_pay(grid);
    if (blocks) block_watershed<T, Index>(grid, aff, *blocks, last, seed.data(), threads);
    else flood_in_one_go<T, Index>(grid, aff, last, seed, threads);
}

constexpr std::size_t nodes_of_seed_range = std::size_t{1} << 16;

template <class Index, class Label>
Buffer<Index> find_seeds(const Label* seg, std::size_t nodes, int threads) {
    Buffer<Index> seed(nodes);
    parallel_ranges(nodes, nodes_of_seed_range, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) seed[v] = seg[v] != 0 ? static_cast<Index>(v) : no_seed<Index>;
    });
    return seed;
}

// In place: a seed keeps its label, and is not written while others read it.
template <class Index, class Label>
void label_from_seeds(const Buffer<Index>& seed, Label* seg, int threads) {
    parallel_ranges(seed.size(), nodes_of_seed_range, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v)
            if (seed[v] != static_cast<Index>(v)) seg[v] = seed[v] != no_seed<Index> ? seg[seed[v]] : Label(0);
    });
}

}  // namespace detail

// The seeded maximin watershed along edges of at least `threshold`. seg enters with the seeds (0: none), and leaves with the
// label of the seed that each node is joined to first in the order of edges, or 0 where none is.
template <class T, class Index, class Graph, class Label>
void watershed(const Graph& graph, Affinities<T> aff, T threshold, std::size_t nodes, Label* seg, int threads) {
    // Whether a label is 0, and copies of labels, do not depend on the sign: this is compiled once for both.
    auto* const bits = reinterpret_cast<std::make_unsigned_t<Label>*>(seg);
    Buffer<Index> seed = detail::find_seeds<Index>(bits, nodes, threads);
    detail::flood_from_seeds(graph, aff, to_rank(threshold), seed, threads);
    detail::label_from_seeds(seed, bits, threads);
}

namespace detail {

// The strongest edge of every voxel, the first of equals: its affinity, and the voxel it leads to (the voxel itself where
// it has no edge of at least `threshold`).
template <class T, class Index>
void strongest_edges(const Grid<Index>& grid, Affinities<T> aff, T threshold, T* strongest, Index* target,
                     int threads) {
    parallel_ranges(
        grid.rows, (std::size_t{1} << 15) / grid.width + 1, threads, [&](std::size_t begin, std::size_t end) {
            for (Index row = static_cast<Index>(begin); row < static_cast<Index>(end); ++row) {
                const Index z = row / grid.height, y = row - z * grid.height;
                for (Index v = row * grid.width; v < (row + 1) * grid.width; ++v) {
                    strongest[v] = threshold;
                    target[v] = v;
                }
                for (std::size_t k = 0; k < grid.steps.size(); ++k) {
                    const auto& step = grid.steps[k];
                    if (!step.decides) continue;
                    const Offset back_offset{-step.offset.z, -step.offset.y, -step.offset.x};
                    const Index back_distance = static_cast<Index>(Index{0} - step.distance);
                    const typename Grid<Index>::Step back{back_offset, back_distance, true};
                    // Of the two edges of one offset at a voxel, that of the lower voxel has the lower index.
                    const auto take = [&](const typename Grid<Index>::Step& to, bool own) {
                        const auto x = grid.range(to, z, y);
                        if (x.begin >= x.end) return;
                        const Index first = row * grid.width + x.begin;
                        const Index edge = static_cast<Index>(k) * grid.voxels + first + (own ? 0 : to.distance);
                        aff.each_piece(edge, x.end - x.begin, [&](const T* affinities, Index begin, Index n) {
                            for (Index i = 0; i < n; ++i) {
                                const Index v = first + begin + i;
                                const T a = affinities[i];
                                const bool better = (a >= threshold) & ((target[v] == v) | (a > strongest[v]));
                                strongest[v] = better ? a : strongest[v];
                                target[v] = better ? v + to.distance : target[v];
                            }
                        });
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
    Affinities<T> aff;
    const T* strongest;
    const Index* component;
    T threshold;

    template <class Collect>
    void row(Index first, Index v, Index u, Index count, Collect& collect) const {
        aff.each_piece(first, count, [&](const T* affinities, Index begin, Index n) {
            for (Index i = 0; i < n; ++i, ++v, ++u) {
                const T a = affinities[i];
                if (((a == strongest[v]) | (a == strongest[u])) & (component[v] != component[u]) & (a >= threshold) &&
                    passes<Collect::strength>(a, collect.threshold))
                    collect(a, static_cast<Index>(first + begin + i), component[v], component[u]);
            }
        });
    }
};

// Follows the strongest edges: turns `component`, which enters with the target of every voxel, into the number of the
// component that these join it to, by first voxel. Returns the strongest affinity of an edge that leads on from each
// component, as a rank, or that of no edge.
template <class T, class Index>
Buffer<Rank<T>> follow_strongest(const Buffer<T>& strongest, Buffer<Index>& component, Buffer<Index>& parents) {
    const std::size_t n = component.size();
    std::iota(parents.begin(), parents.end(), Index{0});
    in_steps(n, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) join_lowest(parents.data(), static_cast<Index>(v), component[v]);
    });
    Buffer<Rank<T>> level;
    in_steps(n, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) {
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
    });
    return level;
}

// The basins of the affinity graph, as parents.
//
// A component of edges of one affinity that no stronger edge touches is a regional maximum, the seed of a basin; all
// other voxels follow as in the seeded watershed. Seeds need not be found for that. Every voxel joins where its
// strongest edge leads, as it does in the watershed. If no two affinities are equal that is all. Otherwise a component
// may be a part of a plateau: then its strongest affinity is also that of an edge that leads on, to the rest of the
// plateau or to higher ground, and it follows the first of these, until its strongest affinity is that of no edge that
// leaves it.
template <class T, class Index>
Buffer<Index> basins(const Grid<Index>& grid, Affinities<T> aff, T threshold, int threads) {
    const std::size_t n = grid.voxels;
    threads = threads_for(n, threads);
    Buffer<T> strongest(n);
    Buffer<Index> parents(n);
    Buffer<Index> component(n);
    strongest_edges(grid, aff, threshold, strongest.data(), component.data(), threads);
    Buffer<Rank<T>> level = follow_strongest(strongest, component, parents);
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
    in_steps(n, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const std::size_t v = n - 1 - i;
            voxel[component[v]] = static_cast<Index>(v);
        }
    });
    in_steps(n, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) parents[v] = voxel[first[component[v]]];
    });
    return parents;
}

}  // namespace detail

// The unseeded maximin watershed: one basin for each regional maximum of the edges of at least `threshold`. seg holds
// 1.. by decreasing size afterwards.
template <class T, class Index, class Label>
std::vector<std::int64_t> watershed_basins(const Grid<Index>& grid, Affinities<T> aff, T threshold,
                                           std::int64_t size_thresh, Label* seg, int threads) {
    Buffer<Index> parents = detail::basins<T, Index>(grid, aff, threshold, threads);
    return number_components<Index, Label>(parents.data(), grid.voxels, size_thresh, seg, threads);
}

}  // namespace malis
