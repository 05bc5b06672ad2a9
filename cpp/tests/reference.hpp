// The definitions once more, written for clarity alone: what the library is checked against. Nothing here uses the
// library's own order, union-find or grid.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <queue>
#include <utility>
#include <vector>

#include "malis/malis.hpp"

namespace malis::test {

// A graph as a list of edges; an end that is `missing` says that the edge does not exist.
struct Graph {
    static constexpr std::uint64_t missing = ~std::uint64_t{0};
    std::size_t nodes = 0;
    std::vector<std::uint64_t> node1, node2;

    std::size_t edges() const { return node1.size(); }
    bool exists(std::size_t e) const { return node1[e] < nodes && node2[e] < nodes && node1[e] != node2[e]; }
};

inline Graph graph_of(const Volume& volume) {
    Graph graph;
    graph.nodes = volume.voxels();
    const auto depth = static_cast<std::int64_t>(volume.shape[0]), height = static_cast<std::int64_t>(volume.shape[1]),
               width = static_cast<std::int64_t>(volume.shape[2]);
    for (const Offset& o : volume.nhood) {
        for (std::int64_t z = 0; z < depth; ++z) {
            for (std::int64_t y = 0; y < height; ++y) {
                for (std::int64_t x = 0; x < width; ++x) {
                    const std::int64_t to_z = z + o.z, to_y = y + o.y, to_x = x + o.x;
                    const bool inside =
                        to_z >= 0 && to_z < depth && to_y >= 0 && to_y < height && to_x >= 0 && to_x < width;
                    graph.node1.push_back(static_cast<std::uint64_t>((z * height + y) * width + x));
                    graph.node2.push_back(inside ? static_cast<std::uint64_t>((to_z * height + to_y) * width + to_x)
                                                 : Graph::missing);
                }
            }
        }
    }
    return graph;
}

// Edges by decreasing affinity, equal ones by their index.
template <class T>
std::vector<std::size_t> order_of(const std::vector<T>& aff) {
    std::vector<std::size_t> order(aff.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t e, std::size_t f) { return aff[e] > aff[f]; });
    return order;
}

class Forest {
  public:
    explicit Forest(std::size_t n) : parent_(n) { std::iota(parent_.begin(), parent_.end(), std::size_t{0}); }
    std::size_t root(std::size_t x) {
        while (parent_[x] != x) x = parent_[x] = parent_[parent_[x]];
        return x;
    }
    void join(std::size_t root, std::size_t below) { parent_[below] = root; }

  private:
    std::vector<std::size_t> parent_;
};

struct Counts {
    std::vector<std::int64_t> pos, neg;
};

