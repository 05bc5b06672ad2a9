// Disjoint sets, joined by size, in one of two ways.
//
// Up to `relabelled` nodes, in cache, every node knows its root: find is one load, and link relabels the smaller set.
//
//     root   per node: its set                          find(x) is one load, without a loop
//     next   per node: a ring through its set           link(a, b) walks the ring of the smaller set once
//     size   per root
//
// A forest with path halving does less work on paper, but its find is a loop of unpredictable length, and in Kruskal's
// algorithm on affinities nearly every mispredicted branch is one of these. Here a node is relabelled at most log2(n)
// times, in practice two or three times. Beyond the cache, where a ring is a chain of misses, it is the other way
// round: there the forest is kept, and link is one store.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/prefetch.hpp"

namespace malis {

namespace detail {

// Roots of sets that are joined to the lower of two roots: parents never exceed their nodes, so that one sweep in the
// order of memory resolves them all, and slabs can be joined on their own first.
template <class Index>
inline Index lowest_root(Index* parent, Index x) {
    while (parent[x] != x) {
        parent[x] = parent[parent[x]];
        x = parent[x];
    }
    return x;
}

template <class Index>
inline void join_lowest(Index* parent, Index x, Index y) {
    if (parent[x] == parent[y]) return;
    x = lowest_root(parent, x);
    y = lowest_root(parent, y);
    if (x < y) parent[y] = x;
    else parent[x] = y;
}

}  // namespace detail

template <class Index>
class UnionFind {
  public:
    static constexpr std::size_t relabelled = std::size_t{1} << 17;

    // n singletons. Reuses its memory, so that one object serves many small problems.
    void reset(std::size_t n, int threads = 1) {
        relabel_ = n <= relabelled;
        root_.reset(n);
        if (relabel_) next_.reset(n);
        size_.reset(n);
        sets_ = n;
        parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                root_[i] = static_cast<Index>(i);
                size_[i] = 1;
            }
            for (std::size_t i = begin; relabel_ && i < end; ++i) next_[i] = static_cast<Index>(i);
        });
    }

    // n nodes, of which join(parents) joins many by detail::join_lowest, in any order: that keeps neither sizes nor
    // rings, and is several times as fast as unite.
    template <class Join>
    void contract(std::size_t n, int threads, Join&& join) {
        relabel_ = n <= relabelled;
        root_.reset(n);
        parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) root_[i] = static_cast<Index>(i);
        });
        join(root_.data());
        sets_ = 0;
        in_steps(n, [&](std::size_t begin, std::size_t end) {
            std::size_t sets = 0;
            for (std::size_t i = begin; i < end; ++i) {
                const Index root = root_[root_[i]];
                root_[i] = root;
                sets += root == static_cast<Index>(i);
            }
            sets_ += sets;
        });
        size_.reset(n);
        if (relabel_) next_.reset(n);
        in_steps(n, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const Index root = root_[i];
                const bool first = root == static_cast<Index>(i);
                size_[i] = 0;
                ++size_[root];
                if (!relabel_) continue;
                next_[i] = first ? root : next_[root];
                next_[root] = static_cast<Index>(i);
            }
        });
    }

    std::size_t nodes() const { return root_.size(); }
    std::size_t sets() const { return sets_; }
    Index size(Index root) const { return size_[root]; }

    Index find(Index x) {
        if (relabel_) return root_[x];
        while (root_[x] != x) {
            const Index up = root_[root_[x]];
            root_[x] = up;
            x = up;
        }
        return x;
    }

    // Calls f on every node of a set. For up to `relabelled` nodes only.
    template <class F>
    void each_member(Index root, F&& f) const {
        Index x = root;
        do {
            f(x);
            x = next_[x];
        } while (x != root);
    }

    // Where a find begins: for prefetching.
    const Index* parents() const { return root_.data(); }

    // Asks for the memory that link reads of a root.
    MALIS_INLINE void prefetch(Index root) const { malis::prefetch(size_.data() + root); }

    // Joins two different roots and returns the one that remains: the larger, or `a` where they are equal.
    Index link(Index a, Index b) {
        // Which is larger is as good as random: no branch.
        const Index size_a = size_[a], size_b = size_[b];
        const Index change = (a ^ b) & (Index{0} - static_cast<Index>(size_a < size_b));
        a ^= change;
        b ^= change;
        if (relabel_) {
            // Most sets are of one or two nodes: two are relabelled whether they are two or the same.
            const Index next = next_[b];
            root_[b] = a;
            root_[next] = a;
            Index x = next_[next];
            for (Index left = std::min(size_a, size_b); left > 2; --left) {
                root_[x] = a;
                x = next_[x];
            }
            next_[b] = next_[a];
            next_[a] = next;
        } else {
            root_[b] = a;
        }
        size_[a] = size_a + size_b;
        --sets_;
        return a;
    }

    bool unite(Index x, Index y) {
        const Index a = find(x);
        const Index b = find(y);
        if (a == b) return false;
        link(a, b);
        return true;
    }

    // The root of every node, to be read by several threads until the next link.
    const Index* roots(int threads = 1) {
        if (!relabel_) {
            // Lookups of different threads must not write: paths are short, as sets are joined by size.
            next_.reset(nodes());
            parallel_ranges(nodes(), std::size_t{1} << 15, threads, [&](std::size_t begin, std::size_t end) {
                for (std::size_t i = begin; i < end; ++i) {
                    Index x = root_[i];
                    while (root_[x] != x) x = root_[x];
                    next_[i] = x;
                }
            });
            std::swap(root_, next_);
            next_.release();
        }
        return root_.data();
    }

  private:
    bool relabel_ = true;
    Buffer<Index> root_;
    Buffer<Index> next_;
    Buffer<Index> size_;
    std::size_t sets_ = 0;
};

}  // namespace malis
