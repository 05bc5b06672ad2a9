// How work is divided: onto how many threads, and into which parts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace malis {

// Passes over fewer nodes take less time than it takes to start a thread for each of their loops.
constexpr std::size_t nodes_worth_threads = std::size_t{1} << 15;
inline int threads_for(std::size_t nodes, int threads) { return nodes < nodes_worth_threads ? 1 : threads; }

// How many slabs a volume is cut into where each one costs something: a table of its own, or a seam to be joined.
inline std::size_t slabs_for(std::size_t voxels, int threads) {
    return threads > 1 && voxels > 2 * nodes_worth_threads ? static_cast<std::size_t>(threads) : 1;
}

// How many chunks a scan is cut into: several for each thread, as they take different times.
inline std::size_t chunks_for(int threads) { return threads > 1 ? 4 * static_cast<std::size_t>(threads) : 1; }

// Where part `i` begins when n things are cut into equal parts; part `parts` begins at n.
template <class Size>
Size part_begin(Size n, std::size_t parts, std::size_t i) {
    return static_cast<Size>(static_cast<std::uint64_t>(n) * i / parts);
}

}  // namespace malis
