// The order of edges: decreasing affinity, equal affinities by increasing edge index.
//
// A *rank* is an unsigned integer that increases as the affinity decreases, so that ranks compare as plain integers.
// Records reach the sort in the order of their edge index (every source scans in that order and keeps it), so a
// stable sort by rank alone is the order of edges.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "malis/buffer.hpp"
#include "malis/parallel.hpp"

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

// An edge on its way to the union-find: its place in the order and the two nodes it joins.
template <class T, class Index>
struct Record {
    Rank<T> rank;
    Index edge;
    Index a;
    Index b;
};

// What is moved while records are sorted: a rank and the place of its record. Where both fit, they are one number.
template <class T>
struct Key {
    Key() = default;
    Key(Rank<T> rank, std::uint32_t at) : rank_(rank), at_(at) {}
    Rank<T> rank() const { return rank_; }
    std::uint32_t at() const { return at_; }
    bool operator<(const Key& other) const {
        return rank_ < other.rank_ || (rank_ == other.rank_ && at_ < other.at_);
    }

  private:
    Rank<T> rank_;
    std::uint32_t at_;
};
template <>
struct Key<float> {
    Key() = default;
    Key(std::uint32_t rank, std::uint32_t at) : both_(static_cast<std::uint64_t>(rank) << 32 | at) {}
    std::uint32_t rank() const { return static_cast<std::uint32_t>(both_ >> 32); }
    std::uint32_t at() const { return static_cast<std::uint32_t>(both_); }
    bool operator<(const Key& other) const { return both_ < other.both_; }

  private:
    std::uint64_t both_;
};

template <class T, class Index>
struct SortScratch {
    Buffer<Key<T>> keys;
    Buffer<std::uint32_t> counts;
    Buffer<Record<T, Index>> moved;
};

namespace detail {

// Bucket of a rank among `buckets`, monotone in the rank. Within a few powers of two a shift of the rank will do;
// over a wider range affinities themselves are spread far more evenly than their bit patterns.
template <class T>
class Buckets {
  public:
    Buckets(Rank<T> lowest, Rank<T> highest, std::size_t buckets)
        : lowest_(lowest), top_(clamped(lowest)), last_(static_cast<T>(buckets - 1)) {
        constexpr int octave = std::numeric_limits<T>::digits - 1;
        const Rank<T> range = highest - lowest;
        by_shift_ = (range >> octave) < 4;
        while ((range >> shift_) >= buckets) ++shift_;
        scale_ = static_cast<T>(buckets) / (top_ - clamped(highest));
        usable_ = range > 0 && (by_shift_ || (scale_ > 0 && scale_ < std::numeric_limits<T>::max()));
    }
    bool usable() const { return usable_; }

    // Calls f with the function from a rank to its bucket, so that loops over records choose once.
    template <class F>
    void visit(F&& f) const {
        if (by_shift_) {
            f([lowest = lowest_, shift = shift_](Rank<T> rank) { return static_cast<std::size_t>((rank - lowest) >> shift); });
        } else {
            f([top = top_, scale = scale_, last = last_](Rank<T> rank) {
                return static_cast<std::size_t>(std::min((top - clamped(rank)) * scale, last));
            });
        }
    }

