// The OnMerge (source.hpp) of a pass with label histograms.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "malis/pairs/sink.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/prefetch.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis::detail {

// Joins components with their label histograms, and writes down what that decides: to arrays where there are any, else
// to a list, as the share of an edge in a loss is known when all are done. Stops when no pair is left.
template <class T, class Index, class Counts>
struct CountMerge {
    UnionFind<Index>& sets;
    LabelHistograms<Index>& histograms;
    Buffer<Decision<T, Index>>& decisions;
    CountArrays arrays;
    PairCount left;  // of the kinds that are asked for
    Counts counts;   // whether an edge does

    bool operator()(const Record<T, Index>& r, Index a, Index b) {
        const Index into = sets.link(a, b);
        const PairCount pairs = histograms.merge(into, into == a ? b : a);
        if ((pairs.pos | pairs.neg) != 0 && counts(r)) {
            if (arrays.pos == nullptr && arrays.neg == nullptr) decisions.push_back({r.rank, r.edge, pairs});
            if (arrays.pos != nullptr && pairs.pos != 0) arrays.pos[r.edge] = static_cast<std::int64_t>(pairs.pos);
            if (arrays.neg != nullptr && pairs.neg != 0) arrays.neg[r.edge] = static_cast<std::int64_t>(pairs.neg);
        }
        left.pos -= std::min(left.pos, pairs.pos);
        left.neg -= std::min(left.neg, pairs.neg);
        return (left.pos | left.neg) != 0;
    }
    MALIS_INLINE void prefetch_root(Index root) const { histograms.prefetch_root(root); }
    MALIS_INLINE void prefetch_beyond(Index root) const { histograms.prefetch_beyond(root); }
};
template <class T, class Index, class Counts>
CountMerge<T, Index, Counts> count_merge(UnionFind<Index>& sets, LabelHistograms<Index>& histograms,
                                         Buffer<Decision<T, Index>>& decisions, CountArrays arrays, PairCount left,
                                         Counts counts) {
    return {sets, histograms, decisions, arrays, left, counts};
}

}  // namespace malis::detail
