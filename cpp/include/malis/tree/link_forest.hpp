// Some of the links of a union-find (union_find.hpp): what they join without the others.
#pragma once

#include <cstddef>

#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"

namespace malis {

// A forest over the same nodes. It has the same roots, and those that a link which is left out would have joined to others.
// As a union-find by size keeps its trees low, so are these.
template <class Index>
class LinkForest {
  public:
    // As sets of which these are the roots, per node.
    void assign(const Index* roots, std::size_t nodes) {
        parent_.reset(nodes);
        in_steps(nodes, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) parent_[i] = roots[i];
        });
    }
    // UnionFind::link has made `into` the root of both.
    void link(Index into, Index from) { parent_[from] = into; }

    Index root(Index node) {
        while (parent_[node] != node) {
            parent_[node] = parent_[parent_[node]];
            node = parent_[node];
        }
        return node;
    }
    // Nodes of the same parent are joined.
    const Index* parents() const { return parent_.data(); }

  private:
    Buffer<Index> parent_;
};

}  // namespace malis
