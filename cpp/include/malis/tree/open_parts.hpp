// One object among others: its own edges in their order, while edges that lead out of it may join what is outside.
//
// A component of the object is *closed* as long as none of its exits, the edges that lead out of it, has come in the order:
// it is just what it is in the whole graph. From its strongest exit on it is *open*: others may reach it from outside.
//
//     both closed        the edge is one of the whole's tree, and what it joins is known completely
//     one of them open   it is an edge of the whole's tree; what the open one holds besides what is of this object, only
//                        the whole knows. Of the object it holds what was joined here, if no other component is open
//     both open          it is an edge of the whole's tree unless a way outside joins the two before
//
// So what is left for the whole graph are *parts*, components when they open with the closed ones that join them later, and
// of an object that never has two open components at once nothing else. block_forest.hpp does the same for blocks of voxels.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/tree/link_forest.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis::detail {

template <class T, class Index>
struct Exit {
    Rank<T> rank;
    Index node;  // of the object
};

// The OnMerge of an object calls merge(sets, record, a, b, receive, link), which tells `receive`:
//     closed(record, a, b)                   an edge has joined closed components of so many nodes
//     attached(record, part, a, b, alone)    a closed component of b nodes to an open one, of a nodes so far; `alone`: no
//                                            other component of the object is open
//     linked(record, part, part)             it leads from one open component to another
//     grown(rank, part, nodes)               so many nodes have been attached to a component alone, up to this rank, and
//                                            from now on it is not the only open one
template <class T, class Index>
class OpenParts {
  public:
    // To be filled before begin(): in no order, and more than one of a node if need be.
    Buffer<Exit<T, Index>> exits;

    // `sets` are single nodes, or what edges that come before all exits have joined and nobody has to be told of.
    void begin(UnionFind<Index>& sets, int threads) {
        keep_strongest(sets, threads);
        std::sort(exits.begin(), exits.end(), polling([](const auto& x, const auto& y) { return x.rank < y.rank; }));
        next_exit_ = 0;
        open_ = 0;
        parts_ = 0;
        part_of_root_.reset(exits.empty() ? 0 : sets.nodes());
        if (exits.empty()) return;
        attached_.assign(sets.roots(threads), sets.nodes());
        in_steps(sets.nodes(), [&](std::size_t begin, std::size_t end) {
            std::fill(part_of_root_.begin() + begin, part_of_root_.begin() + end, none);
        });
        opened_.clear();
    }

    // link(root, root) is to join two sets, and to return the root that remains.
    template <class Receive, class Link>
    void merge(UnionFind<Index>& sets, const Record<T, Index>& r, Index a, Index b, Receive& receive, Link&& link) {
        if (exits.empty()) {
            receive.closed(r, sets.size(a), sets.size(b));
            link(a, b);
            return;
        }
        for (; next_exit_ < exits.size() && exits[next_exit_].rank <= r.rank; ++next_exit_)
            open(sets, sets.find(exits[next_exit_].node), receive);
        if (part_of_root_[a] == none) std::swap(a, b);
        const Index part = part_of_root_[a], other = part_of_root_[b];
        const bool was_alone = open_ == 1 && part != none;
        if (part == none) {
            receive.closed(r, sets.size(a), sets.size(b));
        } else if (other == none) {
            receive.attached(r, part, sets.size(a), sets.size(b), was_alone);
        } else {
            receive.linked(r, part, other);
            --open_;
        }
        const Index into = link(a, b);
        if (other == none) {
            attached_.link(into, into == a ? b : a);
            part_of_root_[into] = part;
        }
        if (part == none || open_ != 1) return;
        alone_ = into;
        last_ = r.rank;
        if (!was_alone) known_ = sets.size(into);
    }

    // When all edges have been taken: what has an exit is a part all the same.
    template <class Receive>
    void finish(UnionFind<Index>& sets, Receive& receive) {
        for (; next_exit_ < exits.size(); ++next_exit_) open(sets, sets.find(exits[next_exit_].node), receive);
    }

    Index parts() const { return parts_; }
    // How many nodes a part had when it opened.
    Index size_when_opened(Index part) const { return opened_[part]; }

    // Calls f(node, part) for every node; what belongs to no part gets any number.
    template <class F>
    void each_node(F&& f) {
        in_steps(part_of_root_.size(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i)
                f(static_cast<Index>(i), part_of_root_[attached_.root(static_cast<Index>(i))]);
        });
    }

  private:
    static constexpr Index none = static_cast<Index>(-1);

    // Only the strongest exit of a set opens it.
    void keep_strongest(UnionFind<Index>& sets, int threads) {
        if (exits.empty()) return;
        const Index* const root = sets.roots(threads);
        strongest_.reset(sets.nodes());
        in_steps(sets.nodes(), [&](std::size_t begin, std::size_t end) {
            std::fill(strongest_.begin() + begin, strongest_.begin() + end, std::numeric_limits<Rank<T>>::max());
        });
        std::size_t kept = 0;
        in_steps(exits.size(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                Rank<T>& strongest = strongest_[root[exits[i].node]];
                strongest = std::min(strongest, exits[i].rank);
            }
        });
        in_steps(exits.size(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const Exit<T, Index> exit = {exits[i].rank, root[exits[i].node]};
                exits[kept] = exit;
                kept += exit.rank == strongest_[exit.node];
            }
        });
        exits.resize(kept);
    }

    template <class Receive>
    void open(UnionFind<Index>& sets, Index root, Receive& receive) {
        if (part_of_root_[root] != none) return;
        part_of_root_[root] = parts_++;
        opened_.push_back(sets.size(root));
        ++open_;
        if (open_ == 1) {
            alone_ = root;
            known_ = sets.size(root);
        } else if (open_ == 2 && sets.size(alone_) > known_) {
            receive.grown(last_, part_of_root_[alone_], sets.size(alone_) - known_);
        }
    }

    Buffer<Rank<T>> strongest_;  // per root: the rank of its strongest exit
    std::size_t next_exit_ = 0;
    Index open_ = 0;    // components that are open
    Index alone_ = 0;   // the root of the only one
    Index known_ = 0;   // how many nodes of it `receive` knows of
    Rank<T> last_ = 0;  // the rank of what joined it last
    Index parts_ = 0;
    LinkForest<Index> attached_;  // what links have joined, but for those between two open components
    Buffer<Index> part_of_root_;  // of `sets`: a part of it, or none
    Buffer<Index> opened_;        // per part: its nodes when it opened
};

}  // namespace malis::detail