  private:
    static T clamped(Rank<T> rank) {  // keeps the range finite where affinities are not
        constexpr T big = std::numeric_limits<T>::max() / 4;
        return std::max(-big, std::min(big, from_rank<T>(rank)));
    }
    Rank<T> lowest_;
    T top_, last_, scale_;
    int shift_ = 0;
    bool by_shift_, usable_;
};

// For keys that are nearly in order.
template <class K>
inline void insertion_sort(K* begin, K* end) {
    for (K* i = begin + 1; i < end; ++i) {
        const K moved = *i;
        K* j = i;
        for (; j > begin && moved < *(j - 1); --j) *j = *(j - 1);
        *j = moved;
    }
}

constexpr std::size_t insertion_limit = 24;

// Records and keys as what sort_keys reads.
template <class T, class Index>
struct RecordItems {
    const Record<T, Index>* records;
    Rank<T> rank(std::size_t i) const { return records[i].rank; }
    Key<T> key(std::size_t i) const { return {records[i].rank, static_cast<std::uint32_t>(i)}; }
};
template <class T>
struct KeyItems {
    const Key<T>* keys;
    Rank<T> rank(std::size_t i) const { return keys[i].rank(); }
    Key<T> key(std::size_t i) const { return keys[i]; }
};

// Sorts the keys of n items to `to`, behind which there is room for them once more.
template <class T, class Items>
void sort_keys(Items items, std::size_t n, Key<T>* to, Buffer<std::uint32_t>& counts, int depth = 0) {
    const auto copy = [&] {
        for (std::size_t i = 0; i < n; ++i) to[i] = items.key(i);
    };
    if (n <= insertion_limit) {
        copy();
        insertion_sort(to, to + n);
        return;
    }
    Rank<T> lowest = items.rank(0), highest = lowest, previous = lowest;
    bool sorted = true;
    for (std::size_t i = 0; i < n; ++i) {
        const Rank<T> r = items.rank(i);
        lowest = std::min(lowest, r);
        highest = std::max(highest, r);
        sorted &= previous <= r;
        previous = r;
    }
    if (sorted) {
        copy();
        return;
    }
    const std::size_t buckets = std::min<std::size_t>(std::max<std::size_t>(n, 16), std::size_t{1} << 13);
    const Buckets<T> bucket_of(lowest, highest, buckets);
    if (!bucket_of.usable() || depth > 3) {
        copy();
        std::sort(to, to + n);
        return;
    }
    const std::size_t base = counts.size();  // a deeper call counts behind this one
    counts.resize(base + buckets + 1);
    std::uint32_t* first = counts.data() + base;
    std::memset(first, 0, (buckets + 1) * sizeof *first);
    std::uint32_t largest = 0;
    bucket_of.visit([&](auto bucket) {
        for (std::size_t i = 0; i < n; ++i) ++first[bucket(items.rank(i)) + 1];
        for (std::size_t i = 0; i < buckets; ++i) {
            largest = std::max(largest, first[i + 1]);
            first[i + 1] += first[i];
        }
        for (std::size_t i = 0; i < n; ++i) to[first[bucket(items.rank(i))]++] = items.key(i);
    });
    if (largest > insertion_limit) {
        std::uint32_t start = 0;
        for (std::size_t i = 0; i < buckets; ++i) {
            const std::uint32_t stop = counts[base + i], size = stop - start;
            if (size > insertion_limit) {
                // Sorted to the room behind, of which half remains for a deeper call: no bucket holds all keys.
                Key<T>* const room = to + n;
                sort_keys<T>(KeyItems<T>{to + start}, size, room, counts, depth + 1);
                std::memcpy(static_cast<void*>(to + start), room, size * sizeof *to);
            }
            start = stop;
        }
    }
    counts.resize(base);
    insertion_sort(to, to + n);  // every key is within its bucket: a short way to go
}

// Sorts n records stably from one place to another, or where they are.
template <class T, class Index>
void sort_small(const Record<T, Index>* from, std::size_t n, Record<T, Index>* to, SortScratch<T, Index>& scratch) {
    if (n == 0) return;
    if (n > std::numeric_limits<std::uint32_t>::max()) {
        if (from != to) std::memcpy(static_cast<void*>(to), from, n * sizeof *to);
        std::stable_sort(to, to + n, polling([](const auto& x, const auto& y) { return x.rank < y.rank; }));
        return;
    }
    scratch.keys.reset(6 * n);
    sort_keys<T>(RecordItems<T, Index>{from}, n, scratch.keys.data(), scratch.counts);
    if (from == to) {
        scratch.moved.reset(n);
        std::memcpy(static_cast<void*>(scratch.moved.data()), from, n * sizeof *from);
        from = scratch.moved.data();
    }
    for (std::size_t i = 0; i < n; ++i) to[i] = from[scratch.keys[i].at()];
}

}  // namespace detail

// Records as their source was scanned: one part after the other.
template <class T, class Index>
using Parts = std::vector<Buffer<Record<T, Index>>>;

template <class T, class Index>
std::size_t size_of(const Parts<T, Index>& parts) {
    std::size_t n = 0;
    for (const auto& part : parts) n += part.size();
    return n;
}

