// The negative pass over a volume: from regions to basins, and filter-Kruskal over the edges between these, with label
// histograms.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/select.hpp"
#include "malis/graph/unknown_edges.hpp"
#include "malis/pairs/background.hpp"
#include "malis/pairs/count_merge.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/pairs/regions.hpp"
#include "malis/pairs/sink.hpp"
#include "malis/support/buffer.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis::detail {

// The edges between different basins, as a Visit (source.hpp).
template <class T, class Index>
struct BasinVisit {
    const T* aff;
    const T* aff_end;
    const Index* basin;  // per voxel

    template <class Collect>
    void row(Index edge, Index v, Index u, Index count, Collect& collect) const {
        for (Index block = 0; block < count; block += 64) {
            const T* a = aff + edge + block;
            const Index* from = basin + v + block;
            const Index* to = basin + u + block;
            std::uint64_t selected = select_different<Collect::strength>(from, to, a, aff_end, collect.threshold,
                                                                         std::min<Index>(64, count - block));
            for (; selected != 0; selected &= selected - 1) {
                const Index i = static_cast<Index>(lowest_bit(selected));
                collect(a[i], edge + block + i, from[i], to[i]);
            }
        }
    }
};

// The OnMerge where regions grow meanwhile (divide.hpp). That decides no pairs that count, so nothing is left to be decided
// as soon as all regions are joined, whatever they have yet to grow by.
template <class T, class Index, class Merge>
struct MergeAndGrow {
    Merge merge;
    const ForestLink<T, Index>* next;
    const ForestLink<T, Index>* const end;
    const Index* first_region;  // per label
    const Labels<Index>& labels;
    std::size_t left;  // components with a region

    bool operator()(const Record<T, Index>& r, Index a, Index b) {
        for (; next != end && next->before({r.rank, r.edge, 0, 0, 0}); ++next) {
            const Index root = merge.sets.find(first_region[next->b] + next->a);
            const std::uint64_t pairs = merge.histograms.add(root, labels.object(next->b), next->voxels).neg;
            merge.left.neg -= std::min(merge.left.neg, pairs);
        }
        left -= merge.histograms.foreground(a) > 0 && merge.histograms.foreground(b) > 0;
        return merge(r, a, b) && left > 1;
    }
    MALIS_INLINE void prefetch_root(Index root) const { merge.prefetch_root(root); }
    MALIS_INLINE void prefetch_beyond(Index root) const { merge.prefetch_beyond(root); }
};

// How many voxels carry a label, and how many negative pairs they make.
template <class Index>
struct Foreground {
    explicit Foreground(const Grid<Index>& grid, const Labels<Index>& labels, const Objects<Index>& objects)
        : voxels(grid.voxels - objects.voxels[0]), negative_pairs(pairs_of(voxels)) {
        std::uint64_t unlabelled = 0;
        for (Index l = 1; l < objects.labels(); ++l) {
            if (labels.is_unlabelled(l)) unlabelled += objects.voxels[l];
            else negative_pairs -= pairs_of(objects.voxels[l]);
        }
        negative_pairs -= pairs_of(unlabelled);
    }
    std::uint64_t voxels, negative_pairs;
};

// The pass itself, from regions to counts.
template <class T, class Index>
class NegativePass {
  public:
    NegativePass(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels, const Objects<Index>& objects,
                 const UnknownEdges<Index>& unknown, int threads, Sink<T, Index>& sink)
        : grid_(grid),
          aff_(aff),
          labels_(labels),
          objects_(objects),
          unknown_(unknown),
          threads_(threads),
          sink_(sink),
          foreground_(grid, labels, objects) {}

