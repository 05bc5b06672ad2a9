#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "check.hpp"
#include "malis/graph/recognise_grid.hpp"
#include "malis/malis.hpp"
#include "problems.hpp"
#include "reference.hpp"

using namespace malis;
using namespace malis::test;

namespace {

template <class Node>
std::optional<Graph> recognised(const Graph& graph, int threads) {
    const std::vector<Node> node1(graph.node1.begin(), graph.node1.end()),
        node2(graph.node2.begin(), graph.node2.end());
    const auto grid = recognise_grid(node1.data(), node2.data(), graph.edges(), graph.nodes, threads);
    if (!grid) return std::nullopt;
    return graph_of({grid->shape, grid->nhood});
}

// The same edges in the same places, whatever shape they were taken for.
bool same_edges(const Graph& a, const Graph& b) {
    if (a.nodes != b.nodes || a.edges() != b.edges()) return false;
    for (std::size_t e = 0; e < a.edges(); ++e) {
        if (a.exists(e) != b.exists(e)) return false;
        if (a.exists(e) && (a.node1[e] != b.node1[e] || a.node2[e] != b.node2[e])) return false;
    }
    return true;
}

MALIS_TEST(volumes_are_recognised) {
    Random random(1);
    for (const std::array<std::size_t, 3>& shape :
         {std::array<std::size_t, 3>{1, 1, 9}, {1, 7, 5}, {4, 3, 6}, {5, 5, 5}, {2, 1, 8}, {6, 4, 1}}) {
        for (const std::vector<Offset>& nhood : std::vector<std::vector<Offset>>{
                 nearest_neighbours(),
                 {{0, 0, 1}, {0, 1, 0}, {1, 0, 0}},
                 {{0, 0, -1}, {0, -1, 0}, {-1, 0, 0}, {0, 0, -2}, {0, -2, 0}, {-1, -1, -1}, {0, 0, 0}}}) {
            const Graph graph = graph_of({shape, nhood});
            context = std::to_string(shape[0]) + " " + std::to_string(shape[1]) + " " + std::to_string(shape[2]);
            for (const int threads : {1, 3}) {
                const auto narrow = recognised<std::uint32_t>(graph, threads);
                const auto wide = recognised<std::uint64_t>(graph, threads);
                CHECK(narrow && same_edges(*narrow, graph));
                CHECK(wide && same_edges(*wide, graph));
            }
        }
    }
    context.clear();
}

MALIS_TEST(whatever_is_recognised_is_equal) {
    Random random(2);
    int found = 0;
    for (int trial = 0; trial < 2000; ++trial) {
        const std::array<std::size_t, 3> shape{1 + random.below(4), 1 + random.below(4), 1 + random.below(5)};
        Graph graph = graph_of({shape, random_nhood(shape, random)});
        const auto exact = recognised<std::uint64_t>(graph, 1);
        found += exact.has_value();
        if (exact) CHECK(same_edges(*exact, graph));
        // One entry anywhere is another one now.
        const std::size_t e = random.below(graph.edges());
        auto& list = random.chance(0.5) ? graph.node1 : graph.node2;
        list[e] = random.chance(0.2) ? Graph::missing : random.below(graph.nodes);
        const auto changed = recognised<std::uint64_t>(graph, 1);
        if (changed) CHECK(same_edges(*changed, graph));
    }
    CHECK(found > 1000);
}

MALIS_TEST(other_graphs_are_none) {
    Graph graph;
    graph.nodes = 6;
    CHECK(!recognised<std::uint32_t>(graph, 1));  // no edges
    graph.node1 = {0, 1, 2, 3, 4};
    graph.node2 = {1, 2, 3, 4, 5};
    CHECK(!recognised<std::uint32_t>(graph, 1));  // not one for each node
    graph.node1 = {0, 1, 2, 3, 4, 0};
    graph.node2 = {1, 2, 3, 4, 5, 3};
    CHECK(!recognised<std::uint32_t>(graph, 1));
}

}  // namespace
