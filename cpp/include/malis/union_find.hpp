// Disjoint sets: path halving, union by size.
#pragma once

#include <cstddef>

#include "malis/buffer.hpp"
#include "malis/parallel.hpp"

namespace malis {

template <class Index>
class UnionFind {
  public:
    // n singletons. Reuses its memory, so that one object serves many small problems.
    void reset(std::size_t n, int threads = 1) {
        parent_.reset(n);
        size_.reset(n);
        sets_ = n;
        parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                parent_[i] = static_cast<Index>(i);
                size_[i] = 1;
            }
        });
    }

    std::size_t nodes() const { return parent_.size(); }
    std::size_t sets() const { return sets_; }
    Index size(Index root) const { return size_[root]; }

    Index find(Index x) {
        while (parent_[x] != x) {
            const Index up = parent_[parent_[x]];
            parent_[x] = up;
            x = up;
        }
        return x;
    }

    // Joins two different roots and returns the one that remains: the larger, or `a` where they are equal.
    Index link(Index a, Index b) {
        if (size_[a] < size_[b]) {
            const Index t = a;
            a = b;
            b = t;
        }
        parent_[b] = a;
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

    // Afterwards parents()[x] is the root of x for every x.
    const Index* flatten(int threads = 1) {
        if (threads > 1 && nodes() > (std::size_t{1} << 17)) {
            // Path halving writes, so threads first look up without writing.
            flat_.reset(nodes());
            parallel_ranges(nodes(), std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
                for (std::size_t i = begin; i < end; ++i) {
                    Index x = static_cast<Index>(i);
                    while (parent_[x] != x) x = parent_[x];
                    flat_[i] = x;
                }
            });
            std::swap(parent_, flat_);
            flat_.release();
        } else {
            for (std::size_t i = 0; i < nodes(); ++i) parent_[i] = find(static_cast<Index>(i));
        }
        return parent_.data();
    }

    const Index* parents() const { return parent_.data(); }

  private:
    Buffer<Index> parent_;
    Buffer<Index> size_;
    Buffer<Index> flat_;
    std::size_t sets_ = 0;
};

}  // namespace malis
