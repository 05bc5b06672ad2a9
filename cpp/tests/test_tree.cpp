#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"
#include "malis/segmentation/settle_counts.hpp"
#include "malis/tree/settle.hpp"
#include "problems.hpp"
#include "reference.hpp"

using namespace malis;
using namespace malis::test;

namespace {

template <class T, class Node>
TreeView view_of(const SpanningTree<T, Node>& tree, std::size_t nodes) {
    return {tree.affinities.data(), tree.node1.data(), tree.node2.data(), tree.edges.size(), nodes};
}

template <class Node, class T>
void check_tree(const Volume& volume, const Graph& graph, const std::vector<T>& aff) {
    const std::size_t n = volume.voxels();
    std::vector<std::int64_t> edges;
    Forest forest(n);
    for (const std::size_t e : order_of(aff)) {
        if (!graph.exists(e)) continue;
        const std::size_t a = forest.root(graph.node1[e]), b = forest.root(graph.node2[e]);
        if (a == b) continue;
        forest.join(a, b);
        edges.push_back(static_cast<std::int64_t>(e));
    }
    for (const int threads : {1, 3}) {
        const auto tree = maximum_spanning_tree<Node>(volume, aff.data(), threads);
        CHECK_SAME((std::vector<std::int64_t>(tree.edges.begin(), tree.edges.end())), edges);
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < tree.edges.size(); ++i) {
            const auto e = static_cast<std::size_t>(tree.edges[i]);
            wrong += tree.affinities[i] != aff[e] || static_cast<std::uint64_t>(tree.node1[i]) != graph.node1[e] ||
                     static_cast<std::uint64_t>(tree.node2[i]) != graph.node2[e];
        }
        CHECK_EQUAL(wrong, std::size_t{0});
    }

    const auto tree = maximum_spanning_tree<Node>(volume, aff.data(), 1);
    const std::vector<T> thresholds{
        T(0.5), T(0.25), std::numeric_limits<T>::infinity(), T(0.5), T(0.9), -std::numeric_limits<T>::infinity(), T(0)};
    for (const int threads : {1, 3}) {
        std::vector<std::vector<std::int32_t>> segs(thresholds.size(), std::vector<std::int32_t>(n));
        std::vector<std::int32_t*> to;
        for (auto& seg : segs) to.push_back(seg.data());
        const std::vector<double> at(thresholds.begin(), thresholds.end());
        const auto sizes = segment_tree<std::uint32_t>(view_of(tree, n), at, 1, to, threads);
        for (std::size_t i = 0; i < thresholds.size(); ++i) {
            std::vector<std::int32_t> seg(n);
            CHECK_SAME(sizes[i], components<T>(make_grid<std::uint32_t>(volume), aff.data(), AtLeast<T>{thresholds[i]},
                                               1, seg.data(), threads));
            CHECK_SAME(segs[i], seg);
        }
    }

    // Every row of the dendrogram joins two clusters that no row has joined before.
    const double highest = 1;
    std::vector<double> rows(4 * (n - 1));
    linkage<std::uint32_t>(view_of(tree, n), highest, rows.data());
    std::vector<std::vector<std::size_t>> clusters(n);
    for (std::size_t v = 0; v < n; ++v) clusters[v] = {v};
    std::size_t wrong = 0;
    for (std::size_t i = 0; i + 1 < n; ++i) {
        const double* row = rows.data() + 4 * i;
        const auto a = static_cast<std::size_t>(row[0]), b = static_cast<std::size_t>(row[1]);
        if (a >= b || b >= clusters.size() || clusters[a].empty() || clusters[b].empty()) {
            ++wrong;
            break;
        }
        std::vector<std::size_t> joined = clusters[a];
        joined.insert(joined.end(), clusters[b].begin(), clusters[b].end());
        clusters[a].clear();
        clusters[b].clear();
        wrong += row[3] != static_cast<double>(joined.size());
        wrong += row[2] != (i < edges.size() ? highest - static_cast<double>(aff[static_cast<std::size_t>(edges[i])])
                                             : std::numeric_limits<double>::infinity());
        wrong += i > 0 && row[2] < row[-2];
        if (i < edges.size()) {
            const auto e = static_cast<std::size_t>(edges[i]);
            wrong += std::count(joined.begin(), joined.end(), graph.node1[e]) != 1 ||
                     std::count(joined.begin(), joined.end(), graph.node2[e]) != 1;
        }
        clusters.push_back(joined);
    }
    CHECK_EQUAL(wrong, std::size_t{0});
}

}  // namespace

