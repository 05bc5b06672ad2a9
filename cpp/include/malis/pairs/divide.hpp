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

// Divides one object after the other.
template <class T, class Index>
class Division {
  public:
    // `sets` are what known edges have joined. Lists in `growths` how regions grow, from the number of a region in the
    // object and with its label; returns how many regions there are.
    Index run(const Grid<Index>& grid, const T* aff, const Buffer<Index>& labels, const Objects<Index>& objects,
              const UnknownEdges<Index>& unknown, const WaysOut<Index>& ways, Index l,
              const Buffer<Stretch<Index>>& stretches, UnionFind<Index>& sets, int threads,
              Buffer<ForestLink<T, Index>>& growths) {
        begin(sets, threads);
        ways.each_edge_of(
            grid, objects, l, [](Index) { return true; },
            [&](Index edge, Index v, Index u, Index local, Index count) {
                std::uint64_t out = ~select_same(labels.data() + v, labels.data() + u, count) & lowest_bits(count);
                for (; out != 0; out &= out - 1) {
                    const Index i = static_cast<Index>(lowest_bit(out));
                    Rank<T>& opens = opens_[sets.find(local + i)];
                    opens = std::min({opens, to_rank(aff[edge + i]), never - 1});
                }
            });
        kruskal<T, Index>(
            UnknownScan<T, Index>(aff, aff + grid.edges(), unknown, stretches, joined_.parents(), threads), sets,
            scratch_, threads, [&](const Record<T, Index>& r, Index a, Index b) {
                merge(sets, r, a, b, l, growths);
                return sets.sets() > 1;
            });
        in_steps(region_.size(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) region_at(joined_.root(static_cast<Index>(i)));
        });
        return regions_;
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

    void begin(UnionFind<Index>& sets, int threads) {
        const std::size_t n = sets.nodes();
        joined_.assign(sets.roots(threads), n);
        region_.reset(n);
        opens_.reset(n);
        regions_ = 0;
        in_steps(n, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                region_[i] = none;
                opens_[i] = never;
            }
        });
    }

    void merge(UnionFind<Index>& sets, const Record<T, Index>& r, Index a, Index b, Index l,
               Buffer<ForestLink<T, Index>>& growths) {
        if (opens_[a] > r.rank) std::swap(a, b);  // so that a is open if one of them is
        const bool open_a = opens_[a] <= r.rank, open_b = opens_[b] <= r.rank;
        const Rank<T> opens = std::min(opens_[a], opens_[b]);
        const Index region = open_a ? region_at(a) : none;
        if (open_b) region_at(b);
        else if (open_a) growths.push_back({r.rank, r.edge, region, l, sets.size(b)});
        const Index into = sets.link(a, b);
        opens_[into] = opens;
        if (open_b) return;
        joined_.link(into, into == a ? b : a);
        region_[into] = region;
    }

    // The region of an open component, of which this is the root.
    Index region_at(Index root) {
        if (region_[root] == none) region_[root] = regions_++;
        return region_[root];
    }

    KruskalScratch<T, Index> scratch_;  // a hint on unknown edges says nothing about known ones
    Buffer<Rank<T>> opens_;             // per root: the rank of the first edge that leads out
    LinkForest<Index> joined_;          // what links have joined, but for those between two open components
    Buffer<Index> region_;              // per root: its region, or none
    Index regions_ = 0;
};

}  // namespace malis::detail
