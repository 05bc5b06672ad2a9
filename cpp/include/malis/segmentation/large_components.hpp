// How components grow as the threshold falls.
//
// Scores of objects at many thresholds need the large components alone, and from one threshold to the next little
// changes in them: nodes come in that were in small components, and two large components become one. Both are found in
// one pass along the tree:
//
//     threshold     0.9             0.8             0.7
//     nodes         a b c . d e     a b c d e .     all        in the order in which they come into a large component
//     components    0 0 0   1 1     f: into 0       1: into 0
//
// A small component keeps a ring through its nodes, which is walked once, when it becomes large or joins a large one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include "malis/segmentation/spanning_tree.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

template <class Node>
struct LargeComponents {
    Buffer<Node> nodes;                // in the order in which they come into a large component
    Buffer<Node> components;           // component that nodes[i] comes into
    std::vector<std::int64_t> begins;  // those of threshold i are from begins[i] to begins[i + 1]
    std::vector<std::int64_t> into;    // component that a component is joined into, or itself
    std::vector<std::int64_t> when;    // number of the threshold at which it is, or that of thresholds
};

// The components of at least `min_size` nodes at every one of `thresholds`, which decrease.
template <class Index, class T, class Node>
LargeComponents<Node> large_components(const TreeView<T, Node>& tree, const std::vector<T>& thresholds,
                                       std::int64_t min_size) {
    tree.check();
    const auto large = [&](Index size) { return static_cast<std::int64_t>(size) >= min_size; };
    LargeComponents<Node> found;
    found.nodes.reset(tree.nodes);
    found.components.reset(tree.nodes);
    std::size_t count = 0;
    UnionFind<Index> sets;
    sets.reset(tree.nodes);
    // The next node of the ring of a small component, or, at the root of a large one, its number.
    Buffer<Index> next(tree.nodes);
    std::iota(next.begin(), next.end(), Index{0});
    const auto create = [&] {
        found.into.push_back(static_cast<std::int64_t>(found.into.size()));
        found.when.push_back(static_cast<std::int64_t>(thresholds.size()));
        return static_cast<Index>(found.into.size() - 1);
    };
    const auto bring = [&](Index start, Index component) {
        Index node = start;
        do {
            found.nodes[count] = static_cast<Node>(node);
            found.components[count++] = static_cast<Node>(component);
            node = next[node];
        } while (node != start);
    };

    std::size_t edge = 0;
    for (std::size_t i = 0; i < thresholds.size(); ++i) {
        found.begins.push_back(static_cast<std::int64_t>(count));
        if (i == 0 && large(1)) {
            for (std::size_t v = 0; v < tree.nodes; ++v) {
                if (v % steps_per_poll == 0) poll();
                const Index component = create();
                bring(static_cast<Index>(v), component);
                next[v] = component;
            }
        }
        for (; edge < tree.size && tree.affinities[edge] >= thresholds[i]; ++edge) {
            if (edge % steps_per_poll == 0) poll();
            const auto [x, y] = tree.ends(edge);
            const Index a = sets.find(static_cast<Index>(x)), b = sets.find(static_cast<Index>(y));
            if (a == b) throw std::invalid_argument("tree must not hold a cycle");
            const bool large_a = large(sets.size(a)), large_b = large(sets.size(b));
            const Index root = sets.link(a, b);
            if (large_a && large_b) {
                const Index joined = next[root == a ? b : a];
                found.into[joined] = next[root];
                found.when[joined] = static_cast<std::int64_t>(i);
            } else if (large_a || large_b) {
                const Index component = next[large_a ? a : b];
                bring(large_a ? b : a, component);
                next[root] = component;
            } else if (large(sets.size(root))) {
                const Index component = create();
                bring(a, component);
                bring(b, component);
                next[root] = component;
            } else {
                std::swap(next[a], next[b]);
            }
        }
    }
    found.begins.push_back(static_cast<std::int64_t>(count));
    found.nodes.resize(count);
    found.components.resize(count);
    return found;
}

}  // namespace malis
