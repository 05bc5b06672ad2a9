// Sorting records by their rank.
//
// Ranks of affinities are spread evenly enough that a record's place is nearly known: it goes to a bucket by its rank, and
// insertion sort does the rest. What does not fit the cache is moved to buckets that do first.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/order.hpp"

namespace malis {

// What is moved while records are sorted: a rank and the place of its record. Where both fit, they are one number.
template <class T>
struct Key {
    Key() = default;
    Key(Rank<T> rank, std::uint32_t at) : rank_(rank), at_(at) {}
    Rank<T> rank() const { return rank_; }
    std::uint32_t at() const { return at_; }
    bool operator<(const Key& other) const { return rank_ < other.rank_ || (rank_ == other.rank_ && at_ < other.at_); }

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
            f([lowest = lowest_, shift = shift_](Rank<T> rank) {
                return static_cast<std::size_t>((rank - lowest) >> shift);
            });
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

// Up to here insertion sort is the fastest.
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

// Where neither buckets nor keys will do.
template <class T, class Index>
void stable_sort_by_rank(Record<T, Index>* begin, Record<T, Index>* end) {
    std::stable_sort(begin, end, polling([](const auto& x, const auto& y) { return x.rank < y.rank; }));
}

// Sorts n records stably from one place to another, or where they are.
template <class T, class Index>
void sort_small(const Record<T, Index>* from, std::size_t n, Record<T, Index>* to, SortScratch<T, Index>& scratch) {
    if (n == 0) return;
    if (n > std::numeric_limits<std::uint32_t>::max()) {
        if (from != to) std::memcpy(static_cast<void*>(to), from, n * sizeof *to);
        stable_sort_by_rank(to, to + n);
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

namespace detail {

// Records from as many as this on are sorted in two steps, so that each fits the cache.
constexpr std::size_t records_in_cache = std::size_t{1} << 15;

// Copies all parts to one place.
template <class T, class Index>
void join_parts(const Parts<T, Index>& parts, Buffer<Record<T, Index>>& joined) {
    std::size_t at = 0;
    joined.reset(size_of<T, Index>(parts));
    for (const auto& part : parts) {
        if (!part.empty())
            std::memcpy(static_cast<void*>(joined.data() + at), part.data(), part.size() * sizeof(Record<T, Index>));
        at += part.size();
    }
}

// Records that are counted and moved independently of others.
template <class T, class Index>
struct Piece {
    const Record<T, Index>*begin, *end;
    Rank<T> lowest, highest;
    bool sorted;
    std::vector<std::size_t> place;  // per bucket: where its next record goes
};

// Cuts parts into pieces, and finds the ranks of each and whether it is sorted.
template <class T, class Index>
std::vector<Piece<T, Index>> cut_into_pieces(const Parts<T, Index>& parts, int threads) {
    std::vector<Piece<T, Index>> pieces;
    for (const auto& part : parts) {
        const std::size_t count = parts.size() == 1 && threads > 1 ? static_cast<std::size_t>(threads) : 1;
        for (std::size_t i = 0; i < count; ++i) {
            const auto* const begin = part.begin() + part_begin(part.size(), count, i);
            const auto* const end = part.begin() + part_begin(part.size(), count, i + 1);
            if (begin != end) pieces.push_back({begin, end, begin->rank, begin->rank, true, {}});
        }
    }
    parallel_for(pieces.size(), threads, [&](std::size_t p, std::size_t) {
        Piece<T, Index>& piece = pieces[p];
        Rank<T> low = piece.lowest, high = low, previous = low;
        bool in_order = true;
        in_steps(piece.begin, piece.end, steps_per_poll, [&](const auto* begin, const auto* end) {
            Rank<T> lowest = low, highest = high, before = previous;
            bool sorted = true;
            for (const auto* r = begin; r != end; ++r) {
                lowest = std::min(lowest, r->rank);
                highest = std::max(highest, r->rank);
                sorted &= before <= r->rank;
                before = r->rank;
            }
            low = lowest;
            high = highest;
            previous = before;
            in_order &= sorted;
        });
        piece.lowest = low;
        piece.highest = high;
        piece.sorted = in_order;
    });
    return pieces;
}

template <class T, class Index>
bool in_order(const std::vector<Piece<T, Index>>& pieces) {
    for (std::size_t p = 0; p < pieces.size(); ++p) {
        if (!pieces[p].sorted) return false;
        if (p > 0 && (pieces[p - 1].end - 1)->rank > pieces[p].begin->rank) return false;
    }
    return true;
}

// Counts the records of every bucket in every piece, and finds where those of each go: bucket by bucket, and within one
// piece by piece. Returns where the buckets begin.
template <class T, class Index>
std::vector<std::size_t> place_in_buckets(std::vector<Piece<T, Index>>& pieces, const Buckets<T>& bucket_of,
                                          std::size_t buckets, int threads) {
    parallel_for(pieces.size(), threads, [&](std::size_t p, std::size_t) {
        std::vector<std::size_t> count(buckets, 0);
        bucket_of.visit([&](auto bucket) {
            in_steps(pieces[p].begin, pieces[p].end, steps_per_poll, [&](const auto* begin, const auto* end) {
                for (const auto* r = begin; r != end; ++r) ++count[bucket(r->rank)];
            });
        });
        pieces[p].place = std::move(count);
    });
    std::vector<std::size_t> first(buckets + 1);
    std::size_t total = 0;
    for (std::size_t i = 0; i < buckets; ++i) {
        first[i] = total;
        for (Piece<T, Index>& piece : pieces) {
            const std::size_t count = piece.place[i];
            piece.place[i] = total;
            total += count;
        }
    }
    first[buckets] = total;
    return first;
}

template <class T, class Index>
void move_to_buckets(std::vector<Piece<T, Index>>& pieces, const Buckets<T>& bucket_of, Record<T, Index>* sorted,
                     int threads) {
    parallel_for(pieces.size(), threads, [&](std::size_t p, std::size_t) {
        std::vector<std::size_t>& to = pieces[p].place;
        bucket_of.visit([&](auto bucket) {
            in_steps(pieces[p].begin, pieces[p].end, steps_per_poll, [&](const auto* begin, const auto* end) {
                for (const auto* r = begin; r != end; ++r) sorted[to[bucket(r->rank)]++] = *r;
            });
        });
    });
}

template <class T, class Index>
void sort_buckets(const std::vector<std::size_t>& first, Record<T, Index>* sorted, int threads) {
    const std::size_t buckets = first.size() - 1, tasks = std::min<std::size_t>(buckets, 64);
    std::vector<SortScratch<T, Index>> of_thread(static_cast<std::size_t>(std::max(1, threads)));
    parallel_for(tasks, threads, [&](std::size_t task, std::size_t thread) {
        for (std::size_t i = part_begin(buckets, tasks, task); i < part_begin(buckets, tasks, task + 1); ++i) {
            poll();
            Record<T, Index>* const bucket = sorted + first[i];
            sort_small<T, Index>(bucket, first[i + 1] - first[i], bucket, of_thread[thread]);
        }
    });
}

// Sorts records that do not fit the cache: one pass into buckets that do, then bucket by bucket.
template <class T, class Index>
bool sort_large(Parts<T, Index>& parts, Buffer<Record<T, Index>>& sorted, int threads) {
    const std::size_t n = size_of<T, Index>(parts);
    std::vector<Piece<T, Index>> pieces = cut_into_pieces<T, Index>(parts, threads);
    if (in_order(pieces)) return false;
    Rank<T> lowest = pieces[0].lowest, highest = pieces[0].highest;
    for (const auto& piece : pieces) {
        lowest = std::min(lowest, piece.lowest);
        highest = std::max(highest, piece.highest);
    }
    constexpr std::size_t most_buckets = std::size_t{1} << 12, records_of_bucket = 64;
    const std::size_t buckets = std::min(most_buckets, n / records_of_bucket);
    const Buckets<T> bucket_of(lowest, highest, buckets);
    if (!bucket_of.usable()) {
        join_parts<T, Index>(parts, sorted);
        stable_sort_by_rank(sorted.begin(), sorted.end());
        return true;
    }
    sorted.reset(n);
    const std::vector<std::size_t> first = place_in_buckets(pieces, bucket_of, buckets, threads);
    move_to_buckets(pieces, bucket_of, sorted.data(), threads);
    for (auto& part : parts) part.release();
    sort_buckets(first, sorted.data(), threads);
    return true;
}

}  // namespace detail

// Sorts the records of all parts stably by rank, on several threads where there are many, and gives back the memory of
// parts that are large. Many that are in order already, as equal affinities are, stay in their parts: returns false.
template <class T, class Index>
bool sort_records(Parts<T, Index>& parts, Buffer<Record<T, Index>>& sorted, SortScratch<T, Index>& scratch,
                  int threads) {
    const std::size_t n = size_of<T, Index>(parts);
    if (n >= detail::records_in_cache) return detail::sort_large<T, Index>(parts, sorted, threads);
    const bool one = parts.size() == 1;
    if (one) sorted.reset(n);
    else detail::join_parts<T, Index>(parts, sorted);
    detail::sort_small<T, Index>(one ? parts[0].data() : sorted.data(), n, sorted.data(), scratch);
    return true;
}

}  // namespace malis
