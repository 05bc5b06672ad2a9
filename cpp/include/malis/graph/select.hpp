// Which of up to 64 edges in a row a scan selects, as bits: the one loop that sees every edge of a volume.
//
// An edge is selected by its affinity, against a threshold, and where asked by its nodes, which have to differ. Edges
// that are not selected then cost a bit each, not a branch.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SSE2__) || defined(_M_X64)
#define MALIS_SSE2 1
#include <emmintrin.h>
#endif
#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace malis::detail {

// Strong edges have an affinity of at least the threshold, weak ones a lower one.
enum class Strength { strong, weak };

template <Strength strength, class T>
inline bool passes(T affinity, T threshold) {
    return strength == Strength::strong ? affinity >= threshold : affinity < threshold;
}

// Bit i: aff[i] passes. Affinities may be read as far as `aff_end`.
template <Strength strength, class T>
inline std::uint64_t select_passing(const T* aff, const T*, T threshold, std::size_t count) {
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < count; ++i)
        bits |= static_cast<std::uint64_t>(passes<strength>(aff[i], threshold)) << i;
    return bits;
}

// Bit i: a[i] != b[i] and aff[i] passes. Nodes may be read up to 15 items beyond `count` (Buffer sees to that).
template <Strength strength, class T, class Index>
inline std::uint64_t select_different(const Index* a, const Index* b, const T* aff, const T*, T threshold,
                                      std::size_t count) {
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < count; ++i)
        bits |= static_cast<std::uint64_t>((a[i] != b[i]) & passes<strength>(aff[i], threshold)) << i;
    return bits;
}

// Bit i: a[i] == b[i], and it is not 0. Labels may be read up to 15 items beyond `count` (Buffer sees to that).
template <class Index>
inline std::uint64_t select_same(const Index* a, const Index* b, std::size_t count) {
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < count; ++i) bits |= static_cast<std::uint64_t>((a[i] == b[i]) & (a[i] != 0)) << i;
    return bits;
}

#if defined(MALIS_SSE2)

inline __m128i load4(const std::uint32_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

template <Strength strength>
inline __m128 passes4(const float* aff, __m128 threshold) {
    const __m128 a = _mm_loadu_ps(aff);
    return strength == Strength::strong ? _mm_cmpge_ps(a, threshold) : _mm_cmplt_ps(a, threshold);
}

// Sixteen at a time, whatever `count`: most rows of an object fit, and how often the loop runs is predictable.
template <class Select4>
inline std::uint64_t select16(std::size_t count, Select4 select4) {
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < count; i += 16) {
        const int of16 = _mm_movemask_ps(select4(i)) | _mm_movemask_ps(select4(i + 4)) << 4 |
                         _mm_movemask_ps(select4(i + 8)) << 8 | _mm_movemask_ps(select4(i + 12)) << 12;
        bits |= static_cast<std::uint64_t>(static_cast<unsigned>(of16)) << i;
    }
    return count < 64 ? bits & ((std::uint64_t{1} << count) - 1) : bits;
}

template <Strength strength>
inline std::uint64_t select_passing(const float* aff, const float* aff_end, float threshold, std::size_t count) {
    if (aff_end - aff < 64) return select_passing<strength, float>(aff, aff_end, threshold, count);
    const __m128 t = _mm_set1_ps(threshold);
    return select16(count, [&](std::size_t i) { return passes4<strength>(aff + i, t); });
}

template <Strength strength>
inline std::uint64_t select_passing(const std::uint8_t* aff, const std::uint8_t* aff_end, std::uint8_t threshold,
                                    std::size_t count) {
    if (aff_end - aff < 64) return select_passing<strength, std::uint8_t>(aff, aff_end, threshold, count);
    const __m128i t = _mm_set1_epi8(static_cast<char>(threshold));
    std::uint64_t strong = 0;
    for (std::size_t i = 0; i < 64; i += 16) {
        const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(aff + i));
        const int of16 = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(a, t), a));
        strong |= static_cast<std::uint64_t>(static_cast<unsigned>(of16)) << i;
    }
    const std::uint64_t bits = strength == Strength::strong ? strong : ~strong;
    return count < 64 ? bits & ((std::uint64_t{1} << count) - 1) : bits;
}

