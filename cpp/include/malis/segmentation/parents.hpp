// The sets of a union-find as parents, in which a node leads to the first node of its set.
#pragma once

#include <algorithm>
#include <cstddef>

#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/tree/union_find.hpp"

namespace malis::detail {

// The parents of all nodes from their sets, whose roots are any of their nodes.
template <class Index>
Buffer<Index> parents_of(UnionFind<Index>& sets, int threads) {
    const std::size_t n = sets.nodes();
    const Index* root = sets.roots(threads);
    constexpr Index none = static_cast<Index>(-1);
    Buffer<Index> parents(n), first(n);
    std::fill(first.begin(), first.end(), none);
    in_steps(n, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) {
            Index& lowest = first[root[v]];
            if (lowest == none) lowest = static_cast<Index>(v);
            parents[v] = lowest;
        }
    });
    return parents;
}

}  // namespace malis::detail
