// Unlabelled voxels in the negative pass: together they are one more object, but of the edges between them none is known, so
// no edge is contracted. What they join before an edge leads out is found first (tree/open_parts.hpp): without that every
// one of them would be a node of the pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/select.hpp"
#include "malis/graph/unknown_edges.hpp"
#include "malis/pairs/object_scan.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/pairs/regions.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/open_parts.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis::detail {

// Unlabelled voxels that a region of them takes in, by an edge of unknown truth.
template <class T, class Index>
struct Growth {
    Rank<T> rank;
    Index edge, region, voxels;
};

template <class T, class Index>
struct UnlabelledRegions {
    Buffer<Index> voxels;              // of each region, before it grows
    Buffer<Growth<T, Index>> growths;  // in order; regions count from 0
};

// Divides the unlabelled voxels into regions, which are added to `found`.
template <class T, class Index>
UnlabelledRegions<T, Index> divide_unlabelled(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels,
                                              const Objects<Index>& objects, int threads, ObjectRegions<Index>& found) {
    struct Receive {
        Buffer<Growth<T, Index>>& growths;
        void closed(const Record<T, Index>&, Index, Index) {}
        void attached(const Record<T, Index>& r, Index part, Index, Index voxels, bool) {
            growths.push_back({r.rank, r.edge, part, voxels});
        }
        void linked(const Record<T, Index>&, Index, Index) {}  // it leads from one region to another: the pass meets it
        void grown(Rank<T>, Index, Index) {}                   // by what has been attached
    };
    UnlabelledRegions<T, Index> regions;
    const Index l = labels.unlabelled, n = objects.voxels[l];
    OpenParts<T, Index> open;
    each_edge_of(grid, objects, l, [&](Index edge, Index v, Index u, Index local, Index count) {
        std::uint64_t out = ~select_same(labels.of.data() + v, labels.of.data() + u, count) & lowest_bits(count);
        for (; out != 0; out &= out - 1) {
            const Index i = static_cast<Index>(lowest_bit(out));
            open.exits.push_back({to_rank(aff[edge + i]), local + i});
        }
    });
    found.count[l] = n > 0 ? 1 : 0;
    if (open.exits.empty()) {  // nothing ever reaches them
        regions.voxels.push_back(n);
        return regions;
    }
    Receive receive{regions.growths};
    Buffer<Stretch<Index>> stretches;
    find_stretches(grid, objects, l, stretches);
    UnionFind<Index> sets;
    sets.reset(n, threads);
    open.begin(sets, threads);
    KruskalScratch<T, Index> scratch;
    kruskal<T, Index>(ObjectScan<T, Index>(grid, aff, stretches, threads), sets, scratch, threads,
                      [&](const Record<T, Index>& r, Index a, Index b) {
                          open.merge(sets, r, a, b, receive);
                          return sets.sets() > 1;
                      });
    open.finish(sets, receive, true);
    found.count[l] = open.parts();
    for (Index part = 0; part < open.parts(); ++part) regions.voxels.push_back(open.size_when_opened(part));
    auto& split = found.split[0];
    const std::size_t at = split.region.size();
    split.objects.push_back({l, at});
    split.region.resize(at + n);
    open.each_node(threads, [&](Index i, Index part) { split.region[at + i] = part; });
    return regions;
}

}  // namespace malis::detail
