// Channels last, as most networks of Keras and Flax have them, to channels first, as edges are numbered. The way back is
// that of the gradient (loss.hpp), which is zero but for some edges.
//
// A block of voxels fits the first cache in both layouts, so every line of memory is read and written once, whatever
// the strides within it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "malis/support/parallel.hpp"

namespace malis {

enum class Layout { channels_first, channels_last };

namespace detail {

constexpr std::size_t layout_block = 512;

// Calls f(begin, end) on blocks of voxels, and each with the number of channels as a constant where it is a common one:
// loops with constant strides become vector instructions.
template <class F>
void for_blocks(std::size_t voxels, std::size_t channels, int threads, F&& f) {
    const auto run = [&](auto count) {
        parallel_ranges(voxels, std::size_t{1} << 15, threads, [&](std::size_t begin, std::size_t end) {
            for (; begin < end; begin += layout_block) f(begin, std::min(end, begin + layout_block), count);
        });
    };
    if (channels == 2) {
        run(std::integral_constant<std::size_t, 2>{});
    } else if (channels == 3) {
        run(std::integral_constant<std::size_t, 3>{});
    } else {
        run(channels);
    }
}

}  // namespace detail

// to[k * voxels + v] = from[v * channels + k]
template <class T>
void to_channels_first(const T* from, std::size_t voxels, std::size_t channels, T* to, int threads) {
    detail::for_blocks(voxels, channels, threads, [&](std::size_t begin, std::size_t end, auto count) {
        for (std::size_t k = 0; k < count; ++k) {
            const T* source = from + k;
            T* target = to + k * voxels;
            for (std::size_t v = begin; v < end; ++v) target[v] = source[v * count];
        }
    });
}

}  // namespace malis
