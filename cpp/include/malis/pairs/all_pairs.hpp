// How many pairs there are to be decided.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "malis/graph/labels.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/split.hpp"
#include "malis/tree/label_histogram.hpp"

namespace malis::detail {

// How many voxels carry each label.
template <class Index>
std::vector<std::uint64_t> label_sizes(const Labels<Index>& labels, int threads) {
    const std::size_t n = labels.of.size(), count = static_cast<std::size_t>(labels.count) + 1;
    // Every slab needs a table over all labels.
    const std::size_t slabs = count < n / 16 && threads > 1 ? static_cast<std::size_t>(threads) : 1;
    std::vector<std::vector<Index>> of_slab(slabs);
    parallel_for(slabs, threads, [&](std::size_t slab, std::size_t) {
        std::vector<Index> sizes(count, 0);
        in_steps(part_begin(n, slabs, slab), part_begin(n, slabs, slab + 1), steps_per_poll,
                 [&](std::size_t begin, std::size_t end) {
                     for (std::size_t v = begin; v < end; ++v) ++sizes[labels.of[v]];
                 });
        of_slab[slab] = std::move(sizes);
    });
    std::vector<std::uint64_t> sizes(count, 0);
    for (const auto& slab : of_slab)
        for (std::size_t l = 0; l < count; ++l) sizes[l] += slab[l];
    return sizes;
}

// How many pairs of each kind there are in all, joined or not. The number of what is unlabelled, or 0: these voxels take
// no part in positive pairs.
inline PairCount all_pairs(const std::vector<std::uint64_t>& label_sizes, std::size_t unlabelled = 0) {
    std::uint64_t foreground = 0;
    PairCount pairs{0, 0};
    for (std::size_t l = 1; l < label_sizes.size(); ++l) {
        foreground += label_sizes[l];
        pairs.neg -= pairs_of(label_sizes[l]);
        if (l != unlabelled) pairs.pos += pairs_of(label_sizes[l]);
    }
    pairs.neg += pairs_of(foreground);
    return pairs;
}

}  // namespace malis::detail
