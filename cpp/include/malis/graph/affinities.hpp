// Affinities as an algorithm reads them: floating point numbers, or bytes that stand for some.
//
// Large predictions are stored as bytes, 0 to 255 for 0 to 1. They are converted where they are read, some at a time, so
// that no copy in floating point takes four times their memory, and no algorithm is compiled once more for them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace malis {

namespace detail {

constexpr std::array<float, 256> make_byte_values() {
    std::array<float, 256> values{};
    for (std::size_t byte = 0; byte < values.size(); ++byte) values[byte] = static_cast<float>(byte) / 255.0f;
    return values;
}
inline constexpr std::array<float, 256> byte_values = make_byte_values();

// The lowest byte that stands for a value of at least `threshold`; 256 where none does.
inline unsigned lowest_byte_of(float threshold) {
    unsigned byte = 0;
    while (byte < byte_values.size() && !(byte_values[byte] >= threshold)) ++byte;
    return byte;
}

}  // namespace detail

// What affinities are computed with that are stored as T.
template <class T>
using AffinityValue = std::conditional_t<std::is_same_v<T, std::uint8_t>, float, T>;

// A pointer to affinities of type T or, where T is float, to bytes. It does not own them.
template <class T>
class Affinities {
  public:
    static constexpr std::size_t piece = 64;
    // Where a piece is put that has to be converted first.
    struct Room {
        std::array<T, piece> values;
    };

    Affinities(const T* values) : values_(values) {}
    template <class Byte, class = std::enable_if_t<std::is_same_v<Byte, std::uint8_t> && std::is_same_v<T, float>>>
    Affinities(const Byte* bytes) : bytes_(bytes) {}

    // The bytes, or null where there are none.
    const std::uint8_t* bytes() const { return std::is_same_v<T, float> ? bytes_ : nullptr; }

    T operator[](std::size_t edge) const {
        return bytes() != nullptr ? static_cast<T>(detail::byte_values[bytes_[edge]]) : values_[edge];
    }

    // The affinities of `count` edges from `first` on, no more than `piece`.
    const T* read(std::size_t first, std::size_t count, Room& room) const {
        if (bytes() == nullptr) return values_ + first;
        T* const values = room.values.data();
        for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<T>(detail::byte_values[bytes_[first + i]]);
        std::fill(values + count, values + piece, T(0));
        return values;
    }
    // How far the functions of select.hpp may read what read() has returned, in a volume of so many edges.
    const T* readable_end(std::size_t edges, const Room& room) const {
        return bytes() == nullptr ? values_ + edges : room.values.data() + piece;
    }

    // Calls f(affinities, i, n) for pieces of `count` edges from `first` on: those of n edges from first + i on.
    template <class Index, class F>
    void each_piece(Index first, Index count, F&& f) const {
        Room room;
        for (Index i = 0; i < count; i += static_cast<Index>(piece)) {
            const Index n = std::min<Index>(static_cast<Index>(piece), count - i);
            f(read(static_cast<std::size_t>(first) + i, n, room), i, n);
        }
    }

  private:
    const T* values_ = nullptr;
    const std::uint8_t* bytes_ = nullptr;
};

}  // namespace malis
