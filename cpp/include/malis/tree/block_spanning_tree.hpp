// The maximum spanning tree of a volume, block by block (block_forest.hpp).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/grid.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

template <class T, class Index>
struct TreeEdge {
    Rank<T> rank;
    Index edge;
    bool before(const TreeEdge& other) const { return rank < other.rank || (rank == other.rank && edge < other.edge); }
};

namespace detail {

// Components carry nothing: what joins a closed one is an edge of the tree.
template <class T, class Index>
class TreeCarry {
  public:
    explicit TreeCarry(std::vector<Buffer<TreeEdge<T, Index>>>& edges) : edges_(edges) {}

    void begin(const BlockKruskal<T, Index>& kruskal) {
        kruskal_ = &kruskal;
        list_ = {};
        list_.reserve(kruskal.block().voxels());
    }
    void joined(Rank<T> rank, std::uint32_t e, Local, Local) { list_.push_back({rank, kruskal_->edge(e)}); }
    Attached attach(Rank<T> rank, std::uint32_t e, Local, Index&, Index&) {
        list_.push_back({rank, kruskal_->edge(e)});
        return Attached::dropped;
    }
    void open(Local, Local) {}
    void end(std::size_t block) { edges_[block] = std::move(list_); }

  private:
    std::vector<Buffer<TreeEdge<T, Index>>>& edges_;
    const BlockKruskal<T, Index>* kruskal_ = nullptr;
    Buffer<TreeEdge<T, Index>> list_;
};

}  // namespace detail

// The edges of the tree, in order.
template <class T, class Index>
Buffer<TreeEdge<T, Index>> block_spanning_tree(const Grid<Index>& grid, Affinities<T> aff, BlockShape shape,
                                               int threads) {
    using Edge = TreeEdge<T, Index>;
    BlockForest<T, Index> forest(grid, aff, shape);
    std::vector<Buffer<Edge>> edges(forest.blocks.size() + 1);
    {
        std::vector<detail::TreeCarry<T, Index>> carries;
        for (int t = 0; t < std::max(1, threads); ++t) carries.emplace_back(edges);
        forest.solve(carries, threads);
    }
    if (forest.blocks.size() == 1) return std::move(edges[0]);
    UnionFind<Index> sets;
    sets.reset(forest.nodes());
    const auto links = forest.links(threads);
    in_steps(links.begin(), links.end(), steps_per_poll, [&](const auto* begin, const auto* end) {
        for (const auto* link = begin; link != end; ++link)
            if (sets.unite(link->a, link->b)) edges.back().push_back({link->rank, link->edge});
    });
    std::vector<detail::Stream<Edge, Index>> streams;
    streams.reserve(edges.size());
    for (const auto& list : edges) streams.push_back({list.begin(), list.end(), Index{0}});
    return detail::merge_streams<T>(streams, threads, [](Edge edge, Index) { return edge; });
}

}  // namespace malis