MALIS_TEST(small_volumes) {
    Random random(81);
    each_small_volume(random, [&](const Volume& volume, const auto& seg, Aff kind) {
        check_tree<std::int32_t>(volume, graph_of(volume), make_aff<float>(volume, seg, kind, random));
        check_tree<std::int64_t>(volume, graph_of(volume), make_aff<double>(volume, seg, kind, random));
    });
}

MALIS_TEST(large_volumes) {
    Random random(82);
    for (const Volume& volume :
         {Volume{{33, 34, 35}, nearest_neighbours()}, Volume{{1, 200, 190}, {{0, -1, 0}, {0, 90, 3}}}}) {
        const auto seg = make_seg(volume, Seg::cells, random);
        for (const Aff kind : {Aff::uniform, Aff::ties}) {
            const auto aff = make_aff<float>(volume, seg, kind, random);
            const Graph graph = graph_of(volume);
            const auto tree = maximum_spanning_tree<std::int32_t>(volume, aff.data(), 1);
            const auto again = maximum_spanning_tree<std::int32_t>(volume, aff.data(), 3);
            CHECK_SAME(tree.edges, again.edges);
            Forest forest(volume.voxels());
            std::vector<std::int64_t> edges;
            for (const std::size_t e : order_of(aff)) {
                if (!graph.exists(e)) continue;
                const std::size_t a = forest.root(graph.node1[e]), b = forest.root(graph.node2[e]);
                if (a == b) continue;
                forest.join(a, b);
                edges.push_back(static_cast<std::int64_t>(e));
            }
            CHECK_SAME(tree.edges, edges);
        }
    }
}

// Half of a volume that is cut in two: its edges in order, and the voxels from which edges lead to the other half.
struct Half {
    template <class T>
    Half(const Volume& volume, const Graph& graph, const std::vector<T>& aff)
        : nodes(volume.voxels() / volume.shape[0] * (volume.shape[0] / 2)), terminal(nodes) {
        std::fill(terminal.begin(), terminal.end(), false);
        for (const std::size_t e : order_of(aff)) {
            if (!graph.exists(e)) continue;
            const std::size_t a = graph.node1[e], b = graph.node2[e];
            if (a < nodes && b < nodes) {
                node1.push_back(a);
                node2.push_back(b);
                edges.push_back(static_cast<std::int64_t>(e));
            } else if (a < nodes || b < nodes) {
                terminal[std::min(a, b)] = true;
            }
        }
    }
    EdgeList<std::uint32_t> list() const { return {node1.data(), node2.data(), edges.size(), nodes}; }

    std::size_t nodes;
    std::vector<std::uint64_t> node1, node2;
    std::vector<std::int64_t> edges;
    Buffer<bool> terminal;
};

Volume random_volume(Random& random) {
    return {{2 + random.below(4), 1 + random.below(6), 1 + random.below(9)}, random_nhood({5, 6, 9}, random)};
}

// What is settled in a half belongs to the tree of the whole, what closes a cycle does not, and components of settled
// edges have one terminal at most.
MALIS_TEST(settled_edges) {
    Random random(83);
    for (int i = 0; i < 100; ++i) {
        const Volume volume = random_volume(random);
        context = "volume " + std::to_string(i);
        const auto seg = make_seg(volume, Seg::cells, random);
        const auto aff = make_aff<float>(volume, seg, i % 2 ? Aff::ties : Aff::uniform, random);
        const auto tree = maximum_spanning_tree<std::int32_t>(volume, aff.data(), 1);
        const Half half(volume, graph_of(volume), aff);
        std::vector<Settled> kinds(half.edges.size());
        settle_edges(half.list(), half.terminal.data(), kinds.data());
        Forest forest(half.nodes);
        std::size_t wrong = 0;
        for (std::size_t e = 0; e < kinds.size(); ++e) {
            const bool in_tree = std::find(tree.edges.begin(), tree.edges.end(), half.edges[e]) != tree.edges.end();
            wrong += (kinds[e] == Settled::settled && !in_tree) || (kinds[e] == Settled::cycle && in_tree);
            if (kinds[e] == Settled::settled) forest.join(forest.root(half.node1[e]), forest.root(half.node2[e]));
        }
        std::vector<int> terminals(half.nodes, 0);
        for (std::size_t v = 0; v < half.nodes; ++v) wrong += half.terminal[v] && ++terminals[forest.root(v)] > 1;
        CHECK_EQUAL(wrong, std::size_t{0});
    }
}

