// Any graph, as a list of edges between numbered nodes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "malis/source.hpp"

namespace malis {

// An edge of which an end is not below `nodes` does not exist; neither does one that joins a node to itself.
template <class Index, class Node>
struct EdgeList {
    const Node* node1;
    const Node* node2;
    std::size_t edges;
    std::size_t nodes;
};

// Scans a list of edges in their order, as a source for kruskal(): visit.edge(edge, a, b, collect) collects an edge that
// exists if it takes part.
template <class T, class Index, class Node, class Visit>
class EdgeListScan {
  public:
    EdgeListScan(const EdgeList<Index, Node>& list, const Visit& visit, int threads)
        : list_(list), visit_(visit), chunks_(threads > 1 ? 4 * static_cast<std::size_t>(threads) : 1) {}

    std::size_t chunks() const { return chunks_; }

    template <class Collect>
    void scan(std::size_t chunk, Collect& collect) const {
        scan_range(begin(chunk), begin(chunk + 1), collect);
    }

    template <class Take>
    double sample(Take take) const {
        constexpr std::size_t pieces = 32, length = 64;
        Sampler<T, Take> sampler{take};
        if (list_.edges <= pieces * length) {
            scan_range(0, list_.edges, sampler);
            return 1;
        }
        for (std::size_t p = 0; p < pieces; ++p) {
            const std::size_t from = (list_.edges - length) / (pieces - 1) * p;
            scan_range(from, from + length, sampler);
        }
        return static_cast<double>(list_.edges) / static_cast<double>(pieces * length);
    }

  private:
    std::size_t begin(std::size_t chunk) const {
        return list_.edges / chunks_ * chunk + std::min(chunk, list_.edges % chunks_);
    }
    template <class Collect>
    void scan_range(std::size_t from, std::size_t to, Collect& collect) const {
        constexpr std::size_t block = 4096;
        for (std::size_t e = from; e < to;) {
            const std::size_t stop = std::min(to, e + block);
            collect.reserve(stop - e);
            for (; e < stop; ++e) {
                const Node a = list_.node1[e], b = list_.node2[e];
                if ((a < list_.nodes) & (b < list_.nodes) & (a != b))
                    visit_.edge(static_cast<Index>(e), static_cast<Index>(a), static_cast<Index>(b), collect);
            }
        }
    }

    const EdgeList<Index, Node>& list_;
    const Visit& visit_;
    std::size_t chunks_;
};

}  // namespace malis
