// The collectors (source.hpp) of Kruskal's algorithm: what becomes of the edges that a scan finds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "malis/graph/select.hpp"
#include "malis/support/buffer.hpp"
#include "malis/tree/order.hpp"

namespace malis::detail {

// Keeps the ranks of a sample.
template <class T>
class SampleCollector {
  public:
    static constexpr Strength strength = Strength::strong;
    static constexpr T threshold = -std::numeric_limits<T>::infinity();

    explicit SampleCollector(Buffer<Rank<T>>& ranks) : ranks_(ranks) {}
    void reserve(std::size_t) {}
    template <class Index>
    void operator()(T affinity, Index, Index, Index) {
        ranks_.push_back(to_rank(affinity));
    }
    template <class Index>
    void stretch(const T* aff, const T*, Index, Index, Index, Index count) {
        for (Index i = 0; i < count; ++i) ranks_.push_back(to_rank(aff[i]));
    }

  private:
    Buffer<Rank<T>>& ranks_;
};

// Keeps all edges that a scan selects.
template <class T, class Index>
class StrongCollector {
  public:
    static constexpr Strength strength = Strength::strong;
    const T threshold;

    StrongCollector(Buffer<Record<T, Index>>& to, T threshold) : threshold(threshold), to_(to), size_(to.size()) {}
    ~StrongCollector() { to_.resize(size_); }
    StrongCollector(const StrongCollector&) = delete;
    StrongCollector& operator=(const StrongCollector&) = delete;
    void reserve(std::size_t more) {
        if (size_ + more > to_.capacity()) {
            to_.resize(size_);
            to_.reserve(size_ + more);
        }
    }
    void operator()(T affinity, Index edge, Index a, Index b) { to_.data()[size_++] = {to_rank(affinity), edge, a, b}; }
    // All that pass among `count` edges edge + i between a + i and b + i; `aff` is where their affinities begin.
    void stretch(const T* aff, const T* aff_end, Index edge, Index a, Index b, Index count) {
        stretch_of(aff, edge, a, b, count, [=](Index block, std::size_t n) {
            return select_passing<strength>(aff + block, aff_end, threshold, n);
        });
    }

  protected:
    template <class Select>
    void stretch_of(const T* aff, Index edge, Index a, Index b, Index count, Select select) {
        reserve(count);
        Record<T, Index>* to = to_.data() + size_;
        for (Index block = 0; block < count; block += 64) {
            std::uint64_t selected = select(block, std::min<Index>(64, count - block));
            for (; selected != 0; selected &= selected - 1) {
                const Index i = block + static_cast<Index>(lowest_bit(selected));
                *to++ = {to_rank(aff[i]), edge + i, a + i, b + i};
            }
        }
        size_ = static_cast<std::size_t>(to - to_.data());
    }

    Buffer<Record<T, Index>>& to_;
    std::size_t size_;
};

// Keeps the weak edges between different sets.
template <class T, class Index>
class WeakCollector : public StrongCollector<T, Index> {
  public:
    static constexpr Strength strength = Strength::weak;

    WeakCollector(Buffer<Record<T, Index>>& to, T threshold, const Index* root)
        : StrongCollector<T, Index>(to, threshold), root_(root) {}
    void operator()(T affinity, Index edge, Index a, Index b) {
        // Stores first and counts afterwards: which edges stay is as good as random, and a mispredicted branch costs
        // more than a store.
        this->to_.data()[this->size_] = {to_rank(affinity), edge, a, b};
        this->size_ += root_[a] != root_[b];
    }
    void stretch(const T* aff, const T* aff_end, Index edge, Index a, Index b, Index count) {
        this->stretch_of(aff, edge, a, b, count, [=](Index block, std::size_t n) {
            return select_different<strength>(root_ + a + block, root_ + b + block, aff + block, aff_end,
                                              this->threshold, n);
        });
    }

  private:
    const Index* root_;
};

}  // namespace malis::detail
