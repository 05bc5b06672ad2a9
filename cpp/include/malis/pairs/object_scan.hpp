// The edges of one object: as a source for Kruskal's algorithm, and for joining all strong ones in any order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "malis/graph/grid.hpp"
#include "malis/graph/select.hpp"
#include "malis/graph/unknown_edges.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/union_find.hpp"

namespace malis::detail {

// Which part of an object's stretches is sampled: this many, and where they are short as many more as hold about that
// many edges.
constexpr std::size_t sampled_stretches = 36, sampled_edges = 3072;

// Most stretches are of less than some hundred edges.
constexpr std::size_t stretches_per_poll = steps_per_poll / 64;

// The stretches of an object, in chunks that can be scanned independently of each other.
template <class Index>
class StretchChunks {
  public:
    StretchChunks(const Buffer<Stretch<Index>>& stretches, int threads)
        : stretches_(stretches), chunks_(threads > 1 ? std::min(stretches.size(), chunks_for(threads)) : 1) {}

    const Buffer<Stretch<Index>>& all() const { return stretches_; }
    std::size_t chunks() const { return chunks_; }
    // Calls f(stretch) for all of one chunk.
    template <class F>
    void each(std::size_t chunk, F&& f) const {
        const Stretch<Index>* const begin = stretches_.data() + part_begin(stretches_.size(), chunks_, chunk);
        const Stretch<Index>* const end = stretches_.data() + part_begin(stretches_.size(), chunks_, chunk + 1);
        in_steps(begin, end, stretches_per_poll, [&](const Stretch<Index>* first, const Stretch<Index>* last) {
            for (const Stretch<Index>* s = first; s != last; ++s) f(*s);
        });
    }

  private:
    const Buffer<Stretch<Index>>& stretches_;
    std::size_t chunks_;
};

// The edges within one object, between the local numbers of its voxels, as a Source (source.hpp).
template <class T, class Index>
class ObjectScan {
  public:
    ObjectScan(const Grid<Index>& grid, const T* aff, const Buffer<Stretch<Index>>& stretches, int threads)
        : grid_(grid), aff_(aff), aff_end_(aff + grid.edges()), stretches_(stretches), parts_(stretches, threads) {}

    std::size_t chunks() const { return parts_.chunks(); }

    template <class Collect>
    void scan(std::size_t chunk, Collect& collect) const {
        parts_.each(chunk, [&](const Stretch<Index>& s) {
            collect.stretch(aff_ + s.edge, aff_end_, s.edge, s.a, s.b, s.count);
        });
    }

    // Joins the ends of all edges of at least `threshold` for UnionFind::contract.
    void join(T threshold, Index* parent, Index nodes, int threads) const {
        join_selected(parent, nodes, threads, Strong{threshold, aff_, aff_end_});
    }
    // Those of all known edges as well.
    void join(T threshold, const UnknownEdges<Index>& unknown, Index* parent, Index nodes, int threads) const {
        join_selected(parent, nodes, threads, KnownOrStrong{{threshold, aff_, aff_end_}, unknown});
    }

    template <class Collect>
    double sample(Collect& collect) const {
        std::size_t edges = 0, sampled = 0;
        for (const Stretch<Index>& s : stretches_) edges += s.count;
        const std::size_t wanted =
            std::min(stretches_.size(), sampled_stretches + sampled_edges * stretches_.size() / (edges + 1));
        for (std::size_t i = 0; i < wanted; ++i) {
            const Stretch<Index>& s = stretches_[(2 * i + 1) * stretches_.size() / (2 * wanted)];
            collect.stretch(aff_ + s.edge, aff_end_, s.edge, s.a, s.b, s.count);
            sampled += s.count;
        }
        return static_cast<double>(edges) / static_cast<double>(std::max<std::size_t>(1, sampled));
    }

  private:
    // Which of up to 64 edges are joined, as bits.
    struct Strong {
        static constexpr bool by_affinity = true;
        const T threshold;
        const T *const aff, *const aff_end;
        std::uint64_t operator()(Index edge, std::size_t count) const {
            return select_passing<Strength::strong>(aff + edge, aff_end, threshold, count);
        }
    };
    struct KnownOrStrong : Strong {
        static constexpr bool by_affinity = false;
        const UnknownEdges<Index>& unknown;
        std::uint64_t operator()(Index edge, std::size_t count) const {
            const std::uint64_t weak_unknown = unknown.select(edge, count) & ~Strong::operator()(edge, count);
            return ~weak_unknown & lowest_bits(count);
        }
        KnownOrStrong(const Strong& strong, const UnknownEdges<Index>& unknown) : Strong(strong), unknown(unknown) {}
    };

