// The seeded maximin watershed within a block of a volume. As in tree/block_forest.hpp, but for what seeds change:
//
//     seeded    a component that has a seed, or has joined one that has. No two of them are ever joined, and what lies
//               outside does not matter any more: all of them are one set here, and an edge within it is dropped
//     closed    a component without a seed, before its first face edge. It joins whatever its strongest edge leads to
//     open      a component without a seed, from its first face edge on: a node. Whether it has a seed is not known, so
//               its edges to other open or seeded components are links
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

namespace detail {

template <class Index>
constexpr Index no_seed = static_cast<Index>(-1);

template <class T, class Index>
struct WatershedBlock {
    // What a voxel gets, in 16 bits: the number of a voxel of its block, of which it gets the seed, if any, or a node.
    static constexpr Local is_node = Local{1} << 15;

    Index nodes = 0, base = 0;  // how many nodes it has, and how many all blocks before it
    Buffer<Local> gets;
    // Between nodes, counted from 0 in the block; or with 1 for voxels, to a voxel with a seed.
    Buffer<ForestLink<T, Index>> links;
};

// Calls f(voxel of the volume, number in the block, length) for every row of a block.
template <class T, class Index, class F>
void each_row_of(const Blocks<T, Index>& blocks, const typename Blocks<T, Index>::Block& block, F&& f) {
    Blocks<T, Index>::each_row(block, [&](Index row, Index z, Index y) {
        f((z * blocks.grid.height + y) * blocks.grid.width + block.x, static_cast<Index>(row << blocks.row_bits),
          block.width);
    });
}

// Solves one block after the other; `seed` and `last` as in block_watershed().
template <class T, class Index>
class WatershedBlockSolver {
  public:
    using Block = typename Blocks<T, Index>::Block;
    using Solved = WatershedBlock<T, Index>;

    WatershedBlockSolver(const Blocks<T, Index>& blocks, const Index* seed, Rank<T> last)
        : blocks_(blocks), seed_(seed), last_(last), kruskal_(blocks) {}

    void solve(const Block& block, Solved& solved) {
        begin(block, solved);
        join_seeds(block);
        const auto join = [this](Rank<T> rank, std::uint32_t e, Local v, Local u, Local a, Local b) {
            const bool seeded_a = a == seeded_, seeded_b = b == seeded_;
            const bool closed_a = !seeded_a && opens_[a] > rank, closed_b = !seeded_b && opens_[b] > rank;
            const Rank<T> opened = std::min(opens_[a], opens_[b]);
            if (!(closed_a && closed_b)) {
                if (!seeded_a && !closed_a && !is_open_[a]) open(a);
                if (!seeded_b && !closed_b && !is_open_[b]) open(b);
                if (closed_a) give(a, gets_[u]);
                else if (closed_b) give(b, gets_[v]);
                else if (seeded_a) add_link(rank, e, gets_[u], gets_[v]);
                else add_link(rank, e, gets_[v], gets_[u]);
            }
            const Local into = kruskal_.link(a, b);
            opens_[into] = opened;
            if (seeded_a || seeded_b) seeded_ = into;
            is_open_[into] = !(closed_a && closed_b);
        };
        kruskal_.run(join, last_);
        open_rest(block);
        solved.nodes = next_;
    }

  private:
    static constexpr Local is_node = Solved::is_node;

    void begin(const Block& block, Solved& solved) {
        kruskal_.begin(block);
        blocks_.find_first_face_edges(block, opens_);
        const std::size_t n = blocks_.numbers(block);
        is_open_.reset(n);
        std::fill(is_open_.begin(), is_open_.end(), false);
        solved.gets.reset(n);
        gets_ = solved.gets.data();
        for (std::size_t v = 0; v < n; ++v) gets_[v] = static_cast<Local>(v);
        links_ = &solved.links;
        seeded_ = no_node;
        next_ = 0;
    }

    void join_seeds(const Block& block) {
        each_row_of(blocks_, block, [this](Index first, Index v, Index width) {
            for (Index x = 0; x < width; ++x) {
                if (seed_[first + x] == no_seed<Index>) continue;
                const Local seed = static_cast<Local>(v + x);
                seeded_ = seeded_ == no_node ? seed : kruskal_.link(seeded_, seed);
            }
        });
    }

    void give(Local root, Local what) {
        kruskal_.sets.each_member(root, [this, what](Local v) { gets_[v] = what; });
    }

    void open(Local root) {
        give(root, static_cast<Local>(is_node | next_));
        is_open_[root] = true;
        ++next_;
    }

    // Where two components have become one over a link they may in fact have got different seeds before. So it matters
    // which voxel an edge leads to.
    void add_link(Rank<T> rank, std::uint32_t e, Local node, Local to) {
        const Index from = static_cast<Index>(node & ~is_node);
        if (to & is_node) links_->push_back({rank, kruskal_.edge(e), from, static_cast<Index>(to & ~is_node), 0});
        else links_->push_back({rank, kruskal_.edge(e), from, kruskal_.voxel(to), 1});
    }

    // What is closed to the end has face edges all the same.
    void open_rest(const Block& block) {
        each_row_of(blocks_, block, [this](Index, Index v, Index width) {
            for (Index x = 0; x < width; ++x) {
                const Local root = kruskal_.sets.find(static_cast<Local>(v + x));
                if (root != seeded_ && !is_open_[root] && opens_[root] != blocks_.never) open(root);
            }
        });
    }

    const Blocks<T, Index>& blocks_;
    const Index* const seed_;
    const Rank<T> last_;
    BlockKruskal<T, Index> kruskal_;
    Buffer<Rank<T>> opens_;  // per root: the rank of the first face edge
    Buffer<bool> is_open_;   // per root: it is a node
    // Of the block at hand:
    Local* gets_ = nullptr;
    Buffer<ForestLink<T, Index>>* links_ = nullptr;
    Local seeded_ = no_node;  // root of all that is seeded
    Local next_ = 0;          // number of the next node
};

}  // namespace detail

}  // namespace malis
