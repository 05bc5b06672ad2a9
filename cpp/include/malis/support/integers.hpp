// Labels that came as floating point numbers, as integers again: frameworks turn labels into the dtype of a network.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <type_traits>

#include "malis/support/parallel.hpp"

namespace malis {

struct Integers {
    bool whole;            // every value is an integer that 32 bits hold
    std::int32_t largest;  // of these
};

// Writes whole numbers as 32-bit integers, and 0 for what is none.
template <class T>
Integers to_integers(const T* values, std::size_t n, std::int32_t* integers, int threads) {
    static_assert(std::is_floating_point<T>::value, "integers need no conversion");
    using Limits = std::numeric_limits<std::int32_t>;
    constexpr T least = static_cast<T>(Limits::min()), end = -least;  // powers of two: no dtype rounds them
    Integers result{true, Limits::min()};
    std::mutex mutex;
    parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t stop) {
        unsigned wrong = 0;
        std::int32_t largest = Limits::min();
        for (std::size_t i = begin; i < stop; ++i) {
            const T value = values[i];
            const bool fits = value >= least && value < end;  // false for NaN
            const std::int32_t integer = static_cast<std::int32_t>(fits ? value : T(0));
            wrong |= static_cast<unsigned>(static_cast<T>(integer) != value);
            largest = std::max(largest, integer);
            integers[i] = integer;
        }
        const std::lock_guard<std::mutex> lock(mutex);
        result.whole &= wrong == 0;
        result.largest = std::max(result.largest, largest);
    });
    return result;
}

}  // namespace malis
