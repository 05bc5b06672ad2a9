// The labels of a volume, compacted to 1..count, and the voxels of every label as runs along the last axis.
//
//     seg    . . 7 7 7 . 9 9 7 7        label   0 0 1 1 1 0 2 2 1 1
//                                       local   0 1 0 1 2 2 0 1 3 4      number of the voxel within its label
//     runs, grouped by label:   0: [0,2) [5,6)     1: [2,5) [8,10)     2: [6,8)
//
// A label is processed run by run: its affinities, the labels they lead to and the local numbers of both ends are
// then contiguous, and an object of some thousand voxels stays in cache from its first edge to its last.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "malis/buffer.hpp"
#include "malis/grid.hpp"
#include "malis/parallel.hpp"

namespace malis {

// Labels of any integer type as 0..count: 0 for what is background, equal numbers for equal labels.
template <class Index>
struct Labels {
    Buffer<Index> of;  // per node
    Index count = 0;   // numbers are at most `count`; not all need occur
    // The number of unlabelled nodes (all the same), or 0 where there are none. It counts as an object among
    // negative pairs alone.
    Index unlabelled = 0;
};

namespace detail {

// Open addressing from 64-bit labels to 1, 2, 3...
template <class Index>
class LabelTable {
  public:
    LabelTable() { rehash(1024); }
    Index number(std::uint64_t label) {
        std::size_t at = slot(label);
        while (number_[at] != 0 && label_[at] != label) at = (at + 1) & mask_;
        if (number_[at] == 0) {
            if (2 * (static_cast<std::size_t>(count_) + 1) > mask_) {
                rehash(2 * (mask_ + 1));
                return number(label);
            }
            label_[at] = label;
            number_[at] = ++count_;
        }
        return number_[at];
    }
    Index count() const { return count_; }

  private:
    std::size_t slot(std::uint64_t label) const {
        return static_cast<std::size_t>((label * 0x9E3779B97F4A7C15ull) >> 20) & mask_;
    }
    void rehash(std::size_t size) {
        std::vector<std::uint64_t> labels(size);
        std::vector<Index> numbers(size, 0);
        std::swap(labels, label_);
        std::swap(numbers, number_);
        mask_ = size - 1;
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            if (numbers[i] == 0) continue;
            std::size_t at = slot(labels[i]);
            while (number_[at] != 0) at = (at + 1) & mask_;
            label_[at] = labels[i];
            number_[at] = numbers[i];
        }
    }
    std::vector<std::uint64_t> label_;
    std::vector<Index> number_;
    std::size_t mask_ = 0;
    Index count_ = 0;
};

}  // namespace detail

// Throws std::invalid_argument for negative labels.
template <class Index, class Label>
Labels<Index> compact_labels(const Label* seg, std::size_t n, const bool* unlabelled, bool ignore_background,
                             int threads) {
    Labels<Index> labels;
    labels.of.reset(n);
    constexpr std::size_t grain = std::size_t{1} << 16;
    std::uint64_t largest = 0;
    {
        std::mutex mutex;
        bool negative = false;
        Label worst = 0;
        parallel_ranges(n, grain, threads, [&](std::size_t begin, std::size_t end) {
            Label low = 0, high = 0;
            for (std::size_t i = begin; i < end; ++i) {
                low = std::min(low, seg[i]);
                high = std::max(high, seg[i]);
            }
            const std::lock_guard<std::mutex> lock(mutex);
            largest = std::max(largest, static_cast<std::uint64_t>(high));
            if (low < Label(0)) {
                negative = true;
                worst = std::min(worst, low);
            }
        });
        if (negative) {
            throw std::invalid_argument("seg must hold labels of at least 0, got " +
                                        std::to_string(static_cast<std::int64_t>(worst)));
        }
    }
    const Index shift = ignore_background ? 0 : 1;  // label 0 becomes an object of its own
    if (largest < n + 256) {
        labels.count = static_cast<Index>(largest) + shift;
        parallel_ranges(n, grain, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) labels.of[i] = static_cast<Index>(seg[i]) + shift;
        });
    } else {
        detail::LabelTable<Index> table;
        Label previous = seg[0];
        Index number = previous == Label(0) ? shift : table.number(static_cast<std::uint64_t>(previous)) + shift;
        for (std::size_t i = 0; i < n; ++i) {
            if (seg[i] != previous) {
                previous = seg[i];
                number = previous == Label(0) ? shift : table.number(static_cast<std::uint64_t>(previous)) + shift;
            }
            labels.of[i] = number;
        }
        labels.count = table.count() + shift;
    }
    if (unlabelled != nullptr) {
        const Index number = labels.count + 1;
        bool any = false;
        for (std::size_t i = 0; i < n; ++i) {
            if (unlabelled[i]) {
                labels.of[i] = number;
                any = true;
            }
        }
        if (any) {
            labels.unlabelled = number;
            labels.count = number;
        }
    }
    return labels;
}