inline std::uint64_t select_same(const std::uint32_t* a, const std::uint32_t* b, std::size_t count) {
    const __m128i zero = _mm_setzero_si128();
    return select16(count, [&](std::size_t i) {
        const __m128i of_a = load4(a + i);
        return _mm_castsi128_ps(_mm_andnot_si128(_mm_cmpeq_epi32(of_a, zero), _mm_cmpeq_epi32(of_a, load4(b + i))));
    });
}

template <Strength strength>
inline std::uint64_t select_different(const std::uint32_t* a, const std::uint32_t* b, const float* aff,
                                      const float* aff_end, float threshold, std::size_t count) {
    if (aff_end - aff < 64)
        return select_different<strength, float, std::uint32_t>(a, b, aff, aff_end, threshold, count);
    const __m128 t = _mm_set1_ps(threshold);
    return select16(count, [&](std::size_t i) {
        return _mm_andnot_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(load4(a + i), load4(b + i))),
                             passes4<strength>(aff + i, t));
    });
}

template <Strength strength>
inline std::uint64_t select_different(const std::uint16_t* a, const std::uint16_t* b, const float* aff,
                                      const float* aff_end, float threshold, std::size_t count) {
    if (aff_end - aff < 64)
        return select_different<strength, float, std::uint16_t>(a, b, aff, aff_end, threshold, count);
    const __m128 t = _mm_set1_ps(threshold);
    const auto load = [](const std::uint16_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); };
    return select16(count, [&](std::size_t i) {
        const __m128i equal = _mm_cmpeq_epi16(load(a + i), load(b + i));
        return _mm_andnot_ps(_mm_castsi128_ps(_mm_unpacklo_epi16(equal, equal)), passes4<strength>(aff + i, t));
    });
}

#endif

// Bit i: p[i] != p[i + 1], for i < count <= 64. May be read up to 15 items beyond (Buffer sees to that).
template <class Index>
inline std::uint64_t select_changes(const Index* p, std::size_t count) {
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < count; ++i) bits |= static_cast<std::uint64_t>(p[i] != p[i + 1]) << i;
    return bits;
}

#if defined(MALIS_SSE2)
inline std::uint64_t select_changes(const std::uint32_t* p, std::size_t count) {
    const std::uint64_t inside = count < 64 ? (std::uint64_t{1} << count) - 1 : ~std::uint64_t{0};
    return ~select16(count, [&](std::size_t i) {
        return _mm_castsi128_ps(_mm_cmpeq_epi32(load4(p + i), load4(p + i + 1)));
    }) & inside;
}
#endif

// How many items behind the last one select_changes may read.
constexpr std::size_t changes_read_beyond = 16;

// Of up to 64 edges in a row, from nodes of the parents a[i] to nodes of the parents b[i], those that may join something:
// not one beside another selected edge between the same two parents. Without a branch this drops most. No parent from
// a[room_a] and b[room_b] on is read: it may be another thread's.
template <class Index>
inline std::uint64_t select_first_of_equals(std::uint64_t selected, const Index* a, std::size_t room_a, const Index* b,
                                            std::size_t room_b, std::size_t count) {
    const auto changes = [count](const Index* p, std::size_t room) {
        if (count + changes_read_beyond <= room) return select_changes(p, count - 1);
        return select_changes<Index>(p, count - 1);
    };
    return selected & (~(selected << 1) | (changes(a, room_a) | changes(b, room_b)) << 1);
}

inline unsigned lowest_bit(std::uint64_t bits) {
#if defined(_MSC_VER)
    unsigned long at;
    _BitScanForward64(&at, bits);
    return at;
#else
    return static_cast<unsigned>(__builtin_ctzll(bits));
#endif
}

}  // namespace malis::detail
