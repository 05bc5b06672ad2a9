#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"
#include "problems.hpp"
#include "reference.hpp"

using namespace malis;
using namespace malis::test;

namespace {

// The edges of the maximum spanning forest in order, when some nodes are joined before; at most `most` of them.
template <class T>
std::vector<std::uint64_t> plain(const Graph& graph, const std::vector<T>& aff, std::size_t joined, std::size_t most) {
    Forest forest(graph.nodes);
    for (std::size_t v = 1; v < joined; ++v) forest.join(0, v);
    std::vector<std::uint64_t> tree;
    for (const std::size_t e : order_of(aff)) {
        if (tree.size() == most) break;
        if (!graph.exists(e)) continue;
        const std::size_t a = forest.root(graph.node1[e]), b = forest.root(graph.node2[e]);
        if (a == b) continue;
        forest.join(a, b);
        tree.push_back(e);
    }
    return tree;
}

template <class T, class Index, class Source>
std::vector<std::uint64_t> tree_of(const Source& source, std::size_t nodes, KruskalScratch<T, Index>& scratch,
                                   int threads, std::size_t joined, std::size_t most) {
    UnionFind<Index> sets;
    sets.reset(nodes, threads);
    for (std::size_t v = 1; v < joined; ++v) sets.unite(0, static_cast<Index>(v));
    std::vector<std::uint64_t> tree;
    kruskal<T, Index>(source, sets, scratch, threads, [&](const Record<T, Index>& r, Index a, Index b) {
        if (sets.find(r.a) != a || sets.find(r.b) != b || a == b) CHECK(false);
        tree.push_back(r.edge);
        sets.link(a, b);
        return tree.size() < most;
    });
    return tree;
}

template <class T>
std::vector<T> random_aff(std::size_t n, int kind, Random& random) {
    std::vector<T> aff(n);
    for (std::size_t e = 0; e < n; ++e) {
        aff[e] = kind == 0            ? static_cast<T>(random.real())
                 : kind == 1          ? static_cast<T>(random.below(6))
                 : kind == 2          ? T(1)
                 : kind == 3          ? static_cast<T>(e)  // in order already, or the other way round
                 : kind == 4          ? -static_cast<T>(e)
                 : random.chance(0.9) ? std::numeric_limits<T>::infinity()
                                      : static_cast<T>(random.noise());
    }
    return aff;
}

template <class T, class Index>
void check_tree(const Graph& graph, const Volume* volume, const std::vector<T>& aff, KruskalScratch<T, Index>& scratch,
                std::size_t joined, std::size_t most) {
    const detail::EveryEdge<T> visit{aff.data()};
    const EdgeList<Index> list{graph.node1.data(), graph.node2.data(), graph.edges(), graph.nodes};
    const auto expected = plain(graph, aff, joined, most);
    for (const int threads : {1, 3}) {
        const auto tree = [&](const auto& source) {
            return tree_of<T, Index>(source, graph.nodes, scratch, threads, joined, most);
        };
        CHECK_SAME(tree(detail::every_edge<T, Index>(list, visit, threads)), expected);
        if (volume == nullptr) continue;
        const Grid<Index> grid = make_grid<Index>(*volume);
        CHECK_SAME(tree(detail::every_edge<T, Index>(grid, visit, threads)), expected);
    }
}

constexpr auto all = std::numeric_limits<std::size_t>::max();

// Sparse and dense graphs; the dense ones have many more edges than a tree, which are filtered and not sorted.
template <class T, class Index>
void random_graphs() {
    Random random(sizeof(T) + sizeof(Index));
    KruskalScratch<T, Index> scratch;  // one for all, as it is used for one object after the other
    for (const std::size_t nodes : {1, 2, 20, 31, 33, 150, 1000, 3000}) {
        for (const std::size_t per_node : {1, 3, 12, 60}) {
            for (int kind = 0; kind < 6; ++kind) {
                context = std::to_string(nodes) + " nodes, " + std::to_string(per_node) + " edges each, kind " +
                          std::to_string(kind);
                Graph graph;
                graph.nodes = nodes;
                for (std::size_t e = 0; e < nodes * per_node; ++e) {
                    graph.node1.push_back(random.chance(0.02) ? Graph::missing : random.below(nodes));
                    graph.node2.push_back(random.chance(0.02) ? nodes + random.below(9) : random.below(nodes));
                }
                const auto aff = random_aff<T>(graph.edges(), kind, random);
                check_tree<T, Index>(graph, nullptr, aff, scratch, 0, all);
                if (kind < 2) {
                    check_tree<T, Index>(graph, nullptr, aff, scratch, nodes / 2, all);
                    check_tree<T, Index>(graph, nullptr, aff, scratch, 0, 1 + nodes / 3);
                }
            }
        }
    }
}

}  // namespace

MALIS_TEST(graphs_of_floats) { random_graphs<float, std::uint32_t>(); }
MALIS_TEST(graphs_of_doubles) { random_graphs<double, std::uint32_t>(); }
MALIS_TEST(graphs_of_64_bit_indices) { random_graphs<float, std::uint64_t>(); }

MALIS_TEST(volumes) {
    Random random(23);
    KruskalScratch<float, std::uint32_t> scratch;
    KruskalScratch<double, std::uint64_t> scratch_64;
    for (int i = 0; i < 60; ++i) {
        const std::array<std::size_t, 3> shape{1 + random.below(9), 1 + random.below(12), 1 + random.below(20)};
        const Volume volume{shape, random_nhood(shape, random)};
        const Graph graph = graph_of(volume);
        context = "volume " + std::to_string(i);
        check_tree<float, std::uint32_t>(graph, &volume, random_aff<float>(graph.edges(), i % 6, random), scratch, 0,
                                         all);
        check_tree<double, std::uint64_t>(graph, &volume, random_aff<double>(graph.edges(), i % 6, random), scratch_64,
                                          0, all);
    }
}

MALIS_TEST(large_volumes) {
    Random random(29);
    KruskalScratch<float, std::uint32_t> scratch;
    const Volume nearest{{40, 50, 60}, nearest_neighbours()};
    const Volume many{{1, 200, 210},
                      {{0, -1, 0}, {0, 0, -1}, {0, -1, -1}, {0, -1, 1}, {0, -3, 0}, {0, 0, -3}, {0, 9, 4}, {0, -9, 4}}};
    for (const Volume& volume : {nearest, many}) {
        const Graph graph = graph_of(volume);
        for (const int kind : {0, 1, 3, 5}) {
            context = "kind " + std::to_string(kind);
            const auto aff = random_aff<float>(graph.edges(), kind, random);
            check_tree<float, std::uint32_t>(graph, &volume, aff, scratch, 0, all);
            check_tree<float, std::uint32_t>(graph, &volume, aff, scratch, 1000, 30000);
        }
    }
}
