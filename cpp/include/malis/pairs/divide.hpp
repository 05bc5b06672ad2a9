// The regions of an object that edges of unknown truth touch, for the negative pass.
//
// That pass begins with what known edges within the object join. The unknown ones follow in the order of all edges, but
// as long as no edge leads out of what they join, they decide no negative pair, and it makes no difference when they are
// taken: this is done here, object by object. A component is *closed* until its strongest edge to another label comes,
// and *open* from then on (see also tree/block_forest.hpp):
//
//     both closed        one component from now on
//     one of them open   the open one, a region, *grows* by so many voxels, at this place of the order
//     both open          two regions; the negative pass meets the edge between them
//
// Edges that come before all that lead out join closed components alone, so they are joined without an order.
//
// Without this every voxel of a masked part, or every unlabelled one, would be a region.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "malis/graph/grid.hpp"
#include "malis/graph/select.hpp"
#include "malis/graph/unknown_edges.hpp"
#include "malis/pairs/object_scan.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/link_forest.hpp"
#include "malis/tree/open_parts.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis::detail {

// The unknown edges within an object that lead from one set of nodes to another, as a Source (source.hpp).
template <class T, class Index>
class UnknownScan {
  public:
    // Edges between two nodes of one `set` may be left out.
    UnknownScan(const T* aff, const T* aff_end, const UnknownEdges<Index>& unknown,
                const Buffer<Stretch<Index>>& stretches, const Index* set, int threads)
        : aff_(aff), aff_end_(aff_end), unknown_(unknown), stretches_(stretches, threads), set_(set) {}

    std::size_t chunks() const { return stretches_.chunks(); }

    template <class Collect>
    void scan(std::size_t chunk, Collect& collect) const {
        stretches_.each(chunk, [&](const Stretch<Index>& s) { scan_stretch(s, collect); });
    }

    template <class Collect>
    double sample(Collect& collect) const {
        const Buffer<Stretch<Index>>& all = stretches_.all();
        const std::size_t step = 1 + all.size() / sampled_stretches;
        for (std::size_t i = step / 2; i < all.size(); i += step) scan_stretch(all[i], collect);
        return static_cast<double>(step);
    }

  private:
    // As many edges as of an object that is known: in rows of twelve voxels or so, a tenth or all of them unknown.
    static constexpr std::size_t sampled_stretches = 256;

    template <class Collect>
    void scan_stretch(const Stretch<Index>& s, Collect& collect) const {
        collect.reserve(s.count);
        for (Index block = 0; block < s.count; block += 64) {
            const Index count = std::min<Index>(64, s.count - block);
            std::uint64_t selected = unknown_.select(s.edge + block, count);
            if (selected == 0) continue;
            const T* const aff = aff_ + s.edge + block;
            selected &= select_passing<Collect::strength>(aff, aff_end_, collect.threshold, count);
            for (; selected != 0; selected &= selected - 1) {
                const Index i = static_cast<Index>(lowest_bit(selected)), a = s.a + block + i, b = s.b + block + i;
                if (set_[a] != set_[b]) collect(aff[i], s.edge + block + i, a, b);
            }
        }
    }

    const T* aff_;
    const T* aff_end_;
    const UnknownEdges<Index>& unknown_;
    const StretchChunks<Index> stretches_;
    const Index* set_;  // per node
};

