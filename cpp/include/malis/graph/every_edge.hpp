// The Visit (source.hpp) that lets all edges of a graph take part.
#pragma once

#include "malis/graph/affinities.hpp"
#include "malis/graph/edge_list.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/select.hpp"

namespace malis::detail {

template <class T>
struct EveryEdge {
    Affinities<T> aff;
    template <class Index, class Collect>
    void edge(Index edge, Index a, Index b, Collect& collect) const {
        take(aff[edge], edge, a, b, collect);
    }
    template <class Index, class Collect>
    void row(Index first, Index v, Index u, Index count, Collect& collect) const {
        aff.each_piece(first, count, [&](const T* affinities, Index begin, Index n) {
            for (Index i = 0; i < n; ++i) {
                const Index at = begin + i;
                take(affinities[i], static_cast<Index>(first + at), static_cast<Index>(v + at),
                     static_cast<Index>(u + at), collect);
            }
        });
    }

  private:
    template <class Index, class Collect>
    static void take(T affinity, Index edge, Index a, Index b, Collect& collect) {
        if (passes<Collect::strength>(affinity, collect.threshold)) collect(affinity, edge, a, b);
    }
};

template <class T, class Index>
GridScan<T, Index, EveryEdge<T>> every_edge(const Grid<Index>& grid, const EveryEdge<T>& visit, int threads) {
    return {grid, visit, threads};
}
template <class T, class Index>
EdgeListScan<T, Index, EveryEdge<T>> every_edge(const EdgeList<Index>& list, const EveryEdge<T>& visit, int threads) {
    return {list, visit, threads};
}

}  // namespace malis::detail