// The pair counts, by Kruskal's algorithm with a map of objects for each component.
template <class T, class Label>
Counts reference_counts(const Graph& graph, const std::vector<T>& aff, const std::vector<Label>& seg,
                        const PairOptions& options) {
    constexpr std::int64_t none = -1, unlabelled = -2, ignored = -3;
    std::map<Label, std::int64_t> ids;
    std::vector<std::int64_t> object(graph.nodes);
    for (std::size_t v = 0; v < graph.nodes; ++v) {
        if (options.ignore_label && static_cast<std::int64_t>(seg[v]) == *options.ignore_label) {
            object[v] = ignored;
        } else if (options.unlabelled_mask != nullptr && options.unlabelled_mask[v]) {
            object[v] = unlabelled;
        } else if (seg[v] == 0 && options.ignore_background) {
            object[v] = none;
        } else {
            object[v] = ids.emplace(seg[v], static_cast<std::int64_t>(ids.size())).first->second;
        }
    }
    const auto unknown = [&](std::size_t e) {
        const std::int64_t a = object[graph.node1[e]], b = object[graph.node2[e]];
        return a == ignored || b == ignored || (options.edge_mask != nullptr && !options.edge_mask[e]) ||
               (a == unlabelled && b == unlabelled);
    };
    const auto intra = [&](std::size_t e) {
        const std::int64_t a = object[graph.node1[e]], b = object[graph.node2[e]];
        return a == b && a != none;
    };
    const std::vector<std::size_t> order = order_of(aff);
    Counts counts{std::vector<std::int64_t>(graph.edges(), 0), std::vector<std::int64_t>(graph.edges(), 0)};
    for (const bool positive : {true, false}) {
        const bool constrained = positive ? options.constrain_positive : options.constrain_negative;
        Forest forest(graph.nodes);
        struct Component {
            std::map<std::int64_t, std::uint64_t> voxels;  // of every object
            std::uint64_t all = 0;
        };
        std::vector<Component> components(graph.nodes);
        for (std::size_t v = 0; v < graph.nodes; ++v) {
            if (object[v] != none && object[v] != ignored) components[v] = {{{object[v], 1}}, 1};
        }
        // Joins the ends of an edge; returns the pairs of the kind that this connects.
        const auto take = [&](std::size_t e) -> std::uint64_t {
            std::size_t a = forest.root(graph.node1[e]), b = forest.root(graph.node2[e]);
            if (a == b) return 0;
            if (components[a].voxels.size() < components[b].voxels.size()) std::swap(a, b);
            Component &large = components[a], &small = components[b];
            const std::uint64_t all = large.all * small.all;
            std::uint64_t same = 0, same_unlabelled = 0;
            for (const auto& [id, n] : small.voxels) {
                std::uint64_t& m = large.voxels[id];
                (id == unlabelled ? same_unlabelled : same) += n * m;
                m += n;
            }
            large.all += small.all;
            small = {};
            forest.join(a, b);
            return positive ? same : all - same - same_unlabelled;
        };
        if (constrained && !positive) {
            for (std::size_t e = 0; e < graph.edges(); ++e)
                if (graph.exists(e) && !unknown(e) && intra(e)) take(e);
        }
        for (const std::size_t e : order) {
            if (!graph.exists(e)) continue;
            if (constrained && !unknown(e) && intra(e) != positive) continue;
            const std::uint64_t pairs = take(e);
            if (!unknown(e)) (positive ? counts.pos : counts.neg)[e] = static_cast<std::int64_t>(pairs);
        }
    }
    return counts;
}

// Components of the edges that connect, as a number for every node, from 0, by first node; breadth first.
inline std::vector<std::size_t> flood(const Graph& graph, const std::vector<char>& connects) {
    std::vector<std::vector<std::size_t>> neighbours(graph.nodes);
    for (std::size_t e = 0; e < graph.edges(); ++e) {
        if (!graph.exists(e) || !connects[e]) continue;
        neighbours[graph.node1[e]].push_back(graph.node2[e]);
        neighbours[graph.node2[e]].push_back(graph.node1[e]);
    }
    constexpr auto none = static_cast<std::size_t>(-1);
    std::vector<std::size_t> number(graph.nodes, none);
    std::size_t next = 0;
    for (std::size_t start = 0; start < graph.nodes; ++start) {
        if (number[start] != none) continue;
        std::queue<std::size_t> queue;
        queue.push(start);
        number[start] = next;
        while (!queue.empty()) {
            const std::size_t v = queue.front();
            queue.pop();
            for (const std::size_t u : neighbours[v]) {
                if (number[u] != none) continue;
                number[u] = next;
                queue.push(u);
            }
        }
        ++next;
    }
    return number;
}

