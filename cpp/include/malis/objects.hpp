// The labels of a volume, compacted to 1..count, and the voxels of every label as runs along the last axis.
//
//     seg    . . 7 7 7 . 9 9 7 7        label   0 0 1 1 1 0 2 2 1 1
//     runs, grouped by label:   0: [0,2) [5,6)     1: [2,5) [8,10)     2: [6,8)
//     local numbers             0: 0 1    2        1: 0 1 2  3 4       2: 0 1
//
// The edges within a label follow from its runs alone: a run, moved by an offset, and the runs that it then meets
// overlap in *stretches*, along which affinities and the local numbers of both ends count up one by one.
//
//     offset 1 along y      run      [3 4 5 6 7]            local 20 21 22 23 24
//                           meets  [. . .]   [. . .]        local 8 9 10   11 12 13
//     stretches             (20, 9, 2 edges), (23, 11, 2 edges)
//
// No label or local number is ever looked up per edge, and an object of some thousand voxels stays in cache from its
// first edge to its last.
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
#include "malis/read_once.hpp"
#include "malis/select.hpp"

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
            // The bound holds already, unless the labels have changed since.
            const Index bound = static_cast<Index>(largest);
            for (std::size_t i = begin; i < end; ++i)
                labels.of[i] = std::min(static_cast<Index>(seg[i]), bound) + shift;
        });
    } else {
        detail::LabelTable<Index> table;
        Label previous = 0;
        Index number = shift;
        in_steps(n, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const Label label = read_once(seg + i);
                if (label != previous) {
                    previous = label;
                    number = label == Label(0) ? shift : table.number(static_cast<std::uint64_t>(label)) + shift;
                }
                labels.of[i] = number;
            }
        });
        labels.count = table.count() + shift;
    }
    if (unlabelled != nullptr) {
        const Index number = labels.count + 1;
        bool any = false;
        in_steps(n, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                if (unlabelled[i]) {
                    labels.of[i] = number;
                    any = true;
                }
            }
        });
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
    Index first;  // the local number of its first voxel
    Index y, x;   // where it begins
};

template <class Index>
struct Objects {
    Buffer<Run<Index>> runs;       // by label, in the order of the volume
    std::vector<Index> first_run;  // of label l: runs[first_run[l]] .. runs[first_run[l + 1]]
    std::vector<Index> voxels;     // number of voxels of every label

    Index labels() const { return static_cast<Index>(voxels.size()); }
};

template <class Index>
Objects<Index> find_objects(const Grid<Index>& grid, const Labels<Index>& labels, int threads) {
    Objects<Index> objects;
    const std::size_t count = static_cast<std::size_t>(labels.count) + 1;
    // Every slab needs a table over all labels: no more slabs than threads.
    const std::size_t slabs =
        std::min<std::size_t>(grid.rows, threads > 1 && grid.voxels > 65536 ? static_cast<std::size_t>(threads) : 1);
    const auto each_run = [&](std::size_t slab, auto&& f) {
        const auto slab_row = [&](std::size_t s) {
            return static_cast<Index>(static_cast<std::uint64_t>(grid.rows) * s / slabs);
        };
        Index y = slab_row(slab) % grid.height;
        for (Index row = slab_row(slab); row < slab_row(slab + 1); ++row) {
            const Index first = row * grid.width;
            const Index* label = labels.of.data() + first;
            Index begin = 0;
            for (Index block = 0; block < grid.width - 1; block += 64) {
                std::uint64_t changes =
                    detail::select_changes(label + block, std::min<Index>(64, grid.width - 1 - block));
                for (; changes != 0; changes &= changes - 1) {
                    const Index end = block + static_cast<Index>(detail::lowest_bit(changes)) + 1;
                    f(label[begin], first + begin, y, begin, end - begin);
                    begin = end;
                }
            }
            f(label[begin], first + begin, y, begin, grid.width - begin);
            if (++y == grid.height) y = 0;
        }
    };
    struct Count {
        Index runs, voxels;
    };
    std::vector<std::vector<Count>> at(slabs);
    parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
        std::vector<Count> counts(count, Count{0, 0});
        each_run(slab, [&](Index l, Index, Index, Index, Index length) {
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
    parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
        std::vector<Count>& next = at[slab];
        each_run(slab, [&](Index l, Index v, Index y, Index x, Index length) {
            objects.runs[next[l].runs++] = {v, length, next[l].voxels, y, x};
            next[l].voxels += length;
        });
    });
    return objects;
}

// Edges edge + i between the voxels of local numbers a + i and b + i of one label, for i < count.
template <class Index>
struct Stretch {
    Index edge, a, b, count;
};

// All edges within label l, in the order of their index.
template <class Index>
void find_stretches(const Grid<Index>& grid, const Objects<Index>& objects, Index l, Buffer<Stretch<Index>>& stretches) {
    using R = Run<Index>;
    const R* const begin = objects.runs.data() + objects.first_run[l];
    const R* const end = objects.runs.data() + objects.first_run[l + 1];
    const std::size_t runs = static_cast<std::size_t>(end - begin);
    std::size_t size = 0;
    for (std::size_t k = 0; k < grid.steps.size(); ++k) {
        const auto& step = grid.steps[k];
        const auto x = grid.across(step);
        if (!step.decides || x.begin >= x.end) continue;
        // Two sequences of intervals overlap in no more places than both have intervals.
        stretches.resize(size);
        stretches.reserve(size + 2 * runs);
        Stretch<Index>* to = stretches.data() + size;
        const Index channel = static_cast<Index>(k) * grid.voxels, dy = static_cast<Index>(step.offset.y);
        const R* target = begin;  // moves on with the run
        for (const R* run = begin; run != end; ++run) {
            const Index from = std::max(run->x, x.begin), stop = std::min(run->x + run->length, x.end);
            if (from >= stop || static_cast<Index>(run->y + dy) >= grid.height) continue;
            const Index skipped = from - run->x, v = run->v + skipped;
            const Index u = v + step.distance, u_end = u + (stop - from);
            if (u >= grid.voxels) continue;  // x and y stay inside, so this is z
            while (target != end && target->v + target->length <= u) ++target;
            for (const R* other = target; other != end && other->v < u_end; ++other) {
                const Index low = std::max(other->v, u), high = std::min(other->v + other->length, u_end);
                *to++ = {channel + v + (low - u), run->first + skipped + (low - u), other->first + (low - other->v),
                         high - low};
            }
        }
        size = static_cast<std::size_t>(to - stretches.data());
    }
    stretches.resize(size);
}

}  // namespace malis