// What is settled in a half decides as many pairs there as in the whole, and what closes a cycle decides none.
MALIS_TEST(settled_counts) {
    Random random(84);
    std::size_t settled = 0, counted = 0;
    for (int i = 0; i < 100; ++i) {
        const Volume volume = random_volume(random);
        context = "volume " + std::to_string(i);
        const Graph graph = graph_of(volume);
        const auto seg = make_seg(volume, Seg::cells, random);
        const auto aff = make_aff<float>(volume, seg, i % 2 ? Aff::ties : Aff::uniform, random);
        PairOptions options;
        options.constrain_positive = options.constrain_negative = false;
        const Counts whole = reference_counts(graph, aff, seg, options);
        const Half half(volume, graph, aff);
        std::vector<std::int64_t> node, label, voxels;
        for (std::size_t v = 0; v < half.nodes; ++v) {
            if (seg[v] == 0) continue;
            node.push_back(static_cast<std::int64_t>(v));
            label.push_back(static_cast<std::int64_t>(seg[v]));
            voxels.push_back(1);
        }
        const std::int64_t labels = label.empty() ? 1 : *std::max_element(label.begin(), label.end());
        std::vector<Settled> kinds(half.edges.size());
        std::vector<std::int64_t> pos(kinds.size()), neg(kinds.size());
        settle_counts<std::uint32_t>(
            half.list(), half.terminal.data(), {node.data(), label.data(), voxels.data(), node.size()},
            static_cast<std::uint32_t>(labels), 0, 0, {kinds.data(), pos.data(), neg.data(), nullptr, nullptr});
        std::size_t wrong = 0;
        for (std::size_t e = 0; e < kinds.size(); ++e) {
            const auto edge = static_cast<std::size_t>(half.edges[e]);
            const bool same = pos[e] == whole.pos[edge] && neg[e] == whole.neg[edge];
            wrong += kinds[e] == Settled::open ? pos[e] != 0 || neg[e] != 0 : !same;
            settled += kinds[e] == Settled::settled;
            counted += pos[e] + neg[e] > 0;
        }
        CHECK_EQUAL(wrong, std::size_t{0});
    }
    CHECK(settled > 500 && counted > 50);
}

MALIS_TEST(what_is_no_tree) {
    const std::vector<float> affinities{0.5f, 0.75f};
    const std::vector<std::int32_t> node1{0, 1}, node2{1, 2};
    std::vector<std::int32_t> seg(3);
    const auto segment = [&](const TreeView& tree) {
        return segment_tree<std::uint32_t>(tree, std::vector<double>{0.5}, 0, std::vector<std::int32_t*>{seg.data()},
                                           1);
    };
    CHECK_THROWS(std::invalid_argument, "never increase",
                 segment(TreeView{affinities.data(), node1.data(), node2.data(), 2, 3}));
    CHECK_THROWS(std::invalid_argument, "fewer edges than voxels",
                 segment(TreeView{affinities.data(), node1.data(), node2.data(), 2, 2}));
    const std::vector<float> nan{std::numeric_limits<float>::quiet_NaN()};
    CHECK_THROWS(std::invalid_argument, "never increase",
                 segment(TreeView{nan.data(), node1.data(), node2.data(), 1, 3}));
    for (const std::int32_t outside : {-1, 3}) {
        CHECK_THROWS(std::invalid_argument, "voxels 0 to 2",
                     segment(TreeView{affinities.data(), node1.data(), &outside, 1, 3}));
    }
    std::vector<double> rows(8);
    const std::vector<std::int32_t> back{1, 0};
    const std::vector<float> flat{0.5f, 0.5f};
    CHECK_THROWS(std::invalid_argument, "cycle",
                 (linkage<std::uint32_t>(TreeView{flat.data(), node1.data(), back.data(), 2, 3}, 1.0, rows.data()), 0));
}
