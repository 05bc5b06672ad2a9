// Edges whose ground truth is unknown: those that a mask says so of, those between two unlabelled nodes, and those that
// touch an ignored one. They take part in every pass by their own affinity, and have no counts.
//
// A bit for each edge, found once: what follows reads neither the mask nor any label for them again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "malis/graph/edge_list.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/select.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"

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

inline std::uint64_t lowest_bits(std::size_t count) {
    return count < 64 ? (std::uint64_t{1} << count) - 1 : ~std::uint64_t{0};
}

}  // namespace detail

template <class Index>
class UnknownEdges {
  public:
    // No edge is unknown.
    UnknownEdges() = default;
    explicit UnknownEdges(std::size_t edges) : words_(edges / 64 + 2) {}

    bool any() const { return any_; }
    bool operator()(Index edge) const { return any_ && (words_[edge >> 6] >> (edge & 63) & 1) != 0; }
    // Bit i: edge + i is unknown, for i < count <= 64. Only where any() is.
    std::uint64_t select(Index edge, std::size_t count) const {
        const std::uint64_t* const word = words_.data() + (edge >> 6);
        const unsigned at = static_cast<unsigned>(edge & 63);
        const std::uint64_t bits = at == 0 ? word[0] : word[0] >> at | word[1] << (64 - at);
        return bits & detail::lowest_bits(count);
    }

    // Sets each word to word_of(first edge of it, how many edges there are in it).
    template <class WordOf>
    void fill(std::size_t edges, int threads, WordOf&& word_of) {
        parallel_ranges(words_.size(), std::size_t{1} << 10, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t w = begin; w < end; ++w) {
                const std::size_t first = 64 * w;
                words_[w] = first < edges ? word_of(first, std::min<std::size_t>(64, edges - first)) : 0;
            }
        });
    }
    void clear(std::size_t from, std::size_t to) {
        while (from < to) {
            const std::size_t at = from % 64, count = std::min<std::size_t>(64 - at, to - from);
            words_[from / 64] &= ~(detail::lowest_bits(count) << at);
            from += count;
        }
    }
    bool any_in(std::size_t from, std::size_t to) const {
        for (; from < to; from += 64)
            if (select(static_cast<Index>(from), std::min<std::size_t>(64, to - from)) != 0) return true;
        return false;
    }
    // To be called when all bits are set.
    void finish() {
        for (const std::uint64_t word : words_) any_ |= word != 0;
        if (!any_) words_.release();
    }

  private:
    Buffer<std::uint64_t> words_;
    bool any_ = false;
};

namespace detail {

// Bit i: the labels of v + i and u + i make their edge unknown.
template <class Index>
std::uint64_t select_unknown(const Labels<Index>& labels, Index v, Index u, std::size_t count) {
    const Index *const a = labels.of.data() + v, *const b = labels.of.data() + u;
    const Index unlabelled = labels.unlabelled, ignored = labels.ignored;
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const bool both_unlabelled = (unlabelled != 0) & (a[i] == unlabelled) & (b[i] == unlabelled);
        const bool one_ignored = (ignored != 0) & ((a[i] == ignored) | (b[i] == ignored));
        bits |= static_cast<std::uint64_t>(both_unlabelled | one_ignored) << i;
    }
    return bits;
}

// Edges that do not exist are not unknown either.
template <class Index>
void clear_missing(const Grid<Index>& grid, UnknownEdges<Index>& unknown) {
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
    const bool by_label = labels.unlabelled != 0 || labels.ignored != 0;
    if (edge_mask == nullptr && !by_label) return {};
    UnknownEdges<Index> unknown(grid.edges());
    unknown.fill(grid.edges(), threads, [&](std::size_t first, std::size_t count) {
        std::uint64_t bits = edge_mask == nullptr ? 0 : detail::select_false(edge_mask + first, count);
        for (std::size_t i = 0; by_label && i < count;) {  // the part of each channel
            const std::size_t k = (first + i) / grid.voxels;
            const Index v = static_cast<Index>(first + i - k * grid.voxels), u = v + grid.steps[k].distance;
            std::size_t n = std::min<std::size_t>(count - i, grid.voxels - v);
            // What leaves the volume is cleared below: here it is enough not to read there.
            if (u >= grid.voxels) n = std::min<std::size_t>(n, Index{0} - u);
            else bits |= detail::select_unknown(labels, v, u, std::min<std::size_t>(n, grid.voxels - u)) << i;
            i += n;
        }
        return bits;
    });
    detail::clear_missing(grid, unknown);
    unknown.finish();
    return unknown;
}

template <class Index>
UnknownEdges<Index> unknown_edges(const EdgeList<Index>& list, const Labels<Index>& labels, const bool* edge_mask,
                                  int threads) {
    if (edge_mask == nullptr && labels.unlabelled == 0 && labels.ignored == 0) return {};
    UnknownEdges<Index> unknown(list.edges);
    unknown.fill(list.edges, threads, [&](std::size_t first, std::size_t count) {
        std::uint64_t bits = edge_mask == nullptr ? 0 : detail::select_false(edge_mask + first, count);
        list.each(first, first + count, [&](Index edge, Index a, Index b) {
            bits |= detail::select_unknown(labels, a, b, 1) << (edge - static_cast<Index>(first));
        });
        return bits;
    });
    unknown.finish();
    return unknown;
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
