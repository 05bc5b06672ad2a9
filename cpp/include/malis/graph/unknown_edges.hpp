// Edges whose ground truth is unknown: those that a mask says so of, those between two unlabelled nodes, and those that
// touch an ignored one. They take part in every pass by their own affinity, and have no counts.
//
// A bit for each edge, found once: what follows reads neither the mask nor any label for them again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "malis/graph/edge_list.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/select.hpp"
#include "malis/support/bits.hpp"
#include "malis/support/interrupt.hpp"

namespace malis {

namespace detail {

// Bit i: mask[i] is false. The bytes of a mask that is not ours may hold anything.
inline std::uint64_t select_false(const bool* mask, std::size_t count) {
    const auto* const bytes = reinterpret_cast<const unsigned char*>(mask);
    std::uint64_t bits = 0;
    std::size_t i = 0;
#if defined(MALIS_SSE2)
    for (; i + 16 <= count; i += 16) {
        const __m128i of16 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + i));
        const int zero = _mm_movemask_epi8(_mm_cmpeq_epi8(of16, _mm_setzero_si128()));
        bits |= static_cast<std::uint64_t>(static_cast<unsigned>(zero)) << i;
    }
#endif
    for (; i < count; ++i) bits |= static_cast<std::uint64_t>(bytes[i] == 0) << i;
    return bits;
}

// Bit i: values[i] is `value`.
template <class Index>
std::uint64_t select_equal(const Index* values, Index value, std::size_t count) {
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < count; ++i) bits |= static_cast<std::uint64_t>(values[i] == value) << i;
    return bits;
}
#if defined(MALIS_SSE2)
// Values may be read up to 15 items beyond `count` (Buffer sees to that).
inline std::uint64_t select_equal(const std::uint32_t* values, std::uint32_t value, std::size_t count) {
    const __m128i wanted = _mm_set1_epi32(static_cast<int>(value));
    return select16(count, [&](std::size_t i) { return _mm_castsi128_ps(_mm_cmpeq_epi32(load4(values + i), wanted)); });
}
#endif

}  // namespace detail

template <class Index>
class UnknownEdges {
  public:
    // No edge is unknown.
    UnknownEdges() = default;
    explicit UnknownEdges(Bits unknown) : bits_(std::move(unknown)), any_(bits_.any()) {
        if (!any_) bits_.release();
    }

    bool any() const { return any_; }
    bool operator()(Index edge) const { return any_ && bits_[edge]; }
    // Bit i: edge + i is unknown, for i < count <= 64. Only where any() is.
    std::uint64_t select(Index edge, std::size_t count) const { return bits_.read(edge, count); }
    bool any_in(std::size_t from, std::size_t to) const { return bits_.any_in(from, to); }

  private:
    Bits bits_;
    bool any_ = false;
};

namespace detail {

// Which edges labels make unknown, by the nodes that are unlabelled and those that are ignored.
template <class Index>
class UnknownByLabel {
  public:
    UnknownByLabel(const Labels<Index>& labels, int threads)
        : unlabelled_(find(labels, labels.unlabelled, threads)), ignored_(find(labels, labels.ignored, threads)) {}

    bool any() const { return unlabelled_.has_value() || ignored_.has_value(); }
    // Bit i: the edge from node v + i to node u + i is, for i < count <= 64.
    std::uint64_t select(std::size_t v, std::size_t u, std::size_t count) const {
        std::uint64_t bits = 0;
        if (unlabelled_) bits |= unlabelled_->read(v, count) & unlabelled_->read(u, count);
        if (ignored_) bits |= ignored_->read(v, count) | ignored_->read(u, count);
        return bits;
    }