// Sorts the records of all parts stably by rank, on several threads where there are many, and gives back the memory of
// parts that are large. Many that are in order already, as equal affinities are, stay in their parts: returns false.
template <class T, class Index>
bool sort_records(Parts<T, Index>& parts, Buffer<Record<T, Index>>& sorted, SortScratch<T, Index>& scratch,
                  int threads) {
    using R = Record<T, Index>;
    const std::size_t n = size_of<T, Index>(parts);
    const auto join = [&] {
        std::size_t at = 0;
        sorted.reset(n);
        for (auto& part : parts) {
            if (!part.empty()) std::memcpy(static_cast<void*>(sorted.data() + at), part.data(), part.size() * sizeof(R));
            at += part.size();
        }
    };
    if (n < (std::size_t{1} << 15)) {
        const bool one = parts.size() == 1;
        if (one) sorted.reset(n);
        else join();
        detail::sort_small<T, Index>(one ? parts[0].data() : sorted.data(), n, sorted.data(), scratch);
        return true;
    }
    // One pass into buckets that fit the cache, by pieces that are counted and moved independently; then bucket by
    // bucket.
    struct Piece {
        const R *begin, *end;
        Rank<T> lowest, highest;
        bool sorted;
        std::vector<std::size_t> place;  // per bucket
    };
    std::vector<Piece> pieces;
    for (const auto& part : parts) {
        const std::size_t count = parts.size() == 1 && threads > 1 ? static_cast<std::size_t>(threads) : 1;
        for (std::size_t i = 0; i < count; ++i) {
            const R* const begin = part.begin() + part.size() * i / count;
            const R* const end = part.begin() + part.size() * (i + 1) / count;
            if (begin != end) pieces.push_back({begin, end, begin->rank, begin->rank, true, {}});
        }
    }
    parallel_for(pieces.size(), threads, [&](std::size_t p, std::size_t) {
        Piece& piece = pieces[p];
        Rank<T> low = piece.lowest, high = low, previous = low;
        bool in_order = true;
        in_steps(piece.begin, piece.end, steps_per_poll, [&](const R* begin, const R* end) {
            Rank<T> low_here = low, high_here = high, previous_here = previous;
            bool in_order_here = true;
            for (const R* r = begin; r != end; ++r) {
                low_here = std::min(low_here, r->rank);
                high_here = std::max(high_here, r->rank);
                in_order_here &= previous_here <= r->rank;
                previous_here = r->rank;
            }
            low = low_here;
            high = high_here;
            previous = previous_here;
            in_order &= in_order_here;
        });
        piece.lowest = low;
        piece.highest = high;
        piece.sorted = in_order;
    });
    Rank<T> lowest = pieces[0].lowest, highest = pieces[0].highest;
    bool in_order = true;
    for (std::size_t p = 0; p < pieces.size(); ++p) {
        in_order &= pieces[p].sorted && (p == 0 || (pieces[p - 1].end - 1)->rank <= pieces[p].begin->rank);
        lowest = std::min(lowest, pieces[p].lowest);
        highest = std::max(highest, pieces[p].highest);
    }
    const std::size_t buckets = std::min<std::size_t>(std::size_t{1} << 12, n / 64);
    const detail::Buckets<T> bucket_of(lowest, highest, buckets);
    if (in_order) return false;
    if (!bucket_of.usable()) {
        join();
        std::stable_sort(sorted.begin(), sorted.end(), polling([](const R& x, const R& y) { return x.rank < y.rank; }));
        return true;
    }
    sorted.reset(n);
    parallel_for(pieces.size(), threads, [&](std::size_t p, std::size_t) {
        std::vector<std::size_t> count(buckets, 0);
        bucket_of.visit([&](auto bucket) {
            in_steps(pieces[p].begin, pieces[p].end, steps_per_poll, [&](const R* begin, const R* end) {
                for (const R* r = begin; r != end; ++r) ++count[bucket(r->rank)];
            });
        });
        pieces[p].place = std::move(count);
    });
    std::vector<std::size_t> first(buckets + 1);
    std::size_t total = 0;
    for (std::size_t i = 0; i < buckets; ++i) {
        first[i] = total;
        for (Piece& piece : pieces) {
            const std::size_t count = piece.place[i];
            piece.place[i] = total;
            total += count;
        }
    }
    first[buckets] = total;
    parallel_for(pieces.size(), threads, [&](std::size_t p, std::size_t) {
        std::vector<std::size_t>& to = pieces[p].place;
        bucket_of.visit([&](auto bucket) {
            in_steps(pieces[p].begin, pieces[p].end, steps_per_poll, [&](const R* begin, const R* end) {
                for (const R* r = begin; r != end; ++r) sorted[to[bucket(r->rank)]++] = *r;
            });
        });
    });
    for (auto& part : parts) part.release();
    const std::size_t tasks = std::min<std::size_t>(buckets, 64);
    std::vector<SortScratch<T, Index>> of_thread(static_cast<std::size_t>(std::max(1, threads)));
    parallel_for(tasks, threads, [&](std::size_t task, std::size_t thread) {
        for (std::size_t i = buckets * task / tasks; i < buckets * (task + 1) / tasks; ++i) {
            poll();
            R* const bucket = sorted.data() + first[i];
            detail::sort_small<T, Index>(bucket, first[i + 1] - first[i], bucket, of_thread[thread]);
        }
    });
    return true;
}

}  // namespace malis
