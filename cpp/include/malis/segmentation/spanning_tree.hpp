// The maximum spanning tree of an affinity graph, and what can be read off it: the components at any threshold, and the
// dendrogram of single linkage.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/every_edge.hpp"
#include "malis/segmentation/components.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/read_once.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/block_spanning_tree.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

// The edges of a maximum spanning tree in the order in which they join components; of a forest where the graph is not
// connected. Node is an integer that holds the number of a node.
template <class T, class Node>
struct SpanningTree {
    Buffer<std::int64_t> edges;
    Buffer<T> affinities;
    Buffer<Node> node1, node2;
};

namespace detail {

// The edges of the tree in one go over the whole volume, where blocks do not pay.
template <class T, class Index>
Buffer<TreeEdge<T, Index>> whole_spanning_tree(const Grid<Index>& grid, Affinities<T> aff, int threads) {
    UnionFind<Index> sets;
    sets.reset(grid.voxels, threads);
    Buffer<TreeEdge<T, Index>> edges;
    edges.reserve(grid.voxels);
    KruskalScratch<T, Index> scratch;
    const EveryEdge<T> visit{aff};
    kruskal<T, Index>(every_edge<T, Index>(grid, visit, threads), sets, scratch, threads,
                      [&](const Record<T, Index>& r, Index a, Index b) {
                          sets.link(a, b);
                          edges.push_back({r.rank, r.edge});
                          return true;
                      });
    return edges;
}

template <class T, class Index>
Buffer<TreeEdge<T, Index>> spanning_tree_edges(const Grid<Index>& grid, Affinities<T> aff, int threads) {
    const auto blocks = blocks_that_pay(grid);
    return blocks ? block_spanning_tree<T, Index>(grid, aff, *blocks, threads)
                  : whole_spanning_tree<T, Index>(grid, aff, threads);
}

template <class T, class Node, class Index>
SpanningTree<T, Node> spanning_tree(const Grid<Index>& grid, Affinities<T> aff, int threads) {
    const auto edges = spanning_tree_edges<T, Index>(grid, aff, threads);
    SpanningTree<T, Node> tree;
    tree.edges.reset(edges.size());
    tree.affinities.reset(edges.size());
    tree.node1.reset(edges.size());
    tree.node2.reset(edges.size());
    parallel_ranges(edges.size(), std::size_t{1} << 15, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const Index k = edges[i].edge / grid.voxels, v = edges[i].edge - k * grid.voxels;
            tree.edges[i] = static_cast<std::int64_t>(edges[i].edge);
            tree.affinities[i] = from_rank<T>(edges[i].rank);
            tree.node1[i] = static_cast<Node>(v);
            tree.node2[i] = static_cast<Node>(static_cast<Index>(v + grid.steps[k].distance));
        }
    });
    return tree;
}

}  // namespace detail

// A tree that somebody else keeps: affinities of float or double, nodes of 32 or 64 bits. What reads it is compiled once for
// all of them, as it waits for what it looks up by node, not for these arrays.
class TreeView {
  public:
    template <class T, class Node>
    TreeView(const T* affinities, const Node* node1, const Node* node2, std::size_t size, std::size_t nodes)
        : size(size), nodes(nodes), affinities_(affinities), node1_(node1), node2_(node2) {
        static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
        static_assert(std::is_same_v<Node, std::int32_t> || std::is_same_v<Node, std::int64_t>);
        single_ = std::is_same_v<T, float>;
        narrow_ = std::is_same_v<Node, std::int32_t>;
    }

    double affinity(std::size_t e) const {
        return single_ ? static_cast<double>(static_cast<const float*>(affinities_)[e])
                       : static_cast<const double*>(affinities_)[e];
    }
    // A threshold in the precision of the affinities, as NumPy compares them: 0.7f reaches 0.7.
    double in_precision(double threshold) const {
        return single_ ? static_cast<double>(static_cast<float>(threshold)) : threshold;
    }

    // Throws std::invalid_argument for what is no tree in merge order.
    void check() const {
        if (size > 0 && size >= nodes) {
            throw std::invalid_argument("tree must have fewer edges than voxels, got " + std::to_string(size) +
                                        " edges between " + std::to_string(nodes) + " voxels");
        }
        double previous = std::numeric_limits<double>::infinity();
        in_steps(size, [&](std::size_t begin, std::size_t end) {
            for (std::size_t e = begin; e < end; ++e) {
                ends(e);
                const double here = affinity(e);
                if (!(here <= previous)) {
                    throw std::invalid_argument("tree must hold affinities that never increase, got " +
                                                std::to_string(here) + " at edge " + std::to_string(e));
                }
                previous = here;
            }
        });
    }

    // The nodes of an edge, checked, also where check() was before: the arrays may have changed since.
    std::pair<std::size_t, std::size_t> ends(std::size_t e) const {
        const std::int64_t a = node(node1_, e), b = node(node2_, e);
        if (!inside(a) || !inside(b)) {
            throw std::invalid_argument("tree must join voxels 0 to " + std::to_string(nodes - 1) + ", got " +
                                        std::to_string(a) + " and " + std::to_string(b) + " at edge " +
                                        std::to_string(e));
        }
        return {static_cast<std::size_t>(a), static_cast<std::size_t>(b)};
    }

