// How many voxels of which label a component holds, for components that are joined one after the other.
//
// Most components carry one label or none, so a node holds just (label, voxels); a component of several labels holds
// the place of a table in place of the label. Joining moves the smaller table into the larger.
//
//     up to 7 labels   head | entry | entry | ...                     a line of the cache, searched one by one
//     more             head | unused  || entry | - | entry | - ...    open addressing, at most half full
//
// A place counts in such lines, so a number of 32 bits reaches all of them, and the only memory that a merge waits for
// is the node and then its line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "malis/support/buffer.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/prefetch.hpp"

namespace malis {

struct PairCount {
    std::uint64_t pos, neg;
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

    // n nodes without voxels of any label again; keeps its memory for many small problems.
    void reset(std::size_t n) {
        nodes_.reset(n);
        for (std::size_t i = 0; i < n; ++i) nodes_[i] = {0, 0};
        if (memory_.empty()) return;
        for (auto& free : free_) free.clear();
        const bool reusable = memory_[0].size() >= line << chunk_bits;
        memory_.resize(reusable ? 1 : 0);
        chunks_.resize(memory_.size());
        chunk_ = 0;
        used_ = reusable ? 0 : std::size_t{1} << chunk_bits;
    }

    void set(Index node, Index label, Index voxels) { nodes_[node] = {label, label == 0 ? Index{0} : voxels}; }

    // The label of a component that carries no other, and 0 for one of several labels or none.
    Index single_label(Index root) const { return nodes_[root].label <= labels_ ? nodes_[root].label : 0; }

    // Calls f(label, voxels) for every label of a component.
    template <class F>
    void each_label(Index root, F&& f) const {
        const Node& node = nodes_[root];
        if (node.voxels == 0) return;
        if (node.label <= labels_) return f(node.label, node.voxels);
        const Entry* const t = at(node.label);
        const bool hashed = t->label != 0;
        const Entry* const entries = t + (hashed ? line : 1);
        const std::size_t size = hashed ? std::size_t{1} << t->label : static_cast<std::size_t>(t->voxels);
        for (std::size_t i = 0; i < size; ++i)
            if (entries[i].label != 0) f(entries[i].label, entries[i].voxels);
    }

    // Adds voxels of one label to a component, as if they were one that is merged into it.
    template <class OnSame>
    PairCount add(Index root, Index label, Index voxels, OnSame&& on_same) {
        Node& node = nodes_[root];
        if (node.voxels == 0) {
            node = {label, voxels};
            return {0, 0};
        }
        const std::uint64_t all = static_cast<std::uint64_t>(node.voxels) * voxels;
        std::uint64_t same = 0, same_unlabelled = 0;
        if (node.label == label) {
            same = all;
            if (label == unlabelled_) same_unlabelled = all;
            on_same(node.voxels, voxels);
        } else {
            if (node.label <= labels_) {
                const Index table = new_table(0);
                Entry* const t = at(table);
                t[0].voxels = 1;
                t[1] = {node.label, node.voxels};
                node.label = table;
            }
            add(node.label, Entry{label, voxels}, same, same_unlabelled, on_same);
        }
        node.voxels += voxels;
        return {same - same_unlabelled, all - same};
    }
    PairCount add(Index root, Index label, Index voxels) {
        return add(root, label, voxels, [](Index, Index) {});
    }

    // Foreground voxels of a component.
    Index foreground(Index root) const { return nodes_[root].voxels; }