    // Begins with what the positive pass has found. Returns the loss.
    double run(ObjectRegions<T, Index> found) {
        if (foreground_.negative_pairs == 0 || sink_.negative_cutoff() == infinity) {
            sink_.expect_negative(0);
            return 0;
        }
        Regions<Index> regions = number_regions(grid_, labels_, objects_, found, threads_);
        const Buffer<ForestLink<T, Index>> growths = merge_lists(found.growths, threads_);
        found = {};  // what comes next needs the memory
        in_steps(growths.begin(), growths.end(), steps_per_poll, [&](const auto* begin, const auto* end) {
            for (const auto* growth = begin; growth != end; ++growth)
                regions.voxels[regions.first[growth->b] + growth->a] -= growth->voxels;
        });
        const Index basins =
            BackgroundFlow<T, Index, EveryWay<T, Index>>(grid_, objects_, EveryWay<T, Index>{aff_}, regions.of,
                                                         static_cast<Index>(regions.label.size()), threads_)
                .run();
        return merge_basins(regions, growths, basins);
    }

  private:
    static constexpr T infinity = std::numeric_limits<T>::infinity();

    // Counts the pairs that the edges between basins decide. The first of them are `regions.label.size()` regions, the
    // others are background.
    double merge_basins(const Regions<Index>& regions, const Buffer<ForestLink<T, Index>>& growths, Index basins) {
        LabelHistograms<Index> histograms(basins, labels_.count, 0, threads_);
        for (std::size_t r = 0; r < regions.label.size(); ++r)
            histograms.set(static_cast<Index>(r), labels_.object(regions.label[r]), regions.voxels[r]);
        UnionFind<Index> sets;
        sets.reset(basins, threads_);
        Buffer<Decision<T, Index>> decisions;
        const CountArrays arrays{nullptr, sink_.arrays().neg};
        if (arrays.neg == nullptr) decisions.reserve(basins);
        const std::uint64_t pairs = foreground_.negative_pairs;
        // How many pairs are counted in the end is known where all voxels are joined by known edges.
        const bool all_counted = grid_.connected() && !unknown_.any();
        if (!unknown_.any()) {
            kruskal_on_basins(regions, basins, sets, all_counted,
                              count_merge(sets, histograms, decisions, arrays, PairCount{0, pairs},
                                          [](const auto&) { return true; }));
        } else {
            const auto known = [&](const Record<T, Index>& r) { return !unknown_(r.edge); };
            auto merge = count_merge(sets, histograms, decisions, arrays, PairCount{0, pairs}, known);
            MergeAndGrow<T, Index, decltype(merge)> grow{
                merge, growths.begin(), growths.end(), regions.first.data(), labels_, regions.label.size()};
            kruskal_on_basins(regions, basins, sets, all_counted, grow);
        }
        return emit_negative<T, Index>(decisions, all_counted ? pairs : negative_pairs<T, Index>(decisions), sink_);
    }

    template <class OnMerge>
    void kruskal_on_basins(const Regions<Index>& regions, Index basins, UnionFind<Index>& sets, bool all_counted,
                           OnMerge&& on_merge) const {
        // Basins of many voxels share many edges; basins of a few, less than this on average, are as good as a lattice.
        constexpr Index voxels_of_lattice_basin = 8;
        const double edges_per_node = grid_.voxels / voxels_of_lattice_basin < basins ? lattice_edges : parallel_edges;
        // Where it is known how many pairs there are in the end, edges up to the cutoff need not be met.
        const T cutoff = sink_.negative_cutoff();
        const Rank<T> last = all_counted && cutoff > -infinity ? to_rank(std::nextafter(cutoff, infinity))
                                                               : std::numeric_limits<Rank<T>>::max();
        const BasinVisit<T, Index> visit{aff_, aff_ + grid_.edges(), regions.of.data()};
        KruskalScratch<T, Index> scratch;
        kruskal<T, Index>(GridScan<T, Index, BasinVisit<T, Index>>(grid_, visit, threads_), sets, scratch, threads_,
                          on_merge, edges_per_node, last);
    }

    const Grid<Index>& grid_;
    const T* aff_;
    const Labels<Index>& labels_;
    const Objects<Index>& objects_;
    const UnknownEdges<Index>& unknown_;
    const int threads_;
    Sink<T, Index>& sink_;
    const Foreground<Index> foreground_;
};

}  // namespace malis::detail
