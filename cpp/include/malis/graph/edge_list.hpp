// Any graph, as a list of edges between numbered nodes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "malis/support/interrupt.hpp"
#include "malis/support/read_once.hpp"
#include "malis/support/split.hpp"

namespace malis {

// Nodes are numbers of 32 or 64 bits. An edge of which an end is not below `nodes` does not exist; neither does one that
// joins a node to itself.
template <class Index>
struct EdgeList {
    EdgeList(const std::uint32_t* node1, const std::uint32_t* node2, std::size_t edges, std::size_t nodes)
        : narrow1(node1), narrow2(node2), edges(edges), nodes(nodes) {}
    EdgeList(const std::uint64_t* node1, const std::uint64_t* node2, std::size_t edges, std::size_t nodes)
        : wide1(node1), wide2(node2), edges(edges), nodes(nodes) {}

    // Calls f(edge, a, b) for every edge from `from` to `to` that exists.
    template <class F>
    void each(std::size_t from, std::size_t to, F&& f) const {
        const auto over = [&](const auto* node1, const auto* node2) {
            for (std::size_t e = from; e < to; ++e) {
                const auto a = read_once(node1 + e), b = read_once(node2 + e);
                if ((a < nodes) & (b < nodes) & (a != b))
                    f(static_cast<Index>(e), static_cast<Index>(a), static_cast<Index>(b));
            }
        };
        if (wide1 != nullptr) over(wide1, wide2);
        else over(narrow1, narrow2);
    }

    const std::uint32_t* narrow1 = nullptr;
    const std::uint32_t* narrow2 = nullptr;
    const std::uint64_t* wide1 = nullptr;
    const std::uint64_t* wide2 = nullptr;
    const std::size_t edges;
    const std::size_t nodes;
};

// The edges of a list that exist, as a Source (source.hpp); visit.edge() says which take part.
template <class T, class Index, class Visit>
class EdgeListScan {
  public:
    EdgeListScan(const EdgeList<Index>& list, const Visit& visit, int threads)
        : list_(list), visit_(visit), chunks_(chunks_for(threads)) {}

    std::size_t chunks() const { return chunks_; }

    template <class Collect>
    void scan(std::size_t chunk, Collect& collect) const {
        scan_range(part_begin(list_.edges, chunks_, chunk), part_begin(list_.edges, chunks_, chunk + 1), collect);
    }

    template <class Collect>
    double sample(Collect& collect) const {
        constexpr std::size_t pieces = 32, length = 64;  // as many edges as are sampled of a volume
        if (list_.edges <= pieces * length) {
            scan_range(0, list_.edges, collect);
            return 1;
        }
        for (std::size_t p = 0; p < pieces; ++p) {
            const std::size_t from = (list_.edges - length) / (pieces - 1) * p;
            scan_range(from, from + length, collect);
        }
        return static_cast<double>(list_.edges) / static_cast<double>(pieces * length);
    }

  private:
    template <class Collect>
    void scan_range(std::size_t from, std::size_t to, Collect& collect) const {
        constexpr std::size_t block = 4096;
        for (std::size_t e = from; e < to;) {
            const std::size_t stop = std::min(to, e + block);
            poll();
            collect.reserve(stop - e);
            list_.each(e, stop, [&](Index edge, Index a, Index b) { visit_.edge(edge, a, b, collect); });
            e = stop;
        }
    }

    const EdgeList<Index>& list_;
    const Visit& visit_;
    std::size_t chunks_;
};

}  // namespace malis