template <class Index>
struct Run {
    Index v;  // its first voxel
    Index length;
    Index z, y;
};

template <class Index>
struct Objects {
    Buffer<Run<Index>> runs;         // by label, in the order of the volume
    std::vector<Index> first_run;    // of label l: runs[first_run[l]] .. runs[first_run[l + 1]]
    std::vector<Index> voxels;       // number of voxels of every label
    Buffer<Index> local;             // per voxel: its number within its label

    Index labels() const { return static_cast<Index>(voxels.size()); }
};

template <class Index>
Objects<Index> find_objects(const Grid<Index>& grid, const Labels<Index>& labels, int threads) {
    Objects<Index> objects;
    const std::size_t count = static_cast<std::size_t>(labels.count) + 1;
    // Every slab needs a table over all labels: no more slabs than threads.
    const std::size_t slabs =
        std::min<std::size_t>(grid.rows, threads > 1 && grid.voxels > 65536 ? static_cast<std::size_t>(threads) : 1);
    const auto slab_row = [&](std::size_t s) {
        return static_cast<Index>(static_cast<std::uint64_t>(grid.rows) * s / slabs);
    };
    const auto each_run = [&](std::size_t slab, auto&& f) {
        for (Index row = slab_row(slab); row < slab_row(slab + 1); ++row) {
            const Index* label = labels.of.data() + row * grid.width;
            for (Index x = 0; x < grid.width;) {
                const Index begin = x, l = label[x];
                do ++x;
                while (x < grid.width && label[x] == l);
                f(l, row, begin, x - begin);
            }
        }
    };
    struct Count {
        Index runs, voxels;
    };
    std::vector<std::vector<Count>> at(slabs);
    parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
        std::vector<Count> counts(count, Count{0, 0});
        each_run(slab, [&](Index l, Index, Index, Index length) {
            ++counts[l].runs;
            counts[l].voxels += length;
        });
        at[slab] = std::move(counts);
    });
    objects.first_run.resize(count + 1);
    objects.voxels.resize(count);
    Index runs = 0;
    for (std::size_t l = 0; l < count; ++l) {
        objects.first_run[l] = runs;
        Index voxels = 0;
        for (std::size_t slab = 0; slab < slabs; ++slab) {
            const Count here = at[slab][l];
            at[slab][l] = {runs, voxels};
            runs += here.runs;
            voxels += here.voxels;
        }
        objects.voxels[l] = voxels;
    }
    objects.first_run[count] = runs;
    objects.runs.reset(runs);
    objects.local.reset(grid.voxels);
    parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
        std::vector<Count>& next = at[slab];
        each_run(slab, [&](Index l, Index row, Index x, Index length) {
            const Index z = row / grid.height;
            const Index v = row * grid.width + x;
            objects.runs[next[l].runs++] = {v, length, z, row - z * grid.height};
            Index* local = objects.local.data() + v;
            for (Index i = 0; i < length; ++i) local[i] = next[l].voxels + i;
            next[l].voxels += length;
        });
    });
    return objects;
}

}  // namespace malis
