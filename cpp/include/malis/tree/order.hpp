// The order of edges: decreasing affinity, equal affinities by increasing edge index.
//
// A *rank* is an unsigned integer that increases as the affinity decreases, so that ranks compare as plain integers.
// Records reach the sort (sort.hpp) in the order of their edge index, as every source scans in that order and keeps it,
// so a stable sort by rank alone is the order of edges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "malis/support/buffer.hpp"

namespace malis {

template <class T>
struct RankOf;
template <>
struct RankOf<float> {
    using type = std::uint32_t;
};
template <>
struct RankOf<double> {
    using type = std::uint64_t;
};
template <class T>
using Rank = typename RankOf<T>::type;

template <class T>
inline Rank<T> to_rank(T affinity) {
    using R = Rank<T>;
    constexpr R sign = R{1} << (sizeof(R) * 8 - 1);
    affinity += T(0);  // -0 and +0 are equal
    R bits;
    std::memcpy(&bits, &affinity, sizeof bits);
    // Increasing as unsigned: negative numbers with all bits flipped, others with the sign bit set; then reversed.
    const R flip = static_cast<R>(R{0} - (bits >> (sizeof(R) * 8 - 1))) | sign;
    return static_cast<R>(~(bits ^ flip));
}

template <class T>
inline T from_rank(Rank<T> rank) {
    using R = Rank<T>;
    constexpr R sign = R{1} << (sizeof(R) * 8 - 1);
    R bits = static_cast<R>(~rank);
    bits ^= static_cast<R>((bits & sign) ? sign : ~R{0});
    T affinity;
    std::memcpy(&affinity, &bits, sizeof affinity);
    return affinity;
}

// Edges of at least this affinity come before those of `rank`; NaN, which no affinity reaches, where there are none.
// Never a denormal number: where these are flushed to zero, as frameworks can be asked to, all of them are equal.
template <class T>
inline T affinity_before(Rank<T> rank) {
    constexpr T least = std::numeric_limits<T>::min();
    const T next = from_rank<T>(rank - 1);
    return -least < next && next < least ? least : next;
}

// An edge on its way to the union-find: its place in the order and the two nodes it joins.
template <class T, class Index>
struct Record {
    Rank<T> rank;
    Index edge;
    Index a;
    Index b;
};

// Records as their source was scanned: one part after the other.
template <class T, class Index>
using Parts = std::vector<Buffer<Record<T, Index>>>;

template <class T, class Index>
std::size_t size_of(const Parts<T, Index>& parts) {
    std::size_t n = 0;
    for (const auto& part : parts) n += part.size();
    return n;
}

}  // namespace malis
