// Gives every connected part of a label a label of its own.
//
// A row of voxels falls into *runs* of one label each. Runs are joined, not voxels, as there are far fewer of them:
//
//     row 0   5 5 5 0 0 7 7      runs 0, 1, 2
//     row 1   5 0 0 7 7 7 7      runs 3, 4, 5
//
// Two runs are joined where they carry the same label and an offset leads from a voxel of one to a voxel of the other:
// for the offset to the next row, 3 with 0 and 5 with 2. The runs of two rows are walked along side by side for that.
// Where no offset leads to the next voxel of a row, every voxel is a run of its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

namespace detail {

// The runs of a volume, in its order. As in join.hpp, parents lead to earlier runs, and slabs of rows are joined on their
// own before the runs of different slabs are.
template <class Index>
class LabelRuns {
  public:
    LabelRuns(const Grid<Index>& grid, int threads)
        : grid_(grid), threads_(threads), rows_per_poll_(steps_per_poll / grid.width + 1) {
        for (const auto& step : grid.steps) {
            const Offset& o = step.offset;
            if (!step.decides) continue;
            if (o.z == 0 && o.y == 0 && o.x * o.x == 1) along_rows_ = true;
            else steps_.push_back(backward(o));
        }
    }

    // Finds the runs and joins them. Labels are unsigned; returns whether the highest bit of one is set, the sign of one
    // that is not.
    template <class Label>
    bool join(const Label* labels) {
        static_assert(std::is_unsigned_v<Label>);
        const bool highest = count(labels);
        const std::size_t slabs = std::min<std::size_t>(grid_.rows, slabs_for(grid_.voxels, threads_));
        const auto slab_row = [&](std::size_t slab) { return part_begin(grid_.rows, slabs, slab); };
        parallel_for(slabs, threads_, [&](std::size_t slab, std::size_t) {
            const Index begin = slab_row(slab);
            in_steps(begin, slab_row(slab + 1), rows_per_poll_, [&](Index from, Index to) {
                for (Index row = from; row < to; ++row) {
                    find(labels, row);
                    for (const Step& step : steps_)
                        if (row - begin >= step.rows) join_rows(step, row);
                }
            });
        });
        for (std::size_t slab = 1; slab < slabs; ++slab) {
            const Index begin = slab_row(slab), end = slab_row(slab + 1);
            for (const Step& step : steps_) {
                const Index last = begin + std::min<Index>(end - begin, step.rows);
                in_steps(begin, last, rows_per_poll_, [&](Index from, Index to) {
                    for (Index row = from; row < to; ++row) join_rows(step, row);
                });
            }
        }
        return highest;
    }

