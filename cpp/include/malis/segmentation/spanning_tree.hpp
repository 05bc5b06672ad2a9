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
#include <utility>
#include <vector>

#include "malis/segmentation/components.hpp"
#include "malis/segmentation/every_edge.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/read_once.hpp"
#include "malis/support/split.hpp"
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

template <class T, class Index, class Graph>
SpanningTree<T, Index> spanning_tree(const Graph& graph, const T* aff, std::size_t nodes, int threads) {
    threads = threads_for(nodes, threads);
    UnionFind<Index> sets;
    sets.reset(nodes, threads);
    SpanningTree<T, Index> tree;
    tree.edges.reset(nodes);
    tree.affinities.reset(nodes);
    tree.node1.reset(nodes);
    tree.node2.reset(nodes);
    std::size_t size = 0;
    KruskalScratch<T, Index> scratch;
    const EveryEdge<T> visit{aff};
    kruskal<T, Index>(every_edge<T, Index>(graph, visit, threads), sets, scratch, threads,
                      [&](const Record<T, Index>& r, Index a, Index b) {
                          sets.link(a, b);
                          tree.edges[size] = static_cast<std::int64_t>(r.edge);
                          tree.affinities[size] = from_rank<T>(r.rank);
                          tree.node1[size] = r.a;
                          tree.node2[size] = r.b;
                          ++size;
                          return true;
                      });
    tree.edges.resize(size);
    tree.affinities.resize(size);
    tree.node1.resize(size);
    tree.node2.resize(size);
    return tree;
}

template <class Node, class Index>
Buffer<Node> as_nodes(const Buffer<Index>& numbers) {
    Buffer<Node> nodes(numbers.size());
    in_steps(numbers.size(), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) nodes[i] = static_cast<Node>(numbers[i]);
    });
    return nodes;
}

}  // namespace detail

// A tree that somebody else keeps.
template <class T, class Node>
struct TreeView {
    const T* affinities;
    const Node* node1;
    const Node* node2;
    std::size_t size, nodes;

    // Throws std::invalid_argument for what is no tree in merge order.
    void check() const {
        if (size > 0 && size >= nodes) {
            throw std::invalid_argument("tree must have fewer edges than voxels, got " + std::to_string(size) +
                                        " edges between " + std::to_string(nodes) + " voxels");
        }
        T previous = std::numeric_limits<T>::infinity();
        in_steps(size, [&](std::size_t begin, std::size_t end) {
            for (std::size_t e = begin; e < end; ++e) {
                ends(e);
                const T affinity = affinities[e];
                if (!(affinity <= previous)) {
                    throw std::invalid_argument("tree must hold affinities that never increase, got " +
                                                std::to_string(affinity) + " at edge " + std::to_string(e));
                }
                previous = affinity;
            }
        });
    }

    // The nodes of an edge, checked, also where check() was before: the arrays may have changed since.
    std::pair<Node, Node> ends(std::size_t e) const {
        const Node a = read_once(node1 + e), b = read_once(node2 + e);
        if (!inside(a) || !inside(b)) {
            throw std::invalid_argument("tree must join voxels 0 to " + std::to_string(nodes - 1) + ", got " +
                                        std::to_string(a) + " and " + std::to_string(b) + " at edge " +
                                        std::to_string(e));
        }
        return {a, b};
    }

    bool inside(Node node) const { return node >= 0 && static_cast<std::uint64_t>(node) < nodes; }
};

// The components at every threshold: segs[i] and the sizes returned are what components() makes of the whole graph and
// `aff >= thresholds[i]`.
template <class Index, class T, class Node, class Label>
std::vector<std::vector<std::int64_t>> segment_tree(const TreeView<T, Node>& tree, const std::vector<T>& thresholds,
                                                    std::int64_t size_thresh, const std::vector<Label*>& segs,
                                                    int threads) {
    tree.check();
    std::vector<std::size_t> order(thresholds.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t i, std::size_t j) { return thresholds[i] > thresholds[j]; });
    Buffer<Index> parents(tree.nodes), swept(tree.nodes);
    std::iota(parents.begin(), parents.end(), Index{0});
    std::vector<std::vector<std::int64_t>> sizes(thresholds.size());
    std::size_t edge = 0;
    for (const std::size_t i : order) {
        for (; edge < tree.size && tree.affinities[edge] >= thresholds[i]; ++edge) {
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
template <class Index, class T, class Node>
void smaller_sizes(const TreeView<T, Node>& tree, Node* sizes) {
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
template <class Index, class T, class Node>
void linkage(const TreeView<T, Node>& tree, double highest, double* rows) {
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
            join(static_cast<Index>(a), static_cast<Index>(b), highest - static_cast<double>(tree.affinities[e]));
        }
    });
    for (std::size_t v = 1; sets.sets() > 1; ++v) {
        if (v % steps_per_poll == 0) poll();
        if (sets.find(static_cast<Index>(v)) != sets.find(Index{0}))
            join(Index{0}, static_cast<Index>(v), std::numeric_limits<double>::infinity());
    }
}

}  // namespace malis
