// Solves one block of a volume: Kruskal's algorithm over its edges, and the nodes and links that it leaves. What closed
// and open components, nodes and links are stands in tree/block_forest.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "malis/support/buffer.hpp"
#include "malis/tree/block_kruskal.hpp"
#include "malis/tree/blocks.hpp"
#include "malis/tree/links.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

// How a closed component is joined to an open one.
enum class Attached {
    dropped,  // nothing about it is needed later
    value,    // as a number of voxels of one label
    node      // it becomes a node
};

namespace detail {

template <class T, class Index>
struct SolvedBlock {
    Index nodes = 0, base = 0;           // how many nodes it has, and how many all blocks before it
    Buffer<Local> node;                  // per number of a voxel, where a face edge begins
    Buffer<ForestLink<T, Index>> links;  // in order; nodes count from 0 within the block
};

// What a thread keeps from one block to the next.
template <class T, class Index>
struct BlockScratch {
    explicit BlockScratch(const Blocks<T, Index>& blocks) : kruskal(blocks) {}
    BlockKruskal<T, Index> kruskal;
    Buffer<Rank<T>> opens;               // per root: the rank of the first face edge
    Buffer<Local> number;                // per root: its node
    Buffer<ForestLink<T, Index>> links;  // of the block at hand
};

template <class T, class Index, class Carry>
class BlockSolver {
  public:
    BlockSolver(const Blocks<T, Index>& blocks, BlockScratch<T, Index>& scratch, Carry& carry)
        : blocks_(blocks), scratch_(scratch), kruskal_(scratch.kruskal), sets_(scratch.kruskal.sets), carry_(carry) {}

    // Edges of a rank above `last` are left out.
    void solve(std::size_t i, Rank<T> last, SolvedBlock<T, Index>& solved) {
        begin(blocks_[i], solved);
        kruskal_.run(
            [this](Rank<T> rank, std::uint32_t e, Local, Local, Local a, Local b) {
                const bool open_a = opens_[a] <= rank, open_b = opens_[b] <= rank;
                const Rank<T> opened = std::min(opens_[a], opens_[b]);
                if (!(open_a | open_b)) {
                    const Local into = kruskal_.link(a, b);
                    opens_[into] = opened;
                    carry_.joined(rank, e, into, into == a ? b : a);
                    return;
                }
                const Local node = open_a && open_b ? join_open(rank, e, a, b)
                                   : open_a         ? attach(rank, e, a, b)
                                                    : attach(rank, e, b, a);
                const Local into = kruskal_.link(a, b);
                opens_[into] = opened;
                number_[into] = node;
            },
            last);
        open_rest(blocks_[i]);
        solved.nodes = next_;
        solved.links = exact_copy(scratch_.links);
        carry_.end(i);
    }

  private:
    void begin(const typename Blocks<T, Index>::Block& block, SolvedBlock<T, Index>& solved) {
        kruskal_.begin(block);
        blocks_.find_first_face_edges(block, scratch_.opens);
        const std::size_t n = blocks_.numbers(block);
        for (Buffer<Local>* nodes : {&scratch_.number, &solved.node}) {
            nodes->reset(n);
            std::fill(nodes->begin(), nodes->end(), no_node);
        }
        scratch_.links.clear();
        opens_ = scratch_.opens.data();
        number_ = scratch_.number.data();
        node_ = solved.node.data();
        next_ = 0;
        carry_.begin(kruskal_);
    }

    // The node of an open component, which becomes one if it is none yet.
    Local open(Local root) {
        if (number_[root] == no_node) {
            number_[root] = next_;
            sets_.each_member(root, [this](Local v) { node_[v] = next_; });
            carry_.open(root, next_);
            ++next_;
        }
        return number_[root];
    }

    // These return the node of what edge e joins.
    Local join_open(Rank<T> rank, std::uint32_t e, Local a, Local b) {
        const Local to = open(a);
        scratch_.links.push_back({rank, kruskal_.edge(e), to, open(b), 0});
        return to;
    }
    Local attach(Rank<T> rank, std::uint32_t e, Local open_root, Local closed_root) {
        const Local to = open(open_root);
        Index label = 0, voxels = 0;
        const Attached how = carry_.attach(rank, e, closed_root, label, voxels);
        if (how == Attached::node) {
            scratch_.links.push_back({rank, kruskal_.edge(e), to, open(closed_root), 0});
            return to;
        }
        if (how == Attached::value) scratch_.links.push_back({rank, kruskal_.edge(e), to, label, voxels});
        sets_.each_member(closed_root, [this, to](Local v) { node_[v] = to; });
        return to;
    }

    // What is closed to the end has face edges all the same.
    void open_rest(const typename Blocks<T, Index>::Block& block) {
        Blocks<T, Index>::each_row(block, [&](Index row, Index, Index) {
            const Index begin = static_cast<Index>(row << blocks_.row_bits);
            for (Index v = begin; v < begin + block.width; ++v) {
                if (node_[v] != no_node) continue;
                const Local root = sets_.find(static_cast<Local>(v));
                if (opens_[root] != blocks_.never) open(root);
            }
        });
    }

    const Blocks<T, Index>& blocks_;
    BlockScratch<T, Index>& scratch_;
    BlockKruskal<T, Index>& kruskal_;
    UnionFind<Local>& sets_;
    Carry& carry_;
    // Of the block at hand, as in the scratch memory and what is solved.
    Rank<T>* opens_ = nullptr;
    Local *number_ = nullptr, *node_ = nullptr;
    Local next_ = 0;  // number of the next node
};

}  // namespace detail

}  // namespace malis
