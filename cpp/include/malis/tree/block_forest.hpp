// Maximum spanning trees of volumes, block by block.
//
// Kruskal's algorithm over a whole volume waits for memory at every edge and has one thread. Here a volume is divided
// into blocks that fit in cache, which are solved on their own, on all threads, and what they leave open is solved
// together afterwards.
//
//        block      block                 Edges of a block join its voxels in their order, as if there was nothing else.
//     +----------+----------+             That is right for a component as long as no edge that leaves the block (a
//     | a--b  c  | x     y  |             *face edge*) comes earlier than what joins it: it is *closed*, and just what
//     |       \  |          |             it is in the whole volume at that place of the order. From its strongest face
//     |        d-|-z        |             edge on it is *open*: there may be more of it outside.
//     +----------+----------+
//
// So, of an edge of a block that joins two of its components:
//
//     both closed        it is an edge of the whole's tree, and what it joins is known completely
//     one of them open   it is an edge of the whole's tree, as the strongest that leaves the closed one; what the open
//                        one holds by then is not known
//     both open          it is an edge of the whole's tree unless a way outside joins the two before
//
// An edge within a component of its block is in no tree. An open component is a *node* of the graph that remains, with
// the face edges and the edges of the last kind between nodes: some hundredths of the edges of the volume.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/grid.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/blocks.hpp"
#include "malis/tree/links.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/solve_block.hpp"

namespace malis {

namespace detail {

// Calls f(v, edge, other, u) for the face edges that voxels of block i own: the number of such a voxel, and the block and
// number of the voxel at the other end.
template <class T, class Index, class F>
void each_owned_face_edge(const Blocks<T, Index>& blocks, std::size_t i, F&& f) {
    const auto block = blocks[i];
    for (std::size_t k = 0; k < blocks.grid.steps.size(); ++k) {
        blocks.each_face_edge(block, k, false, [&](Local v, Index edge, Index z, Index y, Index x) {
            f(v, edge, blocks.block_of(z, y, x), blocks.number(z, y, x));
        });
    }
}

// All links in order: those of `streams`, in which nodes count from the base of a stream, and for every block i what
// find_face_links(i, links) lists, in any order and with the numbers of nodes themselves.
template <class T, class Index, class FindFaceLinks>
Buffer<ForestLink<T, Index>> merge_links(const Blocks<T, Index>& blocks,
                                         std::vector<Stream<ForestLink<T, Index>, Index>> streams, int threads,
                                         FindFaceLinks&& find_face_links) {
    using Link = ForestLink<T, Index>;
    struct Scratch {
        Buffer<Link> moved;
        SortScratch<T, std::uint32_t> keys;
    };
    std::vector<Scratch> scratch(static_cast<std::size_t>(std::max(1, threads)));
    std::vector<Buffer<Link>> faces(blocks.size());
    parallel_for(blocks.size(), threads, [&](std::size_t i, std::size_t t) {
        find_face_links(i, faces[i]);
        sort_by_order<T>(faces[i], scratch[t].moved, scratch[t].keys);
    });
    for (const auto& links : faces) streams.push_back({links.begin(), links.end(), Index{0}});
    return merge_streams<T>(streams, threads, [](Link link, Index base) {
        link.a += base;
        if (link.voxels == 0) link.b += base;
        return link;
    });
}

}  // namespace detail

// The blocks of a volume, solved, and the graph that remains. `Carry` is what components carry; a thread has one:
//
//     begin(kruskal)                          single voxels again
//     joined(rank, e, into, from)             edge e of the block has joined two closed components
//     attach(rank, e, b, label, voxels)       it joins closed b to an open one; returns how
//     open(root, node)                        a component of the block is node `node` of it from now on
//     end(block)                              all done
template <class T, class Index>
class BlockForest {
  public:
    using Link = ForestLink<T, Index>;
    using Local = detail::Local;

    BlockForest(const Grid<Index>& grid, Affinities<T> aff, BlockShape shape) : blocks(grid, aff, shape) {}

    template <class Carry>
    void solve(std::vector<Carry>& carries, int threads, Rank<T> last = std::numeric_limits<Rank<T>>::max()) {
        solved_.resize(blocks.size());
        std::vector<detail::BlockScratch<T, Index>> scratch;
        for (std::size_t t = 0; t < carries.size(); ++t) scratch.emplace_back(blocks);
        parallel_for(blocks.size(), threads, [&](std::size_t i, std::size_t t) {
            detail::BlockSolver<T, Index, Carry>(blocks, scratch[t], carries[t]).solve(i, last, solved_[i]);
        });
        nodes_ = 0;
        for (Solved& block : solved_) {
            block.base = nodes_;
            nodes_ += block.nodes;
        }
    }

    // All links in order.
    Buffer<Link> links(int threads, Rank<T> last = std::numeric_limits<Rank<T>>::max()) const {
        std::vector<detail::Stream<Link, Index>> streams;
        for (const Solved& solved : solved_) streams.push_back({solved.links.begin(), solved.links.end(), solved.base});
        return detail::merge_links(blocks, std::move(streams), threads, [&](std::size_t i, Buffer<Link>& links) {
            detail::each_owned_face_edge(blocks, i, [&](Local v, Index edge, std::size_t other, Local u) {
                const Rank<T> rank = to_rank(blocks.aff[edge]);
                if (rank > last) return;
                links.push_back({rank, edge, solved_[i].base + solved_[i].node[v],
                                 solved_[other].base + solved_[other].node[u], 0});
            });
        });
    }

    std::size_t nodes() const { return nodes_; }
    Index base(std::size_t block) const { return solved_[block].base; }

    const Blocks<T, Index> blocks;

  private:
    using Solved = detail::SolvedBlock<T, Index>;

    std::vector<Solved> solved_;
    Index nodes_ = 0;
};

}  // namespace malis
