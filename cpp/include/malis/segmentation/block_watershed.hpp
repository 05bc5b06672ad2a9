// The seeded maximin watershed of a volume, block by block. As in tree/block_forest.hpp, but for what seeds change:
//
//     seeded    a component that has a seed, or has joined one that has. No two of them are ever joined, and what lies
//               outside does not matter any more: all of them are one set here, and an edge within it is dropped
//     closed    a component without a seed, before its first face edge. It joins whatever its strongest edge leads to
//     open      a component without a seed, from its first face edge on: a node. Whether it has a seed is not known, so
//               its edges to other open or seeded components are links
//
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/grid.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/block_forest.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

namespace detail {

template <class Index>
constexpr Index no_seed = static_cast<Index>(-1);

template <class T, class Index>
class BlockWatershed {
  public:
    using Link = ForestLink<T, Index>;

    BlockWatershed(const Grid<Index>& grid, Affinities<T> aff, BlockShape shape, Index* seed)
        : blocks_(grid, aff, shape), seed_(seed), solved_(blocks_.size()) {}

    void run(int threads) {
        std::vector<Work> work;
        for (int t = 0; t < std::max(1, threads); ++t) work.emplace_back(blocks_);
        parallel_for(blocks_.size(), threads, [&](std::size_t i, std::size_t t) { solve(i, work[t]); });
        Index nodes = 0;
        for (Solved& block : solved_) {
            block.base = nodes;
            nodes += block.nodes;
        }
        const Buffer<Index> seed = seeds_of_nodes(nodes, threads);
        parallel_for(blocks_.size(), threads, [&](std::size_t i, std::size_t) {
            const Solved& block = solved_[i];
            each_row(i, [&](Index first, Index v, Index width) {
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
    // What a voxel gets, in 16 bits: the number of a voxel of its block, of which it gets the seed, if any, or a node.
    static constexpr Local is_node = Local{1} << 15;
    static constexpr Index none = no_seed<Index>;

    struct Solved {
        Index nodes = 0, base = 0;
        Buffer<Local> gets;
        Buffer<Link> links;  // between nodes, counted from 0 in the block; or with 1 for voxels, to a voxel with a seed
    };
    struct Work {
        explicit Work(const Blocks<T, Index>& blocks) : kruskal(blocks) {}
        BlockKruskal<T, Index> kruskal;
        Buffer<Rank<T>> opens;
        Buffer<bool> is_open;  // per root: it is a node
    };

    // Calls f(voxel of the volume, number in the block, length) for every row of a block.
    template <class F>
    void each_row(std::size_t i, F&& f) const {
        const auto block = blocks_[i];
        Blocks<T, Index>::each_row(block, [&](Index row, Index z, Index y) {
            f((z * blocks_.grid.height + y) * blocks_.grid.width + block.x, static_cast<Index>(row << blocks_.row_bits),
              block.width);
        });
    }
    Index voxel(std::size_t i, Local v) const {
        const auto block = blocks_[i];
        const Index row = static_cast<Index>(v >> blocks_.row_bits), z = row / block.height, y = row - z * block.height;
        return ((block.z + z) * blocks_.grid.height + block.y + y) * blocks_.grid.width + block.x +
               (v & ((Index{1} << blocks_.row_bits) - 1));
    }

    void solve(std::size_t i, Work& work) {
        const auto block = blocks_[i];
        Solved& solved = solved_[i];
        BlockKruskal<T, Index>& kruskal = work.kruskal;
        kruskal.begin(block);
        UnionFind<Local>& sets = kruskal.sets;
        const std::size_t n = blocks_.numbers(block);
        blocks_.find_first_face_edges(block, work.opens);
        Rank<T>* const opens = work.opens.data();
        work.is_open.reset(n);
        std::fill(work.is_open.begin(), work.is_open.end(), false);
        bool* const is_open = work.is_open.data();
        solved.gets.reset(n);
        Local* const gets = solved.gets.data();
        for (std::size_t v = 0; v < n; ++v) gets[v] = static_cast<Local>(v);
        Local root = no_node;  // of all that is seeded
        each_row(i, [&](Index first, Index v, Index width) {
            for (Index x = 0; x < width; ++x) {
                if (seed_[first + x] == none) continue;
                const Local seed = static_cast<Local>(v + x);
                root = root == no_node ? seed : kruskal.link(root, seed);
            }
        });
        Local next = 0;
        const auto open = [&](Local of) {
            sets.each_member(of, [&](Local v) { gets[v] = static_cast<Local>(is_node | next); });
            is_open[of] = true;
            ++next;
        };
        const auto give = [&](Local to, Local what) { sets.each_member(to, [&](Local v) { gets[v] = what; }); };
        Buffer<Link>& links = solved.links;
        // Where two components have become one over a link they may in fact have got different seeds before. So it
        // matters which voxel an edge leads to.
        const auto add_link = [&](Rank<T> rank, std::uint32_t e, Local node, Local to) {
            const Index from = static_cast<Index>(node & ~is_node);
            if (to & is_node) links.push_back({rank, kruskal.edge(e), from, static_cast<Index>(to & ~is_node), 0});
            else links.push_back({rank, kruskal.edge(e), from, kruskal.voxel(to), 1});
        };
        kruskal.run([&](Rank<T> rank, std::uint32_t e, Local v, Local u, Local a, Local b) {
            const bool seeded_a = a == root, seeded_b = b == root;
            const bool closed_a = !seeded_a && opens[a] > rank, closed_b = !seeded_b && opens[b] > rank;
            const Rank<T> opened = std::min(opens[a], opens[b]);
            if (!(closed_a && closed_b)) {
                if (!seeded_a && !closed_a && !is_open[a]) open(a);
                if (!seeded_b && !closed_b && !is_open[b]) open(b);
                if (closed_a) give(a, gets[u]);
                else if (closed_b) give(b, gets[v]);
                else if (seeded_a) add_link(rank, e, gets[u], gets[v]);
                else add_link(rank, e, gets[v], gets[u]);
            }
            const Local into = kruskal.link(a, b);
            opens[into] = opened;
            if (seeded_a || seeded_b) root = into;
            is_open[into] = !(closed_a && closed_b);
        });
        each_row(i, [&](Index, Index v, Index width) {
            for (Index x = 0; x < width; ++x) {
                const Local of = sets.find(static_cast<Local>(v + x));
                if (of != root && !is_open[of] && opens[of] != blocks_.never) open(of);
            }
        });
        solved.nodes = next;
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
    Index* const seed_;
    std::vector<Solved> solved_;
};

}  // namespace detail

// `seed` enters with every seed's own number at the seeds and no_seed elsewhere, and leaves with the seed of every voxel, or
// no_seed where no path leads to one.
template <class T, class Index>
void block_watershed(const Grid<Index>& grid, Affinities<T> aff, BlockShape shape, Index* seed, int threads) {
    detail::BlockWatershed<T, Index>(grid, aff, shape, seed).run(threads);
}

}  // namespace malis