// Divides one object after the other: find_ways_out(), begin(), merge() for every edge that joins two sets, finish().
// Or run() in place of the last three, where nobody else wants to see these edges.
template <class T, class Index>
class Division {
  public:
    // Finds the edges that lead out of an object of n voxels, and adds those that are unknown to `exits`. Returns the
    // affinity from which on edges within it come before all of these, so that what they join is closed; NaN: none does.
    T find_ways_out(const Grid<Index>& grid, const T* aff, const Buffer<Index>& labels, const Objects<Index>& objects,
                    const UnknownEdges<Index>& unknown, const WaysOut<Index>& ways, Index l, Index n,
                    Buffer<Exit<T, Index>>& exits) {
        opens_.reset(n);
        in_steps(n, [&](Index from, Index to) { std::fill(opens_.begin() + from, opens_.begin() + to, never); });
        Rank<T> first = never;
        ways.each_edge_of(
            grid, objects, l, [](Index) { return true; },
            [&](Index edge, Index v, Index u, Index local, Index count) {
                std::uint64_t out = ~select_same(labels.data() + v, labels.data() + u, count) & lowest_bits(count);
                if (out == 0) return;
                const std::uint64_t unknown_out = unknown.select(edge, count);
                for (; out != 0; out &= out - 1) {
                    const Index i = static_cast<Index>(lowest_bit(out));
                    const Rank<T> rank = std::min(to_rank(aff[edge + i]), never - 1);
                    opens_[local + i] = std::min(opens_[local + i], rank);
                    first = std::min(first, rank);
                    if (unknown_out >> i & 1) exits.push_back({rank, local + i});
                }
            });
        return first == never ? -std::numeric_limits<T>::infinity() : affinity_before<T>(first);
    }

    // `sets` are what known edges have joined, and all edges of the affinity that find_ways_out() has returned.
    void begin(UnionFind<Index>& sets, int threads) {
        const std::size_t n = sets.nodes();
        const Index* const root = sets.roots(threads);
        joined_.assign(root, n);
        region_.reset(n);
        regions_ = 0;
        in_steps(n, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                region_[i] = none;
                opens_[root[i]] = std::min(opens_[root[i]], opens_[i]);
            }
        });
    }

    // Joins the sets of two roots, which an unknown edge does; returns the root that remains. Lists in `growths` how
    // regions grow, from the number of a region in the object and with its label l.
    Index merge(UnionFind<Index>& sets, const Record<T, Index>& r, Index a, Index b, Index l,
                Buffer<ForestLink<T, Index>>& growths) {
        if (opens_[a] > r.rank) std::swap(a, b);  // so that a is open if one of them is
        const bool open_a = opens_[a] <= r.rank, open_b = opens_[b] <= r.rank;
        const Rank<T> opens = std::min(opens_[a], opens_[b]);
        const Index region = open_a ? region_at(a) : none;
        if (open_b) region_at(b);
        else if (open_a) growths.push_back({r.rank, r.edge, region, l, sets.size(b)});
        const Index into = sets.link(a, b);
        opens_[into] = opens;
        if (open_b) return into;
        joined_.link(into, into == a ? b : a);
        region_[into] = region;
        return into;
    }

    // Returns how many regions there are.
    Index finish() {
        in_steps(region_.size(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) region_at(joined_.root(static_cast<Index>(i)));
        });
        return regions_;
    }

    Index run(const Grid<Index>& grid, const T* aff, const UnknownEdges<Index>& unknown, Index l,
              const Buffer<Stretch<Index>>& stretches, T joined_from, UnionFind<Index>& sets, int threads,
              Buffer<ForestLink<T, Index>>& growths) {
        begin(sets, threads);
        kruskal_from<T, Index>(
            joined_from, UnknownScan<T, Index>(aff, aff + grid.edges(), unknown, stretches, joined_.parents(), threads),
            sets, scratch_, threads, [&](const Record<T, Index>& r, Index a, Index b) {
                merge(sets, r, a, b, l, growths);
                return sets.sets() > 1;
            });
        return finish();
    }

    // Calls f(node, region) for every node of the object.
    template <class F>
    void each_node(F&& f) {
        in_steps(region_.size(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i)
                f(static_cast<Index>(i), region_[joined_.root(static_cast<Index>(i))]);
        });
    }

  private:
    static constexpr Index none = static_cast<Index>(-1);
    static constexpr Rank<T> never = std::numeric_limits<Rank<T>>::max();

    // The region of an open component, of which this is the root.
    Index region_at(Index root) {
        if (region_[root] == none) region_[root] = regions_++;
        return region_[root];
    }

    KruskalScratch<T, Index> scratch_;  // a hint on unknown edges says nothing about known ones
    Buffer<Rank<T>> opens_;             // per voxel, then per root: the rank of the first edge that leads out
    LinkForest<Index> joined_;          // what links have joined, but for those between two open components
    Buffer<Index> region_;              // per root: its region, or none
    Index regions_ = 0;
};

}  // namespace malis::detail