    template <class Select>
    void join_selected(Index* parent, Index nodes, int threads, Select select) const {
        const std::size_t slabs = threads > 1 ? static_cast<std::size_t>(threads) : 1;
        const auto slab_node = [&](std::size_t s) { return part_begin(nodes, slabs, s); };
        // Each slab of nodes on its own, then what leads from one to another.
        parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
            const Index begin = slab_node(slab), end = slab_node(slab + 1);
            const Index readable = slab + 1 == slabs ? nodes + read_beyond : end;
            bool fresh = true;
            each_channel_backward([&](const Offset& offset, const Stretch<Index>* first, const Stretch<Index>* last) {
                const bool along_rows = offset.z == 0 && offset.y == 0 && offset.x * offset.x == 1;
                in_steps(first, last, stretches_per_poll, [=](const Stretch<Index>* from, const Stretch<Index>* to) {
                    for (const Stretch<Index>* s = from; s != to; ++s) {
                        const bool inside =
                            s->a >= begin && s->b >= begin && s->a + s->count <= end && s->b + s->count <= end;
                        if (!inside) continue;
                        if (Select::by_affinity && fresh && along_rows) chain(*s, select.threshold, parent);
                        else join_stretch(*s, parent, readable, select);
                    }
                });
                fresh = false;
                in_steps(begin, end, steps_per_poll, [parent](Index from, Index to) {
                    for (Index i = from; i < to; ++i) parent[i] = parent[parent[i]];
                });
            });
        });
        if (slabs == 1) return;
        const auto slab_of = [&](Index node) {
            std::size_t slab = 0;
            while (node >= slab_node(slab + 1)) ++slab;
            return slab;
        };
        in_steps(stretches_.begin(), stretches_.end(), stretches_per_poll, [&](const auto* from, const auto* to) {
            for (const Stretch<Index>* s = from; s != to; ++s) {
                const std::size_t slab = slab_of(s->a);
                if (slab_of(s->b) != slab || slab_of(s->a + s->count - 1) != slab ||
                    slab_of(s->b + s->count - 1) != slab)
                    join_stretch(*s, parent, nodes + read_beyond, select);
            }
        });
    }

    // Stretches of one offset after the other, the last one first: usually it leads along rows, which are joined
    // fastest, and then the others meet few different sets.
    template <class F>
    void each_channel_backward(F&& f) const {
        for (const Stretch<Index>* last = stretches_.end(); last != stretches_.begin();) {
            const Stretch<Index>* first = last - 1;
            const Index channel = first->edge / grid_.voxels;
            while (first != stretches_.begin() && first[-1].edge >= channel * grid_.voxels) --first;
            f(grid_.steps[channel].offset, first, last);
            last = first;
        }
    }

    // Along a row, of nodes that nothing has joined yet: each takes the root of the one before, or is a root itself.
    void chain(const Stretch<Index>& s, T threshold, Index* parent) const {
        const T* aff = aff_ + s.edge;
        Index root = std::min(s.a, s.b);
        for (Index i = 0; i < s.count; ++i) {
            const Index node = std::max(s.a, s.b) + i;
            root = aff[i] >= threshold ? root : node;
            parent[node] = root;
        }
    }

    static constexpr Index read_beyond = changes_read_beyond;

    // No parent from `readable` on is read: it may be another thread's.
    template <class Select>
    void join_stretch(const Stretch<Index>& s, Index* parent, Index readable, Select select) const {
        // Parents of the last edge: where the next one has the same, it joins nothing.
        Index of_a = s.a, of_b = of_a;
        for (Index block = 0; block < s.count; block += 64) {
            const Index count = std::min<Index>(64, s.count - block);
            std::uint64_t selected = select(s.edge + block, count);
            if (!Select::by_affinity && selected == 0) continue;
            const Index *const a = parent + s.a + block, *const b = parent + s.b + block;
            selected = select_first_of_equals(selected, a, readable - s.a - block, b, readable - s.b - block, count);
            for (; selected != 0; selected &= selected - 1) {
                const Index i = static_cast<Index>(lowest_bit(selected));
                if (a[i] == of_a && b[i] == of_b) continue;
                of_a = a[i];
                of_b = b[i];
                join_lowest(parent, of_a, of_b);
            }
        }
    }

    const Grid<Index>& grid_;
    const T* aff_;
    const T* aff_end_;
    const Buffer<Stretch<Index>>& stretches_;
    const StretchChunks<Index> parts_;
};

}  // namespace malis::detail
