// The positive pass outside of objects: edges of unknown truth that lead from one object to another, or through background.
//
// None of them has counts of its own, as they are unknown. But what they join, no edge within an object decides any more. So
// every object on its own (tree/open_parts.hpp) says of which of its edges that matters, and here these take their place
// among the edges outside. Background has no voxels that count, so every voxel of it joins the neighbour across its strongest
// unknown edge before anything is sorted (background.hpp): of a slab that is unknown a sixth of the nodes outside is left, and
// few edges are ever sorted.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/select.hpp"
#include "malis/graph/unknown_edges.hpp"
#include "malis/pairs/background.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/open_parts.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis::detail {

// Part of an object that has exits, and its voxels when it opened.
template <class Index>
struct OpenPart {
    Index node, label, voxels;
};

// In place of an edge: voxels that an object has joined by itself.
template <class Index>
constexpr Index no_edge = static_cast<Index>(-1);

// The edges of unknown truth between nodes that are not of one object, as a Visit (source.hpp).
template <class T, class Index>
struct OutsideVisit {
    const T* aff;
    const T* aff_end;
    const Labels<Index>& labels;
    const UnknownEdges<Index>& unknown;
    const Index* node;  // per voxel

    template <class Collect>
    void row(Index edge, Index v, Index u, Index count, Collect& collect) const {
        for (Index block = 0; block < count; block += 64) {
            const Index n = std::min<Index>(64, count - block);
            std::uint64_t selected = unknown.select(edge + block, n);
            if (selected == 0) continue;
            selected &= select_passing<Collect::strength>(aff + edge + block, aff_end, collect.threshold, n);
            for (; selected != 0; selected &= selected - 1) {
                const Index i = block + static_cast<Index>(lowest_bit(selected));
                const Index l = labels.of[v + i];
                if (l == labels.of[u + i] && l != 0 && !labels.is_unlabelled(l)) continue;
                const Index a = node[v + i], b = node[u + i];
                if (a != b) collect(aff[edge + i], edge + i, a, b);
            }
        }
    }
};

// Joins parts of objects along the edges outside, and calls report(rank, edge, pairs) for the known edges of objects, among
// `links`, that still decide positive pairs. `node` holds the part of every voxel that has an exit.
template <class T, class Index, class Report>
void join_outside(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels, const Objects<Index>& objects,
                  const UnknownEdges<Index>& unknown, const std::vector<char>& touched_rows,
                  const std::vector<Buffer<OpenPart<Index>>>& parts, const Buffer<ForestLink<T, Index>>& links,
                  Buffer<Index>& node, int threads, Report&& report) {
    using Link = ForestLink<T, Index>;
    const auto is_reported = [&](const Link& link) { return link.edge != no_edge<Index> && !unknown(link.edge); };
    const Link* last = links.end();  // what follows is not reported, and nothing after that
    while (last != links.begin() && !is_reported(last[-1])) --last;
    if (last == links.begin()) return;
    Index nodes = 0;
    for (const auto& of_task : parts) nodes += static_cast<Index>(of_task.size());
    // Voxels that are in no positive pair: unlabelled ones are nodes of their own, background flows.
    for (Index l = 1; l < objects.labels(); ++l) {
        if (!labels.is_unlabelled(l)) continue;
        const Run<Index>* const runs = objects.runs.data() + objects.first_run[l];
        const std::size_t count = objects.first_run[l + 1] - objects.first_run[l];
        parallel_ranges(count, std::size_t{1} << 12, threads, [&](std::size_t begin, std::size_t end) {
            for (const Run<Index>* run = runs + begin; run != runs + end; ++run)
                for (Index i = 0; i < run->length; ++i) node[run->v + i] = nodes + run->first + i;
        });
        nodes += objects.voxels[l];
    }
    nodes = BackgroundFlow<T, Index, UnknownWay<T, Index>>(
                grid, objects, UnknownWay<T, Index>{aff, unknown, touched_rows}, node, nodes, threads)
                .run();
    UnionFind<Index> sets;
    sets.reset(nodes, threads);
    LabelHistograms<Index> histograms(nodes, labels.count, labels.unlabelled, threads);
    for (const auto& of_task : parts) {
        poll();
        for (const OpenPart<Index>& part : of_task) histograms.set(part.node, part.label, part.voxels);
    }
    const auto link_sets = [&](Index a, Index b) {
        const Index into = sets.link(a, b);
        return histograms.merge(into, into == a ? b : a);
    };
    const Link* next = links.begin();
    const auto take = [&](const Link& link) {
        const Index a = sets.find(link.a);
        PairCount pairs{0, 0};
        if (link.voxels != 0) {
            pairs = histograms.add(a, link.b, link.voxels);
        } else {
            const Index b = sets.find(link.b);
            if (a != b) pairs = link_sets(a, b);
        }
        if (pairs.pos != 0 && is_reported(link)) report(link.rank, link.edge, pairs.pos);
    };
    KruskalScratch<T, Index> scratch;
    const OutsideVisit<T, Index> visit{aff, aff + grid.edges(), labels, unknown, node.data()};
    kruskal<T, Index>(
        GridScan<T, Index, OutsideVisit<T, Index>>(grid, visit, threads), sets, scratch, threads,
        [&](const Record<T, Index>& r, Index, Index) {
            for (; next != last && next->before({r.rank, r.edge, 0, 0, 0}); ++next) take(*next);
            const Index a = sets.find(r.a), b = sets.find(r.b);
            if (a != b) link_sets(a, b);
            return next != last;
        },
        lattice_edges, (last - 1)->rank);
    in_steps(next, last, steps_per_poll, [&](const Link* begin, const Link* end) {
        for (const Link* link = begin; link != end; ++link) take(*link);
    });
}

}  // namespace malis::detail
