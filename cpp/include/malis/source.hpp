// What sources of edges share; kruskal.hpp says what a source is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "malis/order.hpp"
#include "malis/select.hpp"

namespace malis {

// Takes the ranks of a part of the edges, in place of collecting them.
template <class T, class Take>
struct Sampler {
    static constexpr detail::Strength strength = detail::Strength::strong;
    static constexpr T threshold = -std::numeric_limits<T>::infinity();
    Take& take;
    void reserve(std::size_t) {}
    template <class Index>
    void operator()(T affinity, Index, Index, Index) {
        take(to_rank(affinity));
    }
    template <class Index>
    void stretch(const T* aff, const T*, Index, Index, Index, Index count) {
        for (Index i = 0; i < count; ++i) take(to_rank(aff[i]));
    }
};

}  // namespace malis
