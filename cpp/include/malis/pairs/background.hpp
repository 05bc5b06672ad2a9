// Background voxels flow to the regions: each joins the neighbour across its strongest edge.
//
// A background voxel brings no pairs, so it may join that neighbour at once, whatever the order of all edges: no other edge
// of it comes earlier. What follows from that are basins, a region with the background that leads to it, and patches
// of background that lead to no region yet.
//
// This serves both passes: the negative one, where all edges lead on, and the part of the positive one that is outside
// of objects (outside.hpp), where only edges of unknown truth do, to parts of objects in place of regions.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "malis/graph/grid.hpp"
#include "malis/graph/select.hpp"
#include "malis/graph/unknown_edges.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"

namespace malis::detail {

// A way out of a voxel: forward along an offset or backward against it, for one row and the x that stay inside.
template <class Index>
struct Way {
    Index distance;
    Index edge;  // of voxel 0: that of voxel v is edge + v
    Index x_begin, x_end;
};

// The ways out of the voxels of a row, in the order of their edge index, which is the same for all its voxels.
template <class Index>
struct Ways {
    std::vector<Way<Index>> all;
    Index x_begin, x_end;  // the x that stay inside whichever way they go
};

// distance[i]: how far the strongest way leads from voxel v + i, which is at x + i of its row; 0 where no way has an
// affinity above minus infinity. May write 3 items beyond `count` (Buffer sees to that).
template <class T, class Index>
inline void strongest_way(const T* aff, const Ways<Index>& ways, Index v, Index x, Index count, Index* distance) {
    for (Index i = 0; i < count; ++i) {
        T best = -std::numeric_limits<T>::infinity();
        distance[i] = 0;
        for (const Way<Index>& way : ways.all) {
            if (x + i < way.x_begin || x + i >= way.x_end) continue;
            const T a = aff[static_cast<Index>(way.edge + v + i)];
            if (a > best) {
                best = a;
                distance[i] = way.distance;
            }
        }
    }
}

#if defined(MALIS_SSE2)
inline void strongest_way(const float* aff, const Ways<std::uint32_t>& ways, std::uint32_t v, std::uint32_t x,
                          std::uint32_t count, std::uint32_t* distance) {
    if (x < ways.x_begin || x + count + 3 >= ways.x_end) {
        strongest_way<float, std::uint32_t>(aff, ways, v, x, count, distance);
        return;
    }
    for (std::uint32_t i = 0; i < count; i += 4) {
        __m128 best = _mm_set1_ps(-std::numeric_limits<float>::infinity());
        __m128i of = _mm_setzero_si128();
        for (const Way<std::uint32_t>& way : ways.all) {
            const __m128 a = _mm_loadu_ps(aff + static_cast<std::uint32_t>(way.edge + v + i));
            const __m128i stronger = _mm_castps_si128(_mm_cmpgt_ps(a, best));
            const __m128i here = _mm_set1_epi32(static_cast<int>(way.distance));
            best = _mm_max_ps(a, best);
            of = _mm_or_si128(_mm_and_si128(stronger, here), _mm_andnot_si128(stronger, of));
        }
        _mm_storeu_si128(reinterpret_cast<__m128i*>(distance + i), of);
    }
}
#endif

// All edges lead on.
template <class T, class Index>
struct EveryWay {
    const T* aff;

    bool leads_from(Index) const { return true; }
    void operator()(const Ways<Index>& ways, Index v, Index x, Index count, Index* distance) const {
        strongest_way(aff, ways, v, x, count, distance);
    }
};

// Edges of unknown truth lead on.
template <class T, class Index>
struct UnknownWay {
    const T* aff;
    const UnknownEdges<Index>& unknown;
    const std::vector<char>& touched_rows;  // rows_of_unknown_edges()