// The seeded maximin watershed: edges in order, two parts that both have a seed are never joined.
template <class T, class Label>
std::vector<Label> reference_watershed(const Graph& graph, const std::vector<T>& aff, const std::vector<Label>& seeds,
                                       T threshold = -std::numeric_limits<T>::infinity()) {
    Forest forest(graph.nodes);
    std::vector<Label> seed = seeds;
    for (const std::size_t e : order_of(aff)) {
        if (!graph.exists(e) || aff[e] < threshold) continue;
        const std::size_t a = forest.root(graph.node1[e]), b = forest.root(graph.node2[e]);
        if (a == b || (seed[a] != 0 && seed[b] != 0)) continue;
        forest.join(a, b);
        if (seed[a] == 0) seed[a] = seed[b];
    }
    std::vector<Label> seg(graph.nodes);
    for (std::size_t v = 0; v < graph.nodes; ++v) seg[v] = seed[forest.root(v)];
    return seg;
}

// Numbers of components, of any kind, as numbers from 0 by first node.
inline std::vector<std::size_t> numbered(const std::vector<std::size_t>& component) {
    std::map<std::size_t, std::size_t> number;
    std::vector<std::size_t> result;
    for (const std::size_t c : component) result.push_back(number.emplace(c, number.size()).first->second);
    return result;
}

// Edges in order; each joins two components of which at least one has at most size_thresh nodes.
template <class T>
std::vector<std::size_t> reference_merge_small(const Graph& graph, const std::vector<T>& aff,
                                               const std::vector<std::size_t>& component, std::int64_t size_thresh) {
    Forest forest(graph.nodes);
    std::vector<std::int64_t> size(graph.nodes, 0);
    std::map<std::size_t, std::size_t> first;
    for (std::size_t v = 0; v < graph.nodes; ++v) {
        const std::size_t root = first.emplace(component[v], v).first->second;
        if (root != v) forest.join(root, v);
        ++size[root];
    }
    for (const std::size_t e : order_of(aff)) {
        if (!graph.exists(e)) continue;
        const std::size_t a = forest.root(graph.node1[e]), b = forest.root(graph.node2[e]);
        if (a == b || std::min(size[a], size[b]) > size_thresh) continue;
        forest.join(a, b);
        size[a] += size[b];
    }
    std::vector<std::size_t> result(graph.nodes);
    for (std::size_t v = 0; v < graph.nodes; ++v) result[v] = forest.root(v);
    return numbered(result);
}

// The regional maxima are found first and are the seeds of a watershed then.
template <class T>
std::vector<std::size_t> reference_basins(Graph graph, const std::vector<T>& aff, T threshold) {
    for (std::size_t e = 0; e < graph.edges(); ++e)
        if (!(aff[e] >= threshold)) graph.node2[e] = Graph::missing;
    std::vector<T> strongest(graph.nodes, -std::numeric_limits<T>::infinity());
    for (std::size_t e = 0; e < graph.edges(); ++e) {
        if (!graph.exists(e)) continue;
        for (const std::uint64_t v : {graph.node1[e], graph.node2[e]}) strongest[v] = std::max(strongest[v], aff[e]);
    }
    std::vector<char> level(graph.edges());
    for (std::size_t e = 0; e < graph.edges(); ++e)
        level[e] = graph.exists(e) && strongest[graph.node1[e]] == aff[e] && strongest[graph.node2[e]] == aff[e];
    const std::vector<std::size_t> plateau = flood(graph, level);
    std::vector<char> maximum(graph.nodes, 1);  // per plateau
    for (std::size_t e = 0; e < graph.edges(); ++e) {
        if (!graph.exists(e)) continue;
        const std::uint64_t a = graph.node1[e], b = graph.node2[e];
        if (strongest[a] == aff[e] && strongest[b] > aff[e]) maximum[plateau[a]] = 0;
        if (strongest[b] == aff[e] && strongest[a] > aff[e]) maximum[plateau[b]] = 0;
    }
    std::vector<std::size_t> seeds(graph.nodes, 0);
    for (std::size_t v = 0; v < graph.nodes; ++v)
        if (maximum[plateau[v]]) seeds[v] = plateau[v] + 1;
    return numbered(reference_watershed(graph, aff, seeds));
}

}  // namespace malis::test
