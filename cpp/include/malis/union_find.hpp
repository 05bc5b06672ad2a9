// Disjoint sets that always know their roots: union relabels the smaller set.
//
//     root   per node: its set                          find(x) is one load, without a loop
//     next   per node: a ring through its set           link(a, b) walks the ring of the smaller set once
//     size   per root
//
// A path-compressing forest does less work on paper, but its find is a loop of unpredictable length, and in Kruskal's
// algorithm on affinities nearly every mispredicted branch is one of these. Here a node is relabelled at most log2(n)
// times, in practice two or three times, and looked up for nothing: other threads may read roots() between merges.
#pragma once

#include <cstddef>
#include <utility>

#include "malis/buffer.hpp"
#include "malis/parallel.hpp"

namespace malis {

template <class Index>
class UnionFind {
  public:
    // n singletons. Reuses its memory, so that one object serves many small problems.
    void reset(std::size_t n, int threads = 1) {
        root_.reset(n);
        next_.reset(n);
        size_.reset(n);
        sets_ = n;
        parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                root_[i] = static_cast<Index>(i);
                next_[i] = static_cast<Index>(i);
                size_[i] = 1;
            }
        });
    }

    std::size_t nodes() const { return root_.size(); }
    std::size_t sets() const { return sets_; }
    Index size(Index root) const { return size_[root]; }
    Index find(Index x) const { return root_[x]; }
    const Index* roots() const { return root_.data(); }

    // Joins two different roots and returns the one that remains: the larger, or `a` where they are equal.
    Index link(Index a, Index b) {
        if (size_[a] < size_[b]) std::swap(a, b);
        Index x = b;
        do {
            root_[x] = a;
            x = next_[x];
        } while (x != b);
        std::swap(next_[a], next_[b]);
        size_[a] += size_[b];
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

  private:
    Buffer<Index> root_;
    Buffer<Index> next_;
    Buffer<Index> size_;
    std::size_t sets_ = 0;
};

}  // namespace malis