    std::size_t size, nodes;

  private:
    std::int64_t node(const void* of, std::size_t e) const {
        return narrow_ ? read_once(static_cast<const std::int32_t*>(of) + e)
                       : read_once(static_cast<const std::int64_t*>(of) + e);
    }
    bool inside(std::int64_t node) const { return node >= 0 && static_cast<std::uint64_t>(node) < nodes; }

    const void* affinities_;
    const void* node1_;
    const void* node2_;
    bool single_, narrow_;
};

namespace detail {

// The places of thresholds, the highest first.
inline std::vector<std::size_t> from_highest(const std::vector<double>& thresholds) {
    std::vector<std::size_t> order(thresholds.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t i, std::size_t j) { return thresholds[i] > thresholds[j]; });
    return order;
}

}  // namespace detail

// The components at every threshold: segs[i] and the sizes returned are what components() makes of the whole graph and
// `aff >= thresholds[i]`.
template <class Index, class Label>
std::vector<std::vector<std::int64_t>> segment_tree(const TreeView& tree, const std::vector<double>& thresholds,
                                                    std::int64_t size_thresh, const std::vector<Label*>& segs,
                                                    int threads) {
    tree.check();
    Buffer<Index> parents(tree.nodes), swept(tree.nodes);
    std::iota(parents.begin(), parents.end(), Index{0});
    std::vector<std::vector<std::int64_t>> sizes(thresholds.size());
    std::size_t edge = 0;
    for (const std::size_t i : detail::from_highest(thresholds)) {
        const double threshold = tree.in_precision(thresholds[i]);
        for (; edge < tree.size && tree.affinity(edge) >= threshold; ++edge) {
            if (edge % steps_per_poll == 0) poll();
            const auto [a, b] = tree.ends(edge);
            detail::join_lowest(parents.data(), static_cast<Index>(a), static_cast<Index>(b));
        }
        std::copy(parents.begin(), parents.end(), swept.begin());
        sizes[i] = number_components<Index, Label>(swept.data(), tree.nodes, size_thresh, segs[i], threads);
    }
    return sizes;
}

// Of every edge, the nodes of the smaller one of the two components that it joins; `sizes` has room for tree.size.
template <class Index, class Node>
void smaller_sizes(const TreeView& tree, Node* sizes) {
    tree.check();
    UnionFind<Index> sets;
    sets.reset(tree.nodes);
    in_steps(tree.size, [&](std::size_t begin, std::size_t end) {
        for (std::size_t e = begin; e < end; ++e) {
            const auto [x, y] = tree.ends(e);
            const Index a = sets.find(static_cast<Index>(x)), b = sets.find(static_cast<Index>(y));
            if (a == b) throw std::invalid_argument("tree must not hold a cycle");
            sizes[e] = static_cast<Node>(std::min(sets.size(a), sets.size(b)));
            sets.link(a, b);
        }
    });
}

// The dendrogram in the format of scipy.cluster.hierarchy: row i joins clusters rows[4 i] < rows[4 i + 1] into cluster
// nodes + i, which has rows[4 i + 3] nodes, at distance rows[4 i + 2] = highest - affinity. Trees of a forest are joined
// at infinity in the order of their first nodes. `rows` has room for nodes - 1 of them.
template <class Index>
void linkage(const TreeView& tree, double highest, double* rows) {
    tree.check();
    UnionFind<Index> sets;
    sets.reset(tree.nodes);
    Buffer<double> cluster(tree.nodes);
    std::iota(cluster.begin(), cluster.end(), 0.0);
    double next = static_cast<double>(tree.nodes);
    const auto join = [&](Index x, Index y, double distance) {
        const Index a = sets.find(x), b = sets.find(y);
        if (a == b) throw std::invalid_argument("tree must not hold a cycle");
        const auto clusters = std::minmax(cluster[a], cluster[b]);
        rows[0] = clusters.first;
        rows[1] = clusters.second;
        rows[2] = distance;
        const Index root = sets.link(a, b);
        rows[3] = static_cast<double>(sets.size(root));
        cluster[root] = next++;
        rows += 4;
    };
    in_steps(tree.size, [&](std::size_t begin, std::size_t end) {
        for (std::size_t e = begin; e < end; ++e) {
            const auto [a, b] = tree.ends(e);
            join(static_cast<Index>(a), static_cast<Index>(b), highest - tree.affinity(e));
        }
    });
    for (std::size_t v = 1; sets.sets() > 1; ++v) {
        if (v % steps_per_poll == 0) poll();
        if (sets.find(static_cast<Index>(v)) != sets.find(Index{0}))
            join(Index{0}, static_cast<Index>(v), std::numeric_limits<double>::infinity());
    }
}

}  // namespace malis