    bool leads_from(Index row) const { return touched_rows[row] != 0; }
    void operator()(const Ways<Index>& ways, Index v, Index x, Index count, Index* distance) const {
        constexpr Index most = 64;
        for (Index block = 0; block < count; block += most) {
            const Index n = std::min<Index>(most, count - block);
            T best[most];
            std::fill_n(best, n, -std::numeric_limits<T>::infinity());
            std::fill_n(distance + block, n, Index{0});
            for (const Way<Index>& way : ways.all) {
                const Index skipped = way.x_begin > x + block ? way.x_begin - (x + block) : 0;
                const Index end = std::min<Index>(n, way.x_end > x + block ? way.x_end - (x + block) : 0);
                if (skipped >= end) continue;
                const Index edge = static_cast<Index>(way.edge + v + block);
                std::uint64_t selected = unknown.select(static_cast<Index>(edge + skipped), end - skipped);
                for (; selected != 0; selected &= selected - 1) {
                    const Index i = skipped + static_cast<Index>(lowest_bit(selected));
                    const T a = aff[static_cast<Index>(edge + i)];
                    if (!(a > best[i])) continue;
                    best[i] = a;
                    distance[block + i] = way.distance;
                }
            }
        }
    }
};

template <class T, class Index, class Strongest>
class BackgroundFlow {
  public:
    // `node` holds, per voxel that is no background, one of the first `labelled` nodes.
    BackgroundFlow(const Grid<Index>& grid, const Objects<Index>& objects, Strongest strongest, Buffer<Index>& node,
                   Index labelled, int threads)
        : grid_(grid),
          objects_(objects),
          strongest_(strongest),
          node_(node.data()),
          labelled_(labelled),
          threads_(threads) {}

    // Joins every background voxel to the neighbour across its strongest edge, and follows these to a labelled node or,
    // where two voxels have each other for that neighbour, to a patch of background, numbered behind these. Afterwards
    // every background voxel from which edges lead has a node; returns a bound for their numbers.
    Index run() {
        const Index first = objects_.first_run[0], last = objects_.first_run[1];
        if (first == last) return labelled_;
        const std::size_t slabs =
            std::min<std::size_t>(last - first, threads_ > 1 ? 2 * static_cast<std::size_t>(threads_) : 1);
        // Slabs take numbers of patches in blocks; some at the end of a block stay unused.
        constexpr Index block = 64;
        // node < lead: a labelled node or patch; else it leads on to voxel node - lead.
        const Index lead = labelled_ + grid_.voxels + block * static_cast<Index>(slabs);
        const auto slab_run = [&](std::size_t s) { return first + part_begin(last - first, slabs, s); };
        const auto slab_voxel = [&](std::size_t s) {
            return s == 0 ? Index{0} : s == slabs ? grid_.voxels : objects_.runs[slab_run(s)].v;
        };
        std::atomic<Index> next{labelled_};
        std::vector<Buffer<Index>> voxels(slabs);
        parallel_for(slabs, threads_, [&](std::size_t s, std::size_t) {
            Index number = 0, left = 0;
            const auto new_patch = [&] {
                if (left == 0) {
                    number = next.fetch_add(block, std::memory_order_relaxed);
                    left = block;
                }
                --left;
                return number++;
            };
            voxels[s].reset(std::min<Index>(objects_.voxels[0], slab_voxel(s + 1) - slab_voxel(s)));
            lead_on(slab_run(s), slab_run(s + 1), lead, voxels[s]);
            follow(voxels[s], slab_voxel(s), slab_voxel(s + 1), lead, new_patch);
        });
        // All at once: where two slabs lead to each other, others may lead there as well.
        Buffer<Index> leaving;
        for (const auto& of_slab : voxels) {
            poll();
            for (const Index v : of_slab) leaving.push_back(v);
        }
        Index patches = next.load();
        follow(leaving, 0, grid_.voxels, lead, [&] { return patches++; });
        return patches;
    }

