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
#include "malis/tree/block_kruskal.hpp"
#include "malis/tree/blocks.hpp"
#include "malis/tree/links.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

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

// How a closed component is joined to an open one.
enum class Attached {
    dropped,  // nothing about it is needed later
    value,    // as a number of voxels of one label
    node      // it becomes a node
};

// The blocks of a volume, solved, and the graph that remains. `Carry` is what components carry; a thread has one:
//
//     begin(kruskal, thread)                  single voxels again
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
        std::vector<Work> work;
        for (std::size_t t = 0; t < carries.size(); ++t) work.emplace_back(blocks);
        parallel_for(blocks.size(), threads,
                     [&](std::size_t i, std::size_t t) { solve_block(i, work[t], carries[t], last); });
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
    struct Solved {
        Index nodes = 0, base = 0;
        Buffer<Local> node;  // per number of a voxel, where a face edge begins
        Buffer<Link> links;  // in order; nodes count from 0 within the block
    };
    struct Work {
        explicit Work(const Blocks<T, Index>& blocks) : kruskal(blocks) {}
        BlockKruskal<T, Index> kruskal;
        Buffer<Rank<T>> opens;  // per root: the rank of the first face edge
        Buffer<Local> number;   // per root: its node
        Buffer<Link> links;     // of the block at hand
    };

    template <class Carry>
    void solve_block(std::size_t i, Work& work, Carry& carry, Rank<T> last) {
        using detail::no_node;
        const auto block = blocks[i];
        Solved& solved = solved_[i];
        BlockKruskal<T, Index>& kruskal = work.kruskal;
        kruskal.begin(block);
        const std::size_t n = blocks.numbers(block);
        blocks.find_first_face_edges(block, work.opens);
        Rank<T>* const opens = work.opens.data();
        work.number.reset(n);
        std::fill(work.number.begin(), work.number.end(), no_node);
        solved.node.reset(n);
        std::fill(solved.node.begin(), solved.node.end(), no_node);
        Local* const node = solved.node.data();
        Local* const number = work.number.data();
        UnionFind<Local>& sets = kruskal.sets;
        Local next = 0;
        carry.begin(kruskal);
        const auto open = [&](Local root) {
            if (number[root] == no_node) {
                number[root] = next;
                sets.each_member(root, [&](Local v) { node[v] = next; });
                carry.open(root, next);
                ++next;
            }
            return number[root];
        };
        Buffer<Link>& links = work.links;
        links.clear();
        kruskal.run(
            [&](Rank<T> rank, std::uint32_t e, Local, Local, Local a, Local b) {
                const bool open_a = opens[a] <= rank, open_b = opens[b] <= rank;
                const Rank<T> opened = std::min(opens[a], opens[b]);
                if (!(open_a | open_b)) {
                    const Local into = kruskal.link(a, b);
                    opens[into] = opened;
                    carry.joined(rank, e, into, into == a ? b : a);
                    return;
                }
                Local to;
                if (open_a && open_b) {
                    to = open(a);
                    links.push_back({rank, kruskal.edge(e), to, open(b), 0});
                } else {
                    if (open_b) std::swap(a, b);
                    to = open(a);
                    Index label = 0, voxels = 0;
                    const Attached how = carry.attach(rank, e, b, label, voxels);
                    if (how == Attached::node) {
                        links.push_back({rank, kruskal.edge(e), to, open(b), 0});
                    } else {
                        if (how == Attached::value) links.push_back({rank, kruskal.edge(e), to, label, voxels});
                        sets.each_member(b, [&](Local v) { node[v] = to; });
                    }
                }
                const Local into = kruskal.link(a, b);
                opens[into] = opened;
                number[into] = to;
            },
            last);
        // What is closed to the end has face edges all the same.
        Index row_begin = 0;
        Blocks<T, Index>::each_row(block, [&](Index row, Index, Index) {
            row_begin = row << blocks.row_bits;
            for (Index v = row_begin; v < row_begin + block.width; ++v) {
                if (node[v] != no_node) continue;
                const Local root = sets.find(static_cast<Local>(v));
                if (opens[root] != blocks.never) open(root);
            }
        });
        solved.nodes = next;
        solved.links = detail::exact_copy(links);
        carry.end(i);
    }

    std::vector<Solved> solved_;
    Index nodes_ = 0;
};

}  // namespace malis
