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
#include "malis/support/parallel.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis::detail {

// The unknown edges within an object that lead from one set of nodes to another, as a Source (source.hpp).
template <class T, class Index>
class UnknownScan {
  public:
    UnknownScan(const T* aff, const T* aff_end, const UnknownEdges<Index>& unknown,
                const Buffer<Stretch<Index>>& stretches, const Index* set, int threads)
        : aff_(aff),
          aff_end_(aff_end),
          unknown_(unknown),
          stretches_(stretches),
          set_(set),
          chunks_(threads > 1 ? std::min(stretches.size(), chunks_for(threads)) : 1) {}

    std::size_t chunks() const { return chunks_; }

    template <class Collect>
    void scan(std::size_t chunk, Collect& collect) const {
        const Stretch<Index>* const begin = stretches_.data() + part_begin(stretches_.size(), chunks_, chunk);
        const Stretch<Index>* const end = stretches_.data() + part_begin(stretches_.size(), chunks_, chunk + 1);
        in_steps(begin, end, steps_per_poll / 64, [&](const Stretch<Index>* first, const Stretch<Index>* last) {
            for (const Stretch<Index>* s = first; s != last; ++s) scan_stretch(*s, collect);
        });
    }

    template <class Collect>
    double sample(Collect& collect) const {
        const std::size_t step = 1 + stretches_.size() / sampled_stretches;
        for (std::size_t i = step / 2; i < stretches_.size(); i += step) scan_stretch(stretches_[i], collect);
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
    const Buffer<Stretch<Index>>& stretches_;
    const Index* set_;  // per node, before the first edge
    std::size_t chunks_;
};

// Divides one object after the other.
template <class T, class Index>
class Division {
  public:
    // `sets` are what known edges have joined. Links to `growths` how regions grow, from the number of a region in the
    // object and with its label; returns how many regions there are.
    Index run(const Grid<Index>& grid, const T* aff, const Buffer<Index>& labels, const Objects<Index>& objects,
              const UnknownEdges<Index>& unknown, const WaysOut<Index>& ways, Index l,
              const Buffer<Stretch<Index>>& stretches, UnionFind<Index>& sets, KruskalScratch<T, Index>& scratch,
              int threads, Buffer<ForestLink<T, Index>>& growths) {
        const std::size_t n = sets.nodes();
        region_.reset(n);
        opens_.reset(n);
        known_.reset(n);
        regions_ = 0;
        attached_.assign(sets);
        const Index* const root = attached_.roots(threads);
        in_steps(n, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                known_[i] = root[i];
                region_[i] = none;
                opens_[i] = never;
            }
        });
        ways.each_edge_of(
            grid, objects, l, [](Index) { return true; },
            [&](Index edge, Index v, Index u, Index local, Index count) {
                std::uint64_t out = ~select_same(labels.data() + v, labels.data() + u, count) & lowest_bits(count);
                for (; out != 0; out &= out - 1) {
                    const Index i = static_cast<Index>(lowest_bit(out)), at = known_[local + i];
                    opens_[at] = std::min({opens_[at], to_rank(aff[edge + i]), never - 1});
                }
            });
        const auto merge = [&](const Record<T, Index>& r, Index a, Index b) {
            const bool swapped = opens_[a] > r.rank;  // so that a is open if one of them is
            if (swapped) std::swap(a, b);
            const Index node_a = swapped ? r.b : r.a, node_b = swapped ? r.a : r.b;
            if (opens_[b] <= r.rank) {
                open(node_a);
                open(node_b);
            } else {
                const Index region = opens_[a] <= r.rank ? open(node_a) : none;
                if (region != none) growths.push_back({r.rank, r.edge, region, l, sets.size(b)});
                attached_.unite(node_a, node_b);
                region_[attached_.find(node_a)] = region;
            }
            const Rank<T> opens = std::min(opens_[a], opens_[b]);
            opens_[sets.link(a, b)] = opens;
            return sets.sets() > 1;
        };
        kruskal<T, Index>(UnknownScan<T, Index>(aff, aff + grid.edges(), unknown, stretches, known_.data(), threads),
                          sets, scratch, threads, merge);
        in_steps(n, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) open(static_cast<Index>(i));
        });
        return regions_;
    }

    // Calls f(node, region) for every node of the object.
    template <class F>
    void each_node(int threads, F&& f) {
        const Index* const root = attached_.roots(threads);
        in_steps(attached_.nodes(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) f(static_cast<Index>(i), region_[root[i]]);
        });
    }

  private:
    static constexpr Index none = static_cast<Index>(-1);
    static constexpr Rank<T> never = std::numeric_limits<Rank<T>>::max();

    // The region of an open component, as far as it holds this node.
    Index open(Index node) {
        Index& region = region_[attached_.find(node)];
        if (region == none) region = regions_++;
        return region;
    }

    Buffer<Index> known_;        // per node: its set at first
    Buffer<Rank<T>> opens_;      // per set: the rank of the first edge that leads out
    UnionFind<Index> attached_;  // as the sets, but without what joins two open ones
    Buffer<Index> region_;       // per root of these: its region, or none
    Index regions_ = 0;
};

}  // namespace malis::detail