    // Ask for the memory of a component: first what is kept for its root, then the table that this leads to.
    MALIS_INLINE void prefetch_root(Index root) const { prefetch(nodes_.data() + root); }
    MALIS_INLINE void prefetch_beyond(Index root) const {
        const Index label = nodes_[root].label;
        if (label > labels_) prefetch(at(label));
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
                const Index table = new_table(0);
                Entry* const t = at(table);
                t[0].voxels = 2;
                t[1] = {a.label, a.voxels};
                t[2] = {b.label, b.voxels};
                a.label = table;
            }
        } else if (a_single || b_single) {
            const Entry single = a_single ? Entry{a.label, a.voxels} : Entry{b.label, b.voxels};
            if (a_single) a.label = b.label;
            add(a.label, single, same, same_unlabelled, on_same);
        } else {
            Index small = b.label;
            if (at(a.label)->voxels < at(small)->voxels) std::swap(a.label, small);
            const Entry* const t = at(small);
            const bool hashed = t->label != 0;
            const Entry* const entries = t + (hashed ? line : 1);
            const std::size_t size = hashed ? std::size_t{1} << t->label : static_cast<std::size_t>(t->voxels);
            for (std::size_t i = 0; i < size; ++i) {
                if (entries[i].label != 0) add(a.label, entries[i], same, same_unlabelled, on_same);
            }
            free_table(small);
        }
        a.voxels += b.voxels;
        return {same - same_unlabelled, all - same};
    }
    PairCount merge(Index into, Index from) {
        return merge(into, from, [](Index, Index) {});
    }

  private:
    struct Node {
        Index label;  // 0: no voxels; 1..labels_: one label; beyond: the place of a table, counted on from labels_ + 1
        Index voxels;
    };
    // The first entry of a table is its head: the number of labels in place of voxels; and in place of a label 0, or
    // log2 of the capacity of one that is hashed.
    struct Entry {
        Index label, voxels;
    };
    static constexpr std::size_t line = 8;      // entries: 64 bytes where indices have 32 bits
    static constexpr unsigned chunk_bits = 11;  // log2 of the lines of a chunk
    static constexpr unsigned first_hashed_bits = 5;

    Entry* at(Index table) const {
        const std::size_t place = static_cast<std::size_t>(table - labels_ - 1);
        return chunks_[place >> chunk_bits] + (place & ((std::size_t{1} << chunk_bits) - 1)) * line;
    }

    static std::size_t slot(Index label, Index bits) {
        return static_cast<std::size_t>((static_cast<std::uint64_t>(label) * 0x9E3779B97F4A7C15ull) >> (64 - bits));
    }
    // Where a label is, or the free entry where it would be.
    static Entry* find(Entry* entries, Index bits, Index label) {
        std::size_t i = slot(label, bits);
        while (entries[i].label != 0 && entries[i].label != label) i = (i + 1) & ((std::size_t{1} << bits) - 1);
        return entries + i;
    }

    // Adds an entry to a table, which may have to move for it.
    template <class OnSame>
    void add(Index& table, Entry e, std::uint64_t& same, std::uint64_t& same_unlabelled, OnSame& on_same) {
        Entry* const t = at(table);
        const std::size_t size = static_cast<std::size_t>(t->voxels);
        Entry* found;
        bool full;
        if (t->label == 0) {
            found = t + 1 + size;
            for (Entry* entry = t + 1; entry != t + 1 + size; ++entry) {
                if (entry->label == e.label) found = entry;
            }
            full = size == line - 1;
            if (found != t + 1 + size) return join(*found, e, same, same_unlabelled, on_same);
        } else {
            found = find(t + line, t->label, e.label);
            full = 2 * (size + 1) > std::size_t{1} << t->label;
            if (found->label != 0) return join(*found, e, same, same_unlabelled, on_same);
        }
        if (full) {
            grow(table);
            return add(table, e, same, same_unlabelled, on_same);
        }
        *found = e;
        ++t->voxels;
    }

    template <class OnSame>
    void join(Entry& found, const Entry& e, std::uint64_t& same, std::uint64_t& same_unlabelled, OnSame& on_same) {
        const std::uint64_t pairs = static_cast<std::uint64_t>(found.voxels) * e.voxels;
        same += pairs;
        if (e.label == unlabelled_) same_unlabelled += pairs;
        on_same(found.voxels, e.voxels);
        found.voxels += e.voxels;
    }

    void grow(Index& table) {
        const Index bits = at(table)->label;
        const Index grown = new_table(bits == 0 ? first_hashed_bits : bits + 1);
        const Entry* const from = at(table);
        Entry* const to = at(grown);
        to->voxels = from->voxels;
        const Entry* const entries = from + (bits == 0 ? 1 : line);
        const std::size_t size = bits == 0 ? static_cast<std::size_t>(from->voxels) : std::size_t{1} << bits;
        for (std::size_t i = 0; i < size; ++i) {
            if (entries[i].label != 0) *find(to + line, to->label, entries[i].label) = entries[i];
        }
        free_table(table);
        table = grown;
    }

    // A table without entries, of one line for 0 bits.
    Index new_table(Index bits) {
        const Index table = allocate(bits);
        Entry* const t = at(table);
        t[0] = {bits, 0};
        if (bits > 0) std::memset(static_cast<void*>(t + line), 0, sizeof(Entry) << bits);
        return table;
    }

    void free_table(Index table) { free_[at(table)->label].push_back(table); }

    Index allocate(Index bits) {
        if (!free_[bits].empty()) {
            const Index table = free_[bits].back();
            free_[bits].pop_back();
            return table;
        }
        constexpr std::size_t chunk_lines = std::size_t{1} << chunk_bits;
        const std::size_t lines = bits == 0 ? 1 : 1 + (std::size_t{1} << bits) / line;
        const bool alone = lines > chunk_lines / 4;
        if (alone || used_ + lines > chunk_lines) {
            memory_.emplace_back((alone ? lines : chunk_lines) * line);
            chunks_.push_back(memory_.back().data());
            if (!alone) {
                chunk_ = chunks_.size() - 1;
                used_ = 0;
            }
        }
        const std::size_t place = alone ? (chunks_.size() - 1) << chunk_bits : (chunk_ << chunk_bits) + used_;
        if (!alone) used_ += lines;
        return labels_ + 1 + static_cast<Index>(place);
    }

    Index labels_, unlabelled_;
    Buffer<Node> nodes_;
    std::vector<Buffer<Entry>> memory_;
    std::vector<Entry*> chunks_;                                   // where `memory_` begins
    std::vector<Index> free_[64];                                  // tables by their bits
    std::size_t chunk_ = 0, used_ = std::size_t{1} << chunk_bits;  // the chunk that is not full, and its lines in use
};

}  // namespace malis