    // Numbers the parts from 1 on, in the order of their first voxels, and returns how many there are. Runs of label 0,
    // and of two labels that are none either, get the number 0.
    Index number(std::uint64_t none1 = 0, std::uint64_t none2 = 0) {
        Index parts = 0;
        in_steps(number_.size(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t run = begin; run < end; ++run) {
                const std::uint64_t label = label_[run];
                const Index parent = number_[run];  // an earlier run, which has its number by now
                if (label == 0 || label == none1 || label == none2) number_[run] = 0;
                else number_[run] = parent == static_cast<Index>(run) ? ++parts : number_[parent];
            }
        });
        return parts;
    }
    // All runs of one label get one number.
    void set_number(std::uint64_t label, Index number) {
        in_steps(number_.size(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t run = begin; run < end; ++run)
                if (label_[run] == label) number_[run] = number;
        });
    }

    // Writes the number of every voxel.
    template <class Label>
    void write(Label* to) const {
        parallel_ranges(grid_.rows, rows_per_poll_, threads_, [&](std::size_t begin, std::size_t end) {
            // Most runs are short. So many voxels are written at once, whatever the length of the run: the next runs write
            // over what was too many. Loops of the right length would be mispredicted at every run.
            constexpr Index at_once = 16;
            Index v = static_cast<Index>(begin) * grid_.width;
            const Index last = static_cast<Index>(end) * grid_.width;
            for (Index run = first_[begin]; run < first_[end]; v = end_[run++]) {
                const Label number = static_cast<Label>(number_[run]);
                for (; v < end_[run] && last - v >= at_once; v += at_once) std::fill_n(to + v, at_once, number);
                for (; v < end_[run]; ++v) to[v] = number;
            }
        });
    }

  private:
    // An offset to an earlier voxel, an edge that joins the same voxels as the offset itself or its opposite.
    struct Step {
        std::int64_t z, y, x;  // how far back
        Index rows;            // the same along z and y, in rows
    };
    Step backward(Offset o) const {
        const bool back = o.z != 0 ? o.z < 0 : o.y != 0 ? o.y < 0 : o.x < 0;
        if (back) o = {-o.z, -o.y, -o.x};
        return {o.z, o.y, o.x, static_cast<Index>(o.z * static_cast<std::int64_t>(grid_.height) + o.y)};
    }

    // Finds out how many runs every row has. Labels may change during the call: find() takes these numbers as given.
    template <class Label>
    bool count(const Label* labels) {
        first_.reset(static_cast<std::size_t>(grid_.rows) + 1);
        std::atomic<bool> highest{false};
        parallel_ranges(grid_.rows, rows_per_poll_, threads_, [&](std::size_t begin, std::size_t end) {
            Label bits = 0;  // of all labels
            for (std::size_t row = begin; row < end; ++row) {
                const Label* const label = labels + row * static_cast<std::size_t>(grid_.width);
                Index runs = 1;
                bits = static_cast<Label>(bits | label[0]);
                for (Index x = 1; x < grid_.width; ++x) {
                    runs += static_cast<Index>(label[x] != label[x - 1]);
                    bits = static_cast<Label>(bits | label[x]);
                }
                first_[row + 1] = along_rows_ ? runs : grid_.width;
            }
            if ((bits >> (std::numeric_limits<Label>::digits - 1)) != 0) highest = true;
        });
        first_[0] = 0;
        in_steps(grid_.rows, [&](Index begin, Index end) {
            for (Index row = begin; row < end; ++row) first_[row + 1] += first_[row];
        });
        const std::size_t runs = first_[grid_.rows];
        end_.reset(runs);
        label_.reset(runs);
        number_.reset(runs);
        return highest;
    }

    // Lists the runs of a row, each its own parent. Where the row has changed since they were counted, the last one
    // takes the rest of it, or further ones are empty.
    template <class Label>
    void find(const Label* labels, Index row) {
        const Index begin = row * grid_.width, end = begin + grid_.width;
        const Index first = first_[row], last = first_[row + 1] - 1;
        Index run = first;
        Label label = labels[begin];
        // Every voxel is stored as the end of a run, over the one before if that is the same: runs are short, and a branch
        // would be mispredicted at the end of each.
        for (Index v = begin; v < end; ++v) {
            end_[run] = v + 1;
            label_[run] = label;
            const Label next = labels[std::min<Index>(v + 1, end - 1)];
            run += static_cast<Index>(((next != label) | !along_rows_) & (run < last));
            label = next;
        }
        for (end_[last] = end; run < last; ++run) {
            end_[run] = end;
            label_[run + 1] = 0;
        }
        for (run = first; run <= last; ++run) number_[run] = run;
    }

    // Joins the runs of a row with those of the row that a step leads back to.
    void join_rows(const Step& step, Index row) {
        const std::int64_t z = static_cast<std::int64_t>(row / grid_.height);
        const std::int64_t y = static_cast<std::int64_t>(row % grid_.height);
        if (z < step.z || y < step.y || y - step.y >= static_cast<std::int64_t>(grid_.height)) return;
        const Index other = row - step.rows;
        // Where the runs of the other row end once they are moved by the step, and the part of this row they can reach.
        const Index distance = step.rows * grid_.width + static_cast<Index>(step.x);
        const Index begin = row * grid_.width + static_cast<Index>(std::max<std::int64_t>(0, step.x));
        const Index end = (row + 1) * grid_.width + static_cast<Index>(std::min<std::int64_t>(0, step.x));
        Index a = first_[row], b = first_[other];
        while (end_[a] <= begin) ++a;
        while (end_[b] + distance <= begin) ++b;
        for (;;) {
            if (label_[a] == label_[b] && label_[a] != 0) join_lowest(number_.data(), a, b);
            const Index end_a = end_[a], end_b = end_[b] + distance;
            if (std::min(end_a, end_b) >= end) return;
            a += static_cast<Index>(end_a <= end_b);
            b += static_cast<Index>(end_b <= end_a);
        }
    }

    const Grid<Index>& grid_;
    const int threads_;
    const std::size_t rows_per_poll_;
    bool along_rows_ = false;  // an offset leads to the next voxel of a row
    std::vector<Step> steps_;  // all others
    Buffer<Index> first_;      // per row: its first run
    // Per run: where it ends, its label, and its parent, which number() turns into the number of its part.
    Buffer<Index> end_;
    Buffer<std::uint64_t> label_;
    Buffer<Index> number_;
};

}  // namespace detail

// Numbers the parts 1.. in the order of their first voxels. Background stays 0; ignored and unlabelled voxels get the
// numbers behind the last part.
template <class Index>
void connect_labels(const Grid<Index>& grid, Labels<Index>& labels, int threads) {
    detail::LabelRuns<Index> runs(grid, threads);
    runs.join(labels.of.data());
    labels.count = runs.number(labels.ignored, labels.unlabelled);
    for (Index* const none : {&labels.ignored, &labels.unlabelled}) {
        if (*none == 0) continue;
        runs.set_number(*none, labels.count + 1);
        *none = ++labels.count;
    }
    runs.write(labels.of.data());
}

}  // namespace malis
