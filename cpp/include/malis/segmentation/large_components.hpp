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

namespace detail {

// Components that grow as the edges of a tree join them.
template <class Index, class Node>
class GrowingComponents {
  public:
    GrowingComponents(std::size_t nodes, std::size_t thresholds, std::int64_t min_size)
        : thresholds_(thresholds), min_size_(min_size), next_(nodes) {
        found_.nodes.reset(nodes);
        found_.components.reset(nodes);
        sets_.reset(nodes);
        std::iota(next_.begin(), next_.end(), Index{0});
    }

    void begin_threshold() {
        const bool first = found_.begins.empty();
        found_.begins.push_back(static_cast<std::int64_t>(count_));
        if (first && large(1)) create_of_every_node();
    }

    void join(Index x, Index y) {
        const Index a = sets_.find(x), b = sets_.find(y);
        if (a == b) throw std::invalid_argument("tree must not hold a cycle");
        const bool large_a = large(sets_.size(a)), large_b = large(sets_.size(b));
        const Index root = sets_.link(a, b);
        if (large_a && large_b) {
            const Index joined = next_[root == a ? b : a];
            found_.into[joined] = next_[root];
            found_.when[joined] = static_cast<std::int64_t>(found_.begins.size() - 1);
        } else if (large_a || large_b) {
            const Index component = next_[large_a ? a : b];
            bring(large_a ? b : a, component);
            next_[root] = component;
        } else if (large(sets_.size(root))) {
            const Index component = create();
            bring(a, component);
            bring(b, component);
            next_[root] = component;
        } else {
            std::swap(next_[a], next_[b]);
        }
    }

    LargeComponents<Node> finish() {
        found_.begins.push_back(static_cast<std::int64_t>(count_));
        found_.nodes.resize(count_);
        found_.components.resize(count_);
        return std::move(found_);
    }

  private:
    bool large(Index size) const { return static_cast<std::int64_t>(size) >= min_size_; }

    Index create() {
        found_.into.push_back(static_cast<std::int64_t>(found_.into.size()));
        found_.when.push_back(static_cast<std::int64_t>(thresholds_));
        return static_cast<Index>(found_.into.size() - 1);
    }

    void create_of_every_node() {
        for (std::size_t v = 0; v < next_.size(); ++v) {
            if (v % steps_per_poll == 0) poll();
            const Index component = create();
            bring(static_cast<Index>(v), component);
            next_[v] = component;
        }
    }

    // Brings the nodes of the ring from `start` into a component.
    void bring(Index start, Index component) {
        Index node = start;
        do {
            found_.nodes[count_] = static_cast<Node>(node);
            found_.components[count_++] = static_cast<Node>(component);
            node = next_[node];
        } while (node != start);
    }

    const std::size_t thresholds_;
    const std::int64_t min_size_;
    LargeComponents<Node> found_;
    std::size_t count_ = 0;  // of nodes in large components
    UnionFind<Index> sets_;
    // The next node of the ring of a small component, or, at the root of a large one, its number.
    Buffer<Index> next_;
};

}  // namespace detail

// The components of at least `min_size` nodes at every one of `thresholds`, which decrease.
template <class Index, class Node>
LargeComponents<Node> large_components(const TreeView& tree, const std::vector<double>& thresholds,
                                       std::int64_t min_size) {
    tree.check();
    detail::GrowingComponents<Index, Node> components(tree.nodes, thresholds.size(), min_size);
    std::size_t edge = 0;
    for (const double wanted : thresholds) {
        components.begin_threshold();
        const double threshold = tree.in_precision(wanted);
        for (; edge < tree.size && tree.affinity(edge) >= threshold; ++edge) {
            if (edge % steps_per_poll == 0) poll();
            const auto [x, y] = tree.ends(edge);
            components.join(static_cast<Index>(x), static_cast<Index>(y));
        }
    }
    return components.finish();
}

}  // namespace malis
