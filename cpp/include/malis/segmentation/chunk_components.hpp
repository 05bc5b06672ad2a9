// Components of a chunk of a larger volume.
//
// A component that holds a voxel from which an edge leads out of the chunk is *open*: it may go on outside, so that its
// size is not known. What is not open has its final size, and is dropped here if it is too small. So labels are few, also
// where most voxels are components of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "malis/segmentation/components.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"

namespace malis {

// The components of a chunk that stay, numbered from 1 in the order of their first voxels.
template <class Index>
struct ChunkComponents {
    Buffer<Index> component;          // of every voxel, from 0
    std::vector<Index> number;        // of every component; 0 if it is dropped
    std::vector<std::int64_t> sizes;  // of every number; 0 stands for the dropped voxels
};

// Finds them from the parents that join_voxels returns. `open` names voxels, `opens` of them, in any order.
template <class Index>
ChunkComponents<Index> chunk_components(Buffer<Index> parents, const std::int64_t* open, std::size_t opens,
                                        std::int64_t size_thresh) {
    Index* const component = parents.data();
    const std::vector<std::int64_t> size = detail::sweep_parents(component, parents.size());
    std::vector<Index> number(size.size(), 0);
    in_steps(opens, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) number[component[open[i]]] = 1;
    });
    std::vector<std::int64_t> sizes{0};
    in_steps(size.size(), [&](std::size_t begin, std::size_t end) {
        for (std::size_t c = begin; c < end; ++c) {
            if (number[c] != 0 || size[c] > size_thresh) {
                number[c] = static_cast<Index>(sizes.size());
                sizes.push_back(size[c]);
            } else {
                sizes[0] += size[c];
            }
        }
    });
    return {std::move(parents), std::move(number), std::move(sizes)};
}

// Writes the number of every voxel; returns the first voxels of the numbers from 1 on.
template <class Index, class Label>
std::vector<std::int64_t> label_chunk(const ChunkComponents<Index>& found, Label* seg) {
    std::vector<std::int64_t> first;
    first.reserve(found.sizes.size() - 1);
    in_steps(found.component.size(), [&](std::size_t begin, std::size_t end) {
        for (std::size_t v = begin; v < end; ++v) {
            const Index number = found.number[found.component[v]];
            // As numbers increase with their first voxels, the largest so far is met for the first time here.
            if (static_cast<std::size_t>(number) > first.size()) first.push_back(static_cast<std::int64_t>(v));
            seg[v] = static_cast<Label>(number);
        }
    });
    return first;
}

}  // namespace malis
