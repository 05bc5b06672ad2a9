// Bits that are set and read in words, of which up to 64 are read from any place at once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "malis/support/buffer.hpp"
#include "malis/support/parallel.hpp"

namespace malis {

inline std::uint64_t lowest_bits(std::size_t count) {
    return count < 64 ? (std::uint64_t{1} << count) - 1 : ~std::uint64_t{0};
}

class Bits {
  public:
    Bits() = default;
    explicit Bits(std::size_t size) : words_(size / 64 + 2) {}  // not set yet

    bool operator[](std::size_t at) const { return (words_[at >> 6] >> (at & 63) & 1) != 0; }
    // Bit i: that of first + i, for i < count <= 64.
    std::uint64_t read(std::size_t first, std::size_t count) const {
        const std::uint64_t* const word = words_.data() + (first >> 6);
        const unsigned at = static_cast<unsigned>(first & 63);
        const std::uint64_t bits = at == 0 ? word[0] : word[0] >> at | word[1] << (64 - at);
        return bits & lowest_bits(count);
    }

    // Sets each word to word_of(first bit of it, how many bits of `size` there are in it).
    template <class WordOf>
    void fill(std::size_t size, int threads, WordOf&& word_of) {
        parallel_ranges(words_.size(), std::size_t{1} << 10, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t w = begin; w < end; ++w) {
                const std::size_t first = 64 * w;
                words_[w] = first < size ? word_of(first, std::min<std::size_t>(64, size - first)) : 0;
            }
        });
    }
    void clear(std::size_t from, std::size_t to) {
        while (from < to) {
            const std::size_t at = from % 64, count = std::min<std::size_t>(64 - at, to - from);
            words_[from / 64] &= ~(lowest_bits(count) << at);
            from += count;
        }
    }
    bool any_in(std::size_t from, std::size_t to) const {
        for (; from < to; from += 64)
            if (read(from, std::min<std::size_t>(64, to - from)) != 0) return true;
        return false;
    }
    bool any() const {
        std::uint64_t all = 0;
        for (const std::uint64_t word : words_) all |= word;
        return all != 0;
    }
    void release() { words_.release(); }

  private:
    Buffer<std::uint64_t> words_;
};

}  // namespace malis
