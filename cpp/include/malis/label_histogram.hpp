// How many voxels of which label a component holds, for components that are joined one after the other.
//
// Most components carry one label or none, so a node holds just (label, voxels); a component of several labels holds
// the number of a flat table in place of the label. Joining moves the smaller table into the larger. Tables of a few
// labels are searched one by one, larger ones by open addressing; their memory comes from lists of free blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "malis/buffer.hpp"
#include "malis/objects.hpp"
#include "malis/parallel.hpp"
#include "malis/prefetch.hpp"

namespace malis {

struct PairCount {
    std::uint64_t pos, neg;
};

// Where counts themselves are asked for: an array per kind, null for one that is not wanted.
struct CountArrays {
    std::int64_t* pos = nullptr;
    std::int64_t* neg = nullptr;
};

// How many pairs n things make.
inline std::uint64_t pairs_of(std::uint64_t n) { return n % 2 ? n / 2 * n : n / 2 * (n - (n > 0)); }

template <class Index>
class LabelHistograms {
  public:
    // n nodes without voxels of any label.
    LabelHistograms(std::size_t n, Index labels, Index unlabelled, int threads)
        : labels_(labels), unlabelled_(unlabelled), nodes_(n) {
        parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) nodes_[i] = {0, 0};
        });
    }

    void set(Index node, Index label, Index voxels) { nodes_[node] = {label, label == 0 ? Index{0} : voxels}; }

    // Foreground voxels of a component.
    Index foreground(Index root) const { return nodes_[root].voxels; }

    // Ask for the memory of a component: first what is kept for its root, then the table that this leads to.
    MALIS_INLINE void prefetch_root(Index root) const { prefetch(nodes_.data() + root); }
    MALIS_INLINE void prefetch_beyond(Index root) const {
        const Index label = nodes_[root].label;
        if (label > labels_) prefetch(tables_[label - labels_ - 1].entries);
    }

    // Joins two components; `into` is the root that remains. Returns the pairs of voxels that this connects. Calls
    // on_same(x, y) for every label of which one of them holds x and the other y voxels.
    template <class OnSame>
    PairCount merge(Index into, Index from, OnSame&& on_same) {
        Node& a = nodes_[into];
        const Node b = nodes_[from];
        if (b.voxels == 0) return {0, 0};
        if (a.voxels == 0) {
            a = b;
            return {0, 0};
        }
        const std::uint64_t all = static_cast<std::uint64_t>(a.voxels) * b.voxels;
        std::uint64_t same = 0, same_unlabelled = 0;
        const bool a_single = a.label <= labels_, b_single = b.label <= labels_;
        if (a_single && b_single) {
            if (a.label == b.label) {
                same = all;
                if (a.label == unlabelled_) same_unlabelled = all;
                on_same(a.voxels, b.voxels);
            } else {
                const Index table = new_table();
                Table& t = tables_[table];
                t.entries[0] = {a.label, a.voxels};
                t.entries[1] = {b.label, b.voxels};
                t.size = 2;
                a.label = labels_ + 1 + table;
            }
        } else {
            Index large, small_table = none;
            Entry single{};
            if (a_single || b_single) {
                large = (a_single ? b.label : a.label) - labels_ - 1;
                single = a_single ? Entry{a.label, a.voxels} : Entry{b.label, b.voxels};
                add(large, single, same, same_unlabelled, on_same);
            } else {
                large = a.label - labels_ - 1;
                small_table = b.label - labels_ - 1;
                if (tables_[large].size < tables_[small_table].size) std::swap(large, small_table);
                const Table small = tables_[small_table];
                for (std::size_t i = 0; i < (small.hashed() ? small.capacity() : small.size); ++i) {
                    if (small.entries[i].label != 0) add(large, small.entries[i], same, same_unlabelled, on_same);
                }
                free_table(small_table);
            }
            a.label = labels_ + 1 + large;
        }
        a.voxels += b.voxels;
        return {same - same_unlabelled, all - same};
    }
    PairCount merge(Index into, Index from) {
        return merge(into, from, [](Index, Index) {});
    }

  private:
    struct Node {
        Index label;  // 0: no voxels; 1..labels_: one label; beyond: labels_ + 1 + table
        Index voxels;
    };
    struct Entry {
        Index label, voxels;
    };
    static constexpr std::size_t linear = 8;  // tables of up to so many entries are searched one by one
    static constexpr Index none = static_cast<Index>(-1);
    struct Table {
        Entry* entries;
        Index size;
        unsigned bits;  // log2 of the capacity
        std::size_t capacity() const { return std::size_t{1} << bits; }
        bool hashed() const { return capacity() > linear; }
    };

    static std::size_t slot(Index label, unsigned bits) {
        return static_cast<std::size_t>((static_cast<std::uint64_t>(label) * 0x9E3779B97F4A7C15ull) >> (64 - bits));
    }

    template <class OnSame>
    void add(Index table, Entry e, std::uint64_t& same, std::uint64_t& same_unlabelled, OnSame& on_same) {
        Table* t = &tables_[table];
        Entry* found = nullptr;
        if (!t->hashed()) {
            for (Index i = 0; i < t->size; ++i) {
                if (t->entries[i].label == e.label) found = &t->entries[i];
            }
            if (found == nullptr) {
                if (t->size == t->capacity()) {
                    grow(*t);
                    add(table, e, same, same_unlabelled, on_same);
                    return;
                }
                t->entries[t->size++] = e;
                return;
            }
        } else {
            std::size_t at = slot(e.label, t->bits);
            while (t->entries[at].label != 0 && t->entries[at].label != e.label) at = (at + 1) & (t->capacity() - 1);
            if (t->entries[at].label == 0) {
                if (2 * (static_cast<std::size_t>(t->size) + 1) > t->capacity()) {
                    grow(*t);
                    add(table, e, same, same_unlabelled, on_same);
                    return;
                }
                t->entries[at] = e;
                ++t->size;
                return;
            }
            found = &t->entries[at];
        }
        const std::uint64_t pairs = static_cast<std::uint64_t>(found->voxels) * e.voxels;
        same += pairs;
        if (e.label == unlabelled_) same_unlabelled += pairs;
        on_same(found->voxels, e.voxels);
        found->voxels += e.voxels;
    }

    void grow(Table& t) {
        const Table old = t;
        // Hashed tables are at most half full.
        t.bits = old.bits < 3 ? 3 : (old.bits == 3 ? 5 : old.bits + 1);
        t.entries = allocate(t.bits);
        if (t.hashed()) {
            for (std::size_t i = 0; i < t.capacity(); ++i) t.entries[i] = {0, 0};
            for (std::size_t i = 0; i < (old.hashed() ? old.capacity() : old.size); ++i) {
                if (old.entries[i].label == 0) continue;
                std::size_t at = slot(old.entries[i].label, t.bits);
                while (t.entries[at].label != 0) at = (at + 1) & (t.capacity() - 1);
                t.entries[at] = old.entries[i];
            }
        } else {
            for (Index i = 0; i < old.size; ++i) t.entries[i] = old.entries[i];
        }
        free_[old.bits].push_back(old.entries);
    }

    Index new_table() {
        Index table;
        if (free_tables_.empty()) {
            table = static_cast<Index>(tables_.size());
            tables_.push_back({});
        } else {
            table = free_tables_.back();
            free_tables_.pop_back();
        }
        tables_[table] = {allocate(2), 0, 2};
        return table;
    }

    void free_table(Index table) {
        free_[tables_[table].bits].push_back(tables_[table].entries);
        free_tables_.push_back(table);
    }

    Entry* allocate(unsigned bits) {
        if (!free_[bits].empty()) {
            Entry* entries = free_[bits].back();
            free_[bits].pop_back();
            return entries;
        }
        const std::size_t size = std::size_t{1} << bits;
        if (size >= block_size / 4) {
            large_.push_back(std::make_unique<Entry[]>(size));
            return large_.back().get();
        }
        if (block_used_ + size > block_size) {
            large_.push_back(std::make_unique<Entry[]>(block_size));
            block_ = large_.back().get();
            block_used_ = 0;
        }
        Entry* entries = block_ + block_used_;
        block_used_ += size;
        return entries;
    }

    static constexpr std::size_t block_size = std::size_t{1} << 14;
    Index labels_, unlabelled_;
    Buffer<Node> nodes_;
    std::vector<Table> tables_;
    std::vector<Index> free_tables_;
    std::vector<Entry*> free_[64];
    std::vector<std::unique_ptr<Entry[]>> large_;
    Entry* block_ = nullptr;
    std::size_t block_used_ = block_size;
};

}  // namespace malis
