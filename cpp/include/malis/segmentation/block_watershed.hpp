// The seeded maximin watershed of a volume, block by block: blocks on their own first (watershed_block.hpp), then the links
// between the nodes that they leave.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/grid.hpp"
#include "malis/segmentation/watershed_block.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

namespace detail {

template <class T, class Index>
class BlockWatershed {
  public:
    using Link = ForestLink<T, Index>;

    BlockWatershed(const Grid<Index>& grid, Affinities<T> aff, BlockShape shape, Rank<T> last, Index* seed)
        : blocks_(grid, aff, shape), last_(last), seed_(seed), solved_(blocks_.size()) {}

    void run(int threads) {
        std::vector<WatershedBlockSolver<T, Index>> solvers;
        for (int t = 0; t < std::max(1, threads); ++t) solvers.emplace_back(blocks_, seed_, last_);
        parallel_for(blocks_.size(), threads,
                     [&](std::size_t i, std::size_t t) { solvers[t].solve(blocks_[i], solved_[i]); });
        Index nodes = 0;
        for (Solved& block : solved_) {
            block.base = nodes;
            nodes += block.nodes;
        }
        const Buffer<Index> seed = seeds_of_nodes(nodes, threads);
        parallel_for(blocks_.size(), threads, [&](std::size_t i, std::size_t) {
            const Solved& block = solved_[i];
            each_row_of(blocks_, blocks_[i], [&](Index first, Index v, Index width) {
                for (Index x = 0; x < width; ++x) {
                    const Local gets = block.gets[v + x];
                    const Index node = block.base + (gets & ~is_node);
                    // A seed gets itself, and is not written while others read it.
                    if (gets & is_node) seed_[first + x] = seed[node];
                    else if (gets != v + x) seed_[first + x] = voxel(i, gets);
                }
            });
        });
    }

  private:
    using Solved = WatershedBlock<T, Index>;
    static constexpr Local is_node = Solved::is_node;
    static constexpr Index none = no_seed<Index>;

    Index voxel(std::size_t i, Local v) const {
        const auto block = blocks_[i];
        const Index row = static_cast<Index>(v >> blocks_.row_bits), z = row / block.height, y = row - z * block.height;
        return ((block.z + z) * blocks_.grid.height + block.y + y) * blocks_.grid.width + block.x +
               (v & ((Index{1} << blocks_.row_bits) - 1));
    }

    // All links in order, joined: the seed of every node.
    Buffer<Index> seeds_of_nodes(Index nodes, int threads) const {
        std::vector<Stream<Link, Index>> streams;
        for (const Solved& block : solved_) streams.push_back({block.links.begin(), block.links.end(), block.base});
        const Buffer<Link> links =
            merge_links(blocks_, std::move(streams), threads, [&](std::size_t i, Buffer<Link>& to) {
                each_owned_face_edge(blocks_, i, [&](Local v, Index edge, std::size_t other, Local u) {
                    const Solved* a = &solved_[i];
                    const Solved* b = &solved_[other];
                    Local of_a = a->gets[v], of_b = b->gets[u];
                    std::size_t block_of_b = other;
                    if ((of_a & is_node) == 0) {
                        if ((of_b & is_node) == 0) return;
                        std::swap(a, b);
                        std::swap(of_a, of_b);
                        block_of_b = i;
                    }
                    const Index node = a->base + (of_a & ~is_node);
                    const Rank<T> rank = to_rank(blocks_.aff[edge]);
                    if (rank > last_) return;
                    if (of_b & is_node) to.push_back({rank, edge, node, b->base + (of_b & ~is_node), 0});
                    else to.push_back({rank, edge, node, voxel(block_of_b, of_b), 1});
                });
            });
        UnionFind<Index> sets;
        sets.reset(nodes);
        Buffer<Index> seed(nodes);
        std::fill(seed.begin(), seed.end(), none);
        in_steps(links.begin(), links.end(), steps_per_poll, [&](const Link* begin, const Link* end) {
            for (const Link* link = begin; link != end; ++link) {
                const Index a = sets.find(link->a);
                if (link->voxels != 0) {
                    if (seed[a] == none) seed[a] = link->b;
                    continue;
                }
                const Index b = sets.find(link->b);
                if (a == b || (seed[a] != none && seed[b] != none)) continue;
                const Index known = seed[a] != none ? seed[a] : seed[b];
                seed[sets.link(a, b)] = known;
            }
        });
        for (Index node = 0; node < nodes; ++node) seed[node] = seed[sets.find(node)];
        return seed;
    }

    const Blocks<T, Index> blocks_;
    const Rank<T> last_;
    Index* const seed_;
    std::vector<Solved> solved_;
};

}  // namespace detail

// `seed` enters with every seed's own number at the seeds and no_seed elsewhere, and leaves with the seed of every voxel, or
// no_seed where no path of edges of ranks up to `last` leads to one.
template <class T, class Index>
void block_watershed(const Grid<Index>& grid, Affinities<T> aff, BlockShape shape, Rank<T> last, Index* seed,
                     int threads) {
    detail::BlockWatershed<T, Index>(grid, aff, shape, last, seed).run(threads);
}

}  // namespace malis