  private:
    void ways_of_row(Index z, Index y, Ways<Index>& ways) const {
        ways.all.clear();
        ways.x_begin = 0;
        ways.x_end = grid_.width;
        for (std::size_t k = 0; k < grid_.steps.size(); ++k) {
            if (!grid_.steps[k].decides) continue;
            const Index channel = static_cast<Index>(k) * grid_.voxels;
            const auto forward = grid_.steps[k];
            auto backward = forward;
            backward.offset = {-forward.offset.z, -forward.offset.y, -forward.offset.x};
            backward.distance = Index{0} - forward.distance;
            const auto add = [&](const auto& step, Index edge) {
                const auto x = grid_.range(step, z, y);
                if (x.begin >= x.end) return;
                ways.all.push_back({step.distance, edge, x.begin, x.end});
                ways.x_begin = std::max(ways.x_begin, x.begin);
                ways.x_end = std::min(ways.x_end, x.end);
            };
            // Backward, the edge belongs to the voxel at the other end.
            const bool forward_first = forward.distance > static_cast<Index>(-1) / 2;  // leads to lower voxels
            if (forward_first) add(forward, channel);
            add(backward, channel + backward.distance);
            if (!forward_first) add(forward, channel);
        }
    }

    // Writes to background voxels which neighbour they lead to, and lists them.
    void lead_on(Index first, Index last, Index lead, Buffer<Index>& voxels) {
        const Index rows_per_poll = static_cast<Index>(steps_per_poll) / grid_.width + 1;
        Ways<Index> ways;
        Buffer<Index> distance(grid_.width);
        std::size_t count = 0;
        for (Index r = first; r < last;) {
            const Index row = objects_.runs[r].v - objects_.runs[r].x;
            if (row / grid_.width % rows_per_poll == 0) poll();
            if (!strongest_.leads_from(row / grid_.width)) {
                while (r < last && objects_.runs[r].v - row < grid_.width) ++r;
                continue;
            }
            ways_of_row(row / grid_.width / grid_.height, objects_.runs[r].y, ways);
            for (; r < last && objects_.runs[r].v - row < grid_.width; ++r) {
                const Run<Index>& run = objects_.runs[r];
                strongest_(ways, run.v, run.x, run.length, distance.data());
                for (Index i = 0; i < run.length; ++i) {
                    node_[run.v + i] = lead + run.v + i + distance[i];
                    voxels[count++] = run.v + i;
                }
            }
        }
        voxels.resize(count);
    }

    // Lets voxels lead where their target leads, again and again, until all lead to a node or out of the
    // voxels [from, to); the latter stay listed. All voxels of [from, to) that lead on must be listed. Jumps double in
    // length: a few rounds do, and every round takes the voxels in the order of memory.
    template <class NewPatch>
    void follow(Buffer<Index>& voxels, Index from, Index to, Index lead, NewPatch&& new_patch) {
        // Enough for any path, as jumps double in length. What still leads on then goes round in a circle, which a strict
        // order does not have: affinities have changed since some of them were read.
        constexpr int enough_rounds = 64;
        Index* const node = node_;
        Buffer<Index> leaving;
        for (int round = 0; !voxels.empty(); ++round) {
            std::size_t left = 0;
            in_steps(voxels.size(), [&](std::size_t begin, std::size_t end) {
                for (std::size_t i = begin; i < end; ++i) {
                    const Index v = voxels[i];
                    if (node[v] < lead) continue;  // the other end of a new patch
                    const Index target = node[v] - lead;
                    if (target < from || target >= to) {
                        leaving.push_back(v);
                        continue;
                    }
                    const Index beyond = node[target];
                    // In a strict order the only cycles are two voxels that lead to each other, or one without any edge.
                    if (beyond == lead + v || (beyond >= lead && round >= enough_rounds)) {
                        node[v] = node[target] = new_patch();
                        continue;
                    }
                    node[v] = beyond;
                    voxels[left] = v;
                    left += beyond >= lead;
                }
            });
            voxels.resize(left);
        }
        std::swap(voxels, leaving);
    }

    const Grid<Index>& grid_;
    const Objects<Index>& objects_;
    const Strongest strongest_;
    Index* const node_;  // per voxel
    const Index labelled_;
    const int threads_;
};

}  // namespace malis::detail
