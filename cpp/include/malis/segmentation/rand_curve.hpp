// How good the segmentation at every threshold is, from one pass over the edges.
//
// Lowering the threshold past an affinity joins components. What that changes are sums over pairs of components alone:
//
//     true positives    + x * y           for every label of which they hold x and y voxels
//     false positives   + x * y           for every two labels
//     sum of f(n_ij)    + f(x + y) - f(x) - f(y)    f(n) = n log2 n, n_ij: voxels of label j in component i
//     sum of f(s_i)     likewise          s_i: foreground voxels of component i
//
// The pairs give the Rand scores, the sums the two conditional entropies. All four are kept as integers (of f, a fixed
// part of a bit is the unit), so that they can be added up in any order: blocks of the volume (tree/block_forest.hpp) find
// their changes on their own, and an f that is added and later removed leaves no trace. Changes are put in order at last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/pairs/on_blocks.hpp"
#include "malis/segmentation/curve_changes.hpp"
#include "malis/segmentation/curve_steps.hpp"
#include "malis/segmentation/distinct.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/order.hpp"

namespace malis {

namespace detail {

template <class T, class Index>
RandCurve<T> rand_curve(const Grid<Index>& grid, Affinities<T> aff, const Labels<Index>& labels,
                        std::optional<BlockShape> blocks, int threads) {
    const std::vector<std::uint64_t> sizes = label_sizes(labels, threads);
    CurveTruth truth = truth_of(sizes);
    const Entropies entropies(truth.foreground);
    for (std::size_t l = 1; l < sizes.size(); ++l) truth.entropy += entropies(sizes[l]);

    RandCurve<T> curve;
    curve.true_pairs = static_cast<std::int64_t>(truth.all.pos);
    curve.foreground = static_cast<std::int64_t>(truth.foreground);
    const Buffer<Rank<T>> ranks = distinct_ranks<T, Index>(grid, aff, threads);
    if (ranks.empty()) return curve;
    {
        const auto changes = blocks ? curve_changes<T, Index>(grid, aff, labels, *blocks, entropies, threads)
                                    : curve_changes<T, Index>(grid, aff, labels, entropies, threads);
        CurveSteps<T>(changes, ranks, truth, entropies, threads).write(curve);
    }
    curve.thresholds.reset(ranks.size());
    parallel_ranges(ranks.size(), std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) curve.thresholds[i] = from_rank<T>(ranks[i]);
    });
    return curve;
}

}  // namespace detail

}  // namespace malis
