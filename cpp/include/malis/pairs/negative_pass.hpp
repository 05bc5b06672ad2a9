// The negative pass over a volume without masks: from regions to basins, and filter-Kruskal over the edges between these,
// with label histograms.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/select.hpp"
#include "malis/pairs/background.hpp"
#include "malis/pairs/count_merge.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/pairs/regions.hpp"
#include "malis/pairs/sink.hpp"
#include "malis/support/buffer.hpp"
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

template <class Index>
std::uint64_t negative_pairs(const Grid<Index>& grid, const Objects<Index>& objects) {
    std::uint64_t pairs = pairs_of(grid.voxels - objects.voxels[0]);
    for (Index l = 1; l < objects.labels(); ++l) pairs -= pairs_of(objects.voxels[l]);
    return pairs;
}

// Counts the pairs that the edges between basins decide. The first of them are `regions.label.size()` regions, the others
// are background. Returns the loss.
template <class T, class Index, class Sink>
double merge_basins(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels, const Regions<Index>& regions,
                    Index basins, std::uint64_t pairs, int threads, Sink& sink) {
    LabelHistograms<Index> histograms(basins, labels.count, 0, threads);
    for (std::size_t r = 0; r < regions.label.size(); ++r)
        histograms.set(static_cast<Index>(r), regions.label[r], regions.voxels[r]);
    UnionFind<Index> sets;
    sets.reset(basins, threads);
    KruskalScratch<T, Index> scratch;
    Buffer<Decision<T, Index>> decisions;
    const CountArrays arrays{nullptr, sink.arrays().neg};
    if (arrays.neg == nullptr) decisions.reserve(basins);
    const BasinVisit<T, Index> visit{aff, aff + grid.edges(), regions.of.data()};
    // Basins of many voxels share many edges; basins of a few, less than this on average, are as good as a lattice.
    constexpr Index voxels_of_lattice_basin = 8;
    const double edges_per_node = grid.voxels / voxels_of_lattice_basin < basins ? lattice_edges : parallel_edges;
    // Where it is known how many pairs there are in the end, edges up to the cutoff need not be met.
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const T cutoff = sink.negative_cutoff();
    const bool connected = grid.connected();
    const Rank<T> last = connected && cutoff > -infinity ? to_rank(std::nextafter(cutoff, infinity))
                                                         : std::numeric_limits<Rank<T>>::max();
    kruskal<T, Index>(
        GridScan<T, Index, BasinVisit<T, Index>>(grid, visit, threads), sets, scratch, threads,
        count_merge(sets, histograms, decisions, arrays, PairCount{0, pairs}, [](const auto&) { return true; }),
        edges_per_node, last);
    return emit_negative<T, Index>(decisions, connected ? pairs : negative_pairs<T, Index>(decisions), sink);
}

// Returns the loss.
template <class T, class Index, class Sink>
double negative_pass(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels, const Objects<Index>& objects,
                     ObjectRegions<Index> found, int threads, Sink& sink) {
    const std::uint64_t pairs = negative_pairs(grid, objects);
    if (pairs == 0 || sink.negative_cutoff() == std::numeric_limits<T>::infinity()) {
        sink.expect_negative(0);
        return 0;
    }
    Regions<Index> regions = number_regions(grid, labels, objects, found, threads);
    found = {};  // what comes next needs the memory
    const Index basins = BackgroundFlow<T, Index>(grid, aff, objects, regions, threads).run();
    return merge_basins(grid, aff, labels, regions, basins, pairs, threads, sink);
}

}  // namespace malis::detail