  private:
    static std::optional<Bits> find(const Labels<Index>& labels, Index number, int threads) {
        if (number == 0) return std::nullopt;
        const std::size_t nodes = labels.of.size();
        Bits bits(nodes);
        bits.fill(nodes, threads, [&](std::size_t first, std::size_t count) {
            return select_equal(labels.of.data() + first, number, count);
        });
        return bits;
    }
    const std::optional<Bits> unlabelled_, ignored_;
};

// Edges that do not exist are not unknown either.
template <class Index>
void clear_missing(const Grid<Index>& grid, Bits& unknown) {
    for (std::size_t k = 0; k < grid.steps.size(); ++k) {
        in_steps(Index{0}, grid.rows, std::size_t{1} << 12, [&](Index begin, Index end) {
            for (Index row = begin; row < end; ++row) {
                const auto x = grid.range(grid.steps[k], row / grid.height, row % grid.height);
                const std::size_t first = k * grid.voxels + static_cast<std::size_t>(row) * grid.width;
                const bool none = x.begin >= x.end || !grid.steps[k].decides;
                unknown.clear(first, first + (none ? grid.width : x.begin));
                if (!none) unknown.clear(first + x.end, first + grid.width);
            }
        });
    }
}

}  // namespace detail

template <class Index>
UnknownEdges<Index> unknown_edges(const Grid<Index>& grid, const Labels<Index>& labels, const bool* edge_mask,
                                  int threads) {
    const detail::UnknownByLabel<Index> by_label(labels, threads);
    if (edge_mask == nullptr && !by_label.any()) return {};
    Bits unknown(grid.edges());
    unknown.fill(grid.edges(), threads, [&](std::size_t first, std::size_t count) {
        std::uint64_t bits = edge_mask == nullptr ? 0 : detail::select_false(edge_mask + first, count);
        for (std::size_t i = 0; by_label.any() && i < count;) {  // the part of each channel
            const std::size_t k = (first + i) / grid.voxels;
            const Index v = static_cast<Index>(first + i - k * grid.voxels), u = v + grid.steps[k].distance;
            std::size_t n = std::min<std::size_t>(count - i, grid.voxels - v);
            // What leaves the volume is cleared below: here it is enough not to read there.
            if (u >= grid.voxels) n = std::min<std::size_t>(n, Index{0} - u);
            else bits |= by_label.select(v, u, std::min<std::size_t>(n, grid.voxels - u)) << i;
            i += n;
        }
        return bits;
    });
    detail::clear_missing(grid, unknown);
    return UnknownEdges<Index>(std::move(unknown));
}

template <class Index>
UnknownEdges<Index> unknown_edges(const EdgeList<Index>& list, const Labels<Index>& labels, const bool* edge_mask,
                                  int threads) {
    const detail::UnknownByLabel<Index> by_label(labels, threads);
    if (edge_mask == nullptr && !by_label.any()) return {};
    Bits unknown(list.edges);
    unknown.fill(list.edges, threads, [&](std::size_t first, std::size_t count) {
        std::uint64_t bits = edge_mask == nullptr ? 0 : detail::select_false(edge_mask + first, count);
        list.each(first, first + count, [&](Index edge, Index a, Index b) {
            bits |= by_label.select(a, b, 1) << (edge - static_cast<Index>(first));
        });
        return bits;
    });
    return UnknownEdges<Index>(std::move(unknown));
}

// Per row of a volume, whether an unknown edge begins or ends in it.
template <class Index>
std::vector<char> rows_of_unknown_edges(const Grid<Index>& grid, const UnknownEdges<Index>& unknown) {
    std::vector<char> rows(grid.rows, 0);
    for (std::size_t k = 0; k < grid.steps.size(); ++k) {
        const auto& offset = grid.steps[k].offset;
        const Index other = static_cast<Index>(offset.z) * grid.height + static_cast<Index>(offset.y);
        in_steps(Index{0}, grid.rows, std::size_t{1} << 12, [&](Index begin, Index end) {
            for (Index row = begin; row < end; ++row) {
                const std::size_t first = k * grid.voxels + static_cast<std::size_t>(row) * grid.width;
                if (unknown.any_in(first, first + grid.width)) rows[row] = rows[static_cast<Index>(row + other)] = 1;
            }
        });
    }
    return rows;
}

}  // namespace malis
