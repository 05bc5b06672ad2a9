// Links: what blocks leave of a graph, as lists that are in order each, and are merged into one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "malis/support/buffer.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/sort.hpp"

namespace malis {

// What is left of a block: an edge between two nodes, or between a node and a part that has no number of its own, of
// `voxels` voxels of label `b`.
template <class T, class Index>
struct ForestLink {
    Rank<T> rank;
    Index edge;
    Index a, b;
    Index voxels;  // 0: b is a node
    bool before(const ForestLink& other) const {
        return rank < other.rank || (rank == other.rank && edge < other.edge);
    }
};

namespace detail {

// A part of all links that is in order already; its nodes count from `base`.
template <class Item, class Index>
struct Stream {
    const Item* begin;
    const Item* end;
    Index base;
};

// In as much memory as it takes: lists that grow have written to twice as much.
template <class Item>
Buffer<Item> exact_copy(const Buffer<Item>& items) {
    Buffer<Item> copy(items.size());
    std::copy(items.begin(), items.end(), copy.begin());
    return copy;
}

// Sorts items by (rank, edge), which many are already.
template <class T, class Item>
void sort_by_order(Buffer<Item>& items, Buffer<Item>& scratch, SortScratch<T, std::uint32_t>& keys) {
    const std::size_t n = items.size();
    struct Ranks {
        const Item* items;
        Rank<T> rank(std::size_t i) const { return items[i].rank; }
        Key<T> key(std::size_t i) const { return {items[i].rank, static_cast<std::uint32_t>(i)}; }
    };
    keys.keys.reset(6 * n);
    sort_keys<T>(Ranks{items.data()}, n, keys.keys.data(), keys.counts);
    scratch.reset(n);
    for (std::size_t i = 0; i < n; ++i) scratch[i] = items[keys.keys[i].at()];
    std::swap(items, scratch);
    for (std::size_t i = 0; i < n;) {
        std::size_t j = i + 1;
        bool ordered = true;
        for (; j < n && items[j].rank == items[i].rank; ++j) ordered &= items[j - 1].edge < items[j].edge;
        if (!ordered)
            std::sort(items.begin() + i, items.begin() + j,
                      [](const Item& x, const Item& y) { return x.edge < y.edge; });
        i = j;
    }
}

// Streams, cut into pieces that follow each other in order and fit in cache.
template <class Item, class Index>
class CutStreams {
  public:
    // before(x, y) is the order; equal items stay together.
    template <class Before>
    CutStreams(const std::vector<Stream<Item, Index>>& streams, Before before, int threads) : streams_(streams) {
        // In cache, and long enough that there is less to cut than to merge.
        const std::size_t piece = std::max(std::size_t{1} << 13, 16 * streams.size()), step = piece / 16;
        for (const auto& s : streams) total_ += static_cast<std::size_t>(s.end - s.begin);
        const std::size_t pieces = total_ / piece + 1;
        std::vector<Item> samples;
        if (pieces > 1) {
            std::size_t skip = step / 2;
            for (const auto& s : streams) {
                const std::size_t size = static_cast<std::size_t>(s.end - s.begin);
                for (; skip < size; skip += step) samples.push_back(s.begin[skip]);
                skip -= size;
            }
            std::sort(samples.begin(), samples.end(), before);
        }
        cut_.resize((pieces + 1) * streams.size());
        parallel_ranges(streams.size(), 8, threads, [&](std::size_t first, std::size_t last) {
            for (std::size_t s = first; s < last; ++s) {
                const Item* at = streams[s].begin;
                for (std::size_t p = 0; p < pieces; ++p) {
                    if (p > 0) at = std::lower_bound(at, streams[s].end, samples[samples.size() * p / pieces], before);
                    cut_[p * streams.size() + s] = at;
                }
                cut_[pieces * streams.size() + s] = streams[s].end;
            }
        });
        start_.assign(pieces + 1, 0);
        for (std::size_t p = 0; p < pieces; ++p) {
            start_[p + 1] = start_[p];
            each_slice(p, [&](const Item* begin, const Item* end, Index) {
                start_[p + 1] += static_cast<std::size_t>(end - begin);
            });
        }
    }
    std::size_t pieces() const { return start_.size() - 1; }
    std::size_t total() const { return total_; }
    std::size_t start(std::size_t piece) const { return start_[piece]; }
    // Calls f(begin, end, base) for what each stream has of a piece.
    template <class F>
    void each_slice(std::size_t piece, F&& f) const {
        const std::size_t n = streams_.size();
        for (std::size_t s = 0; s < n; ++s) f(cut_[piece * n + s], cut_[(piece + 1) * n + s], streams_[s].base);
    }

  private:
    const std::vector<Stream<Item, Index>>& streams_;
    std::vector<const Item*> cut_;  // per piece and stream
    std::vector<std::size_t> start_;
    std::size_t total_ = 0;
};

// Merges streams; move(item, base) is what becomes of an item.
template <class T, class Item, class Index, class Move>
Buffer<Item> merge_streams(const std::vector<Stream<Item, Index>>& streams, int threads, Move&& move) {
    const CutStreams<Item, Index> cut(
        streams, [](const Item& x, const Item& y) { return x.before(y); }, threads);
    Buffer<Item> merged(cut.total());
    struct Work {
        Buffer<Item> items, scratch;
        SortScratch<T, std::uint32_t> keys;
    };
    std::vector<Work> work(static_cast<std::size_t>(std::max(1, threads)));
    parallel_for(cut.pieces(), threads, [&](std::size_t p, std::size_t thread) {
        Work& w = work[thread];
        w.items.reset(cut.start(p + 1) - cut.start(p));
        Item* to = w.items.data();
        cut.each_slice(p, [&](const Item* begin, const Item* end, Index base) {
            for (const Item* at = begin; at != end; ++at) *to++ = move(*at, base);
        });
        sort_by_order<T>(w.items, w.scratch, w.keys);
        std::copy(w.items.begin(), w.items.end(), merged.begin() + cut.start(p));
    });
    return merged;
}

// Lists of links as one list, in order.
template <class T, class Index>
Buffer<ForestLink<T, Index>> merge_lists(std::vector<Buffer<ForestLink<T, Index>>>& lists, int threads) {
    using Link = ForestLink<T, Index>;
    struct Scratch {
        Buffer<Link> moved;
        SortScratch<T, std::uint32_t> keys;
    };
    std::vector<Scratch> scratch(static_cast<std::size_t>(std::max(1, threads)));
    parallel_for(lists.size(), threads, [&](std::size_t i, std::size_t thread) {
        if (!lists[i].empty()) sort_by_order<T>(lists[i], scratch[thread].moved, scratch[thread].keys);
    });
    std::vector<Stream<Link, Index>> streams;
    for (const Buffer<Link>& list : lists)
        if (!list.empty()) streams.push_back({list.begin(), list.end(), Index{0}});
    return merge_streams<T>(streams, threads, [](const Link& link, Index) { return link; });
}

}  // namespace detail

}  // namespace malis
