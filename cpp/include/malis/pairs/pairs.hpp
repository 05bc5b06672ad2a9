// Pair counting: how many positive and negative voxel pairs each edge of an affinity graph decides.
//
// Turaga, Briggman, Helmstaedter, Denk, Seung: Maximin affinity learning of image segmentation, NIPS 2009; with the
// two constrained passes of Funke et al.: Large scale image segmentation with structured loss based deep learning for
// connectome reconstruction, TPAMI 2019.
//
// An edge that joins two components in the order of edges (order.hpp) decides all pairs between them. There are these
// ways to run through that order:
//
// On any graph (on_graph.hpp): one filter-Kruskal over all nodes, with a label histogram for each component. On a volume
// without constraints the same, but block by block (on_blocks.hpp).
//
// On a volume, where both constrained passes share their work:
//
//     labels, compacted (labels.hpp)
//       v   runs of voxels, grouped by label
//     objects (objects.hpp); of unlabelled voxels one for each block (unlabelled.hpp)
//       v   positive pass (positive_pass.hpp): every object on its own  ------------------>  positive counts
//       |   and what edges of unknown truth join outside of them (outside.hpp)  ---------->
//     regions (regions.hpp): the components of the objects along known edges (divide.hpp)
//       v   every background voxel joins the neighbour across its strongest edge (background.hpp)
//     basins: regions with the background that leads to them, and patches of background that lead to none yet
//       v   negative pass (negative_pass.hpp): edges between basins, with label histograms
//     negative counts
//
// Edges of unknown truth (unknown_edges.hpp), as masks make them, take part in both passes.
//
// Counts go to a sink (sink.hpp), which writes them down or makes a loss of them (loss.hpp).
#pragma once

#include <utility>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/unknown_edges.hpp"
#include "malis/pairs/negative_pass.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/pairs/on_blocks.hpp"
#include "malis/pairs/on_graph.hpp"
#include "malis/pairs/options.hpp"
#include "malis/pairs/positive_pass.hpp"
#include "malis/pairs/regions.hpp"
#include "malis/pairs/unlabelled.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/block_forest.hpp"

namespace malis {

// Counts on a volume, of the kinds that are wanted; returns the loss of the sink. Takes the labels apart.
template <class T, class Index>
double count_on_grid(const Grid<Index>& grid, const T* aff, Labels<Index> labels, const PairOptions& options,
                     Sink<T, Index>& sink, bool want_positive = true, bool want_negative = true) {
    const bool constrained_positive = want_positive && options.constrain_positive;
    const bool constrained_negative = want_negative && options.constrain_negative;
    const UnknownEdges<Index> unknown = unknown_edges(grid, labels, options.edge_mask, options.threads);
    labels.forget_ignored(options.threads);
    double loss = 0;
    if (constrained_positive || constrained_negative) {
        const int threads = threads_for(grid.voxels, options.threads);
        Objects<Index> objects = find_objects(grid, labels, threads);
        divide_unlabelled(grid, labels, objects);
        detail::ObjectRegions<T, Index> regions;
        loss += detail::PositivePass<T, Index>(grid, aff, labels, objects, unknown, threads, sink, constrained_positive,
                                               constrained_negative)
                    .run(regions);
        if (constrained_negative) {
            loss += detail::NegativePass<T, Index>(grid, aff, labels, objects, unknown, threads, sink)
                        .run(std::move(regions));
        }
    }
    const bool positive = want_positive && !options.constrain_positive;
    const bool negative = want_negative && !options.constrain_negative;
    if (!positive && !negative) return loss;
    labels.join_unlabelled(options.threads);
    if (const auto blocks = blocks_that_pay(grid)) {
        return loss + count_on_blocks<T, Index>(grid, aff, labels, unknown, *blocks, options.threads, positive,
                                                negative, sink);
    }
    return loss + count_unconstrained<T, Index>(grid, aff, labels, unknown, options.threads, positive, negative, sink);
}

}  // namespace malis
