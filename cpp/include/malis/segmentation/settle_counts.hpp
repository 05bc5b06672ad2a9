// Pairs of voxels that the edges of a part of a graph decide, as far as they are certain.
//
// settle.hpp says which edges of a part belong to the maximum spanning tree of the whole. How many pairs such an edge
// decides is certain only where neither of the two components that it joins has a terminal: then both are complete. If
// one of them has a terminal, what lies outside may have been joined to it before, and the edge is *open* here as well.
// Only a component without voxels of any label can be joined to a terminal at once, as it adds no pair at any time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "malis/graph/edge_list.hpp"
#include "malis/segmentation/curve_changes.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/settle.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

// Voxels of a label that a node stands for. Labels are numbers from 1 on.
struct NodeEntries {
    const std::int64_t* node;
    const std::int64_t* label;
    const std::int64_t* voxels;
    std::size_t size;
};

// What is written of every edge. The entropies are those of curve_changes.hpp, and null where nobody asks for them.
struct SettledCounts {
    Settled* kinds;
    std::int64_t* pos;
    std::int64_t* neg;
    std::int64_t* joint;
    std::int64_t* segments;
};

// Edges come in the order in which Kruskal's algorithm takes them. `unlabelled` is a label whose voxels make no positive
// pairs, or 0; `foreground` the number of voxels with a label in the whole volume.
template <class Index>
void settle_counts(const EdgeList<Index>& list, const bool* terminal, const NodeEntries& entries, Index labels,
                   Index unlabelled, std::uint64_t foreground, const SettledCounts& found) {
    UnionFind<Index> sets;
    sets.reset(list.nodes);
    Buffer<bool> reaches(list.nodes);  // of a root: whether a terminal is in its component
    LabelHistograms<Index> histograms(list.nodes, labels, unlabelled, 1);
    in_steps(list.nodes, [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) reaches[v] = terminal[v];
    });
    in_steps(entries.size, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i)
            histograms.add(static_cast<Index>(entries.node[i]), static_cast<Index>(entries.label[i]),
                           static_cast<Index>(entries.voxels[i]));
    });
    std::optional<detail::Entropies> entropies;
    if (found.joint != nullptr) entropies.emplace(foreground);
    in_steps(list.edges, [&](std::size_t begin, std::size_t end) {
        for (std::size_t e = begin; e < end; ++e) {
            found.kinds[e] = Settled::cycle;
            found.pos[e] = found.neg[e] = 0;
            if (found.joint != nullptr) found.joint[e] = found.segments[e] = 0;
        }
        list.each(begin, end, [&](Index edge, Index x, Index y) {
            const Index a = sets.find(x), b = sets.find(y);
            if (a == b) return;
            const bool of_a = reaches[a], of_b = reaches[b];
            const Index in_a = histograms.foreground(a), in_b = histograms.foreground(b);
            const Index into = sets.link(a, b), from = into == a ? b : a;
            reaches[into] = of_a | of_b;
            const bool complete = !of_a & !of_b;
            const bool nothing = (!of_a & (in_a == 0)) | (!of_b & (in_b == 0));
            found.kinds[edge] = (complete | nothing) ? Settled::settled : Settled::open;
            if (!complete) return;  // no histogram of a component with a terminal is asked for any more
            std::int64_t joint = 0;
            const PairCount pairs = histograms.merge(into, from, [&](Index m, Index n) {
                if (entropies) joint += entropies->join(m, n);
            });
            found.pos[edge] = static_cast<std::int64_t>(pairs.pos);
            found.neg[edge] = static_cast<std::int64_t>(pairs.neg);
            if (!entropies || (pairs.pos | pairs.neg) == 0) return;
            found.joint[edge] = joint;
            found.segments[edge] = entropies->join_segments(pairs, joint, in_a, in_b);
        });
    });
}

}  // namespace malis
