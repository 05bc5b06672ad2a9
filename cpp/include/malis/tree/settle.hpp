// Which edges of a part of a graph are certain to belong to the maximum spanning tree of all of it.
//
// Some nodes of the part, its *terminals*, have edges to what lies outside and is not known. Kruskal's algorithm on the
// part finds the edges that can belong to the tree of the whole: what closes a cycle here closes it there. Where one of the
// two components that an edge joins has no terminal, it is the strongest edge by which that component leaves, and belongs
// to the tree whatever lies outside: it is *settled*. Where both have one, there may be a better way around: it is *open*.
// Components that settled edges make hold one terminal at most, so that open edges lead from terminal to terminal.
#pragma once

#include <cstddef>
#include <cstdint>

#include "malis/graph/edge_list.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

enum class Settled : std::uint8_t { cycle = 0, open = 1, settled = 2 };

// kinds[e] says what becomes of edge e; edges come in the order in which Kruskal's algorithm takes them.
template <class Index>
void settle_edges(const EdgeList<Index>& list, const bool* terminal, Settled* kinds) {
    UnionFind<Index> sets;
    sets.reset(list.nodes);
    Buffer<bool> reaches(list.nodes);  // of a root: whether a terminal is in its component
    in_steps(list.nodes, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) reaches[v] = terminal[v];
    });
    in_steps(list.edges, [&](std::size_t begin, std::size_t end) {
        for (std::size_t e = begin; e < end; ++e) kinds[e] = Settled::cycle;
        list.each(begin, end, [&](Index edge, Index x, Index y) {
            const Index a = sets.find(x), b = sets.find(y);
            if (a == b) return;
            const bool of_a = reaches[a], of_b = reaches[b];
            reaches[sets.link(a, b)] = of_a | of_b;
            kinds[edge] = (of_a & of_b) ? Settled::open : Settled::settled;
        });
    });
}

}  // namespace malis
