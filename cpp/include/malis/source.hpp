// What sources of edges share; kruskal.hpp says what a source is.
#pragma once

#include <cstddef>

namespace malis {

// Passes the ranks of a part of the edges to `take`, in place of collecting them.
template <class Take>
struct Sampler {
    Take& take;
    void reserve(std::size_t) {}
    template <class Rank, class Index>
    void operator()(bool exists, Rank rank, Index, Index, Index) {
        if (exists) take(rank);
    }
};

}  // namespace malis
