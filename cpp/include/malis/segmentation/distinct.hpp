// The distinct affinities of a volume, in the order of edges.
//
// As ranks (order.hpp) they are plain integers, sorted digit by digit from the lowest: three passes over float
// affinities, and less where all of them agree in some bits, as doubles do that were floats or bytes before.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <type_traits>
#include <utility>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/grid.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/order.hpp"

namespace malis {

// Sorts unsigned integers. `scratch` is resized as needed.
template <class R>
void radix_sort(Buffer<R>& keys, Buffer<R>& scratch, int threads) {
    constexpr unsigned digit = 11;
    constexpr std::size_t values = std::size_t{1} << digit;
    const std::size_t n = keys.size();
    if (n < 256) {
        std::sort(keys.begin(), keys.end());
        return;
    }
    scratch.reset(n);
    R varying = 0;  // the bits in which any two keys differ
    std::mutex mutex;
    parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        R bits = 0;
        for (std::size_t i = begin; i < end; ++i) bits |= static_cast<R>(keys[i] ^ keys[0]);
        const std::lock_guard<std::mutex> lock(mutex);
        varying |= bits;
    });
    const std::size_t pieces = slabs_for(n, threads);
    const auto piece = [&](std::size_t p) { return part_begin(n, pieces, p); };
    std::vector<std::array<std::size_t, values>> place(pieces);
    while (varying != 0) {
        unsigned shift = 0;
        while ((varying >> shift & 1) == 0) ++shift;
        const auto value = [shift](R key) { return static_cast<std::size_t>(key >> shift) & (values - 1); };
        parallel_for(pieces, threads, [&](std::size_t p, std::size_t) {
            place[p].fill(0);
            in_steps(piece(p), piece(p + 1), steps_per_poll, [&](std::size_t begin, std::size_t end) {
                for (std::size_t i = begin; i < end; ++i) ++place[p][value(keys[i])];
            });
        });
        std::size_t next = 0;
        for (std::size_t v = 0; v < values; ++v) {
            for (std::size_t p = 0; p < pieces; ++p) {
                const std::size_t count = place[p][v];
                place[p][v] = next;
                next += count;
            }
        }
        parallel_for(pieces, threads, [&](std::size_t p, std::size_t) {
            in_steps(piece(p), piece(p + 1), steps_per_poll, [&](std::size_t begin, std::size_t end) {
                for (std::size_t i = begin; i < end; ++i) scratch[place[p][value(keys[i])]++] = keys[i];
            });
        });
        std::swap(keys, scratch);
        varying = static_cast<R>(varying & ~(static_cast<R>(values - 1) << shift));
    }
}

namespace detail {

// Hands over the edges themselves, row by row.
struct RowsOfEdges {
    template <class Index, class Collect>
    void row(Index first, Index, Index, Index count, Collect& collect) const {
        collect.f(first, count);
    }
};

template <class F>
struct RowCollector {
    F f;
    void reserve(std::size_t) {}
};
template <class F>
RowCollector<F> row_collector(F f) {
    return {f};
}

// The same of bytes, of which there are few.
template <class Index>
Buffer<Rank<float>> distinct_bytes(const GridScan<float, Index, RowsOfEdges>& source, const std::uint8_t* aff,
                                   int threads) {
    std::array<std::atomic<bool>, byte_values.size()> any{};
    parallel_for(source.chunks(), threads, [&](std::size_t chunk, std::size_t) {
        std::array<bool, byte_values.size()> here{};
        auto mark = row_collector([&](Index first, Index count) {
            for (Index i = 0; i < count; ++i) here[aff[first + i]] = true;
        });
        source.scan(chunk, mark);
        for (std::size_t byte = 0; byte < here.size(); ++byte)
            if (here[byte]) any[byte] = true;
    });
    Buffer<Rank<float>> ranks;
    for (std::size_t byte = any.size(); byte-- > 0;)
        if (any[byte]) ranks.push_back(to_rank(byte_values[byte]));
    return ranks;
}

}  // namespace detail

// The ranks of all edges between two different voxels of the volume, each once, increasing.
template <class T, class Index>
Buffer<Rank<T>> distinct_ranks(const Grid<Index>& grid, Affinities<T> aff, int threads) {
    const detail::RowsOfEdges rows;
    const GridScan<T, Index, detail::RowsOfEdges> source(grid, rows, threads);
    if constexpr (std::is_same_v<T, float>) {
        if (aff.bytes() != nullptr) return detail::distinct_bytes(source, aff.bytes(), threads);
    }
    std::vector<std::size_t> begin(source.chunks() + 1, 0);
    for (std::size_t chunk = 0; chunk < source.chunks(); ++chunk) {
        begin[chunk + 1] = begin[chunk];
        auto count = detail::row_collector([&](Index, Index n) { begin[chunk + 1] += n; });
        source.scan(chunk, count);
    }
    Buffer<Rank<T>> ranks(begin.back()), scratch;
    parallel_for(source.chunks(), threads, [&](std::size_t chunk, std::size_t) {
        Rank<T>* to = ranks.data() + begin[chunk];
        auto fill = detail::row_collector([&](Index first, Index n) {
            for (Index i = 0; i < n; ++i) *to++ = to_rank(aff[first + i]);
        });
        source.scan(chunk, fill);
    });
    radix_sort(ranks, scratch, threads);
    scratch.release();
    std::size_t distinct = 0;
    in_steps(ranks.size(), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            if (distinct == 0 || ranks[i] != ranks[distinct - 1]) ranks[distinct++] = ranks[i];
        }
    });
    // Ranks are kept for long, and may be far fewer than edges.
    Buffer<Rank<T>> result(distinct);
    std::copy(ranks.begin(), ranks.begin() + distinct, result.begin());
    return result;
}

}  // namespace malis
