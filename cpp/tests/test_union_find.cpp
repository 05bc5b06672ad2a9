#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "check.hpp"
#include "malis/tree/union_find.hpp"
#include "problems.hpp"

using namespace malis;
using namespace malis::test;

namespace {

// Every set as a label of every node: joining rewrites the labels.
struct Plain {
    std::vector<std::size_t> label;
    explicit Plain(std::size_t n) : label(n) {
        for (std::size_t i = 0; i < n; ++i) label[i] = i;
    }
    bool unite(std::size_t x, std::size_t y) {
        const std::size_t from = label[y], to = label[x];
        if (from == to) return false;
        for (auto& l : label) {
            if (l == from) l = to;
        }
        return true;
    }
};

template <class Index>
void against_plain(std::size_t n, std::uint64_t seed, UnionFind<Index>& sets) {
    Random random(seed);
    Plain plain(n);
    sets.reset(n, 1 + static_cast<int>(seed % 3));
    CHECK_EQUAL(sets.nodes(), n);
    CHECK_EQUAL(sets.sets(), n);
    std::size_t left = n;
    for (std::size_t i = 0; i < 2 * n; ++i) {
        // Neighbours half of the time, so that large sets meet each other and single nodes.
        const std::size_t x = random.below(n), y = random.chance(0.5) ? random.below(n) : (x + 1) % n;
        const bool joined = plain.unite(x, y);
        CHECK_EQUAL(sets.unite(static_cast<Index>(x), static_cast<Index>(y)), joined);
        left -= joined;
        CHECK_EQUAL(sets.sets(), left);
    }
    std::vector<std::size_t> size(n, 0);
    for (std::size_t i = 0; i < n; ++i) ++size[plain.label[i]];
    for (std::size_t i = 0; i < n; ++i) {
        const Index root = sets.find(static_cast<Index>(i));
        CHECK_EQUAL(plain.label[i], plain.label[root]);
        CHECK_EQUAL(sets.find(static_cast<Index>(plain.label[i])), root);
        CHECK_EQUAL(sets.find(root), root);
        CHECK_EQUAL(static_cast<std::size_t>(sets.size(root)), size[plain.label[i]]);
    }
}

// Joining many at once gives the same sets, with which one can go on.
template <class Index>
void contracted(std::size_t n, std::uint64_t seed, UnionFind<Index>& sets) {
    Random random(seed);
    Plain plain(n);
    std::vector<std::pair<Index, Index>> edges;
    for (std::size_t i = 0; i < n; ++i) {
        const std::size_t x = random.below(n), y = random.chance(0.5) ? random.below(n) : (x + 1) % n;
        edges.push_back({static_cast<Index>(x), static_cast<Index>(y)});
    }
    const std::size_t at_once = edges.size() * (seed % 3) / 2;
    sets.contract(n, 1 + static_cast<int>(seed % 2), [&](Index* parent) {
        for (std::size_t i = 0; i < at_once; ++i) detail::join_lowest(parent, edges[i].first, edges[i].second);
    });
    for (std::size_t i = 0; i < edges.size(); ++i) {
        const bool joined = plain.unite(edges[i].first, edges[i].second);
        if (i >= at_once) CHECK_EQUAL(sets.unite(edges[i].first, edges[i].second), joined);
    }
    std::vector<std::size_t> size(n, 0);
    std::size_t roots = 0;
    for (std::size_t i = 0; i < n; ++i) ++size[plain.label[i]];
    for (std::size_t i = 0; i < n; ++i) {
        const Index root = sets.find(static_cast<Index>(i));
        CHECK_EQUAL(plain.label[i], plain.label[root]);
        CHECK_EQUAL(static_cast<std::size_t>(sets.size(root)), size[plain.label[i]]);
        roots += root == static_cast<Index>(i);
    }
    CHECK_EQUAL(sets.sets(), roots);
}

template <class Index>
void all_sizes() {
    UnionFind<Index> sets;  // one for all: it is reused
    std::uint64_t seed = 1;
    for (const std::size_t n : {1, 2, 3, 40, 700, 5, 300}) against_plain<Index>(n, ++seed, sets);
    for (const std::size_t n : {1, 2, 3, 40, 700, 5, 300}) contracted<Index>(n, ++seed, sets);
}

}  // namespace

MALIS_TEST(plain_sets_32) { all_sizes<std::uint32_t>(); }
MALIS_TEST(plain_sets_64) { all_sizes<std::uint64_t>(); }

MALIS_TEST(link_returns_the_root) {
    UnionFind<std::uint32_t> sets;
    sets.reset(200000, 3);
    Random random(7);
    for (int i = 0; i < 250000; ++i) {
        const auto x = static_cast<std::uint32_t>(random.below(200000)),
                   y = static_cast<std::uint32_t>(random.below(200000));
        const std::uint32_t a = sets.find(x), b = sets.find(y);
        if (a == b) continue;
        const std::uint64_t size = std::uint64_t{sets.size(a)} + sets.size(b);
        const std::uint32_t root = sets.link(a, b);
        if (root != a && root != b) CHECK(root == a || root == b);
        if (sets.find(x) != root || sets.find(y) != root || sets.size(root) != size) CHECK(false);
    }
    std::uint64_t nodes = 0, roots = 0;
    for (std::uint32_t v = 0; v < 200000; ++v) {
        if (sets.find(v) != v) continue;
        ++roots;
        nodes += sets.size(v);
    }
    CHECK_EQUAL(roots, sets.sets());
    CHECK_EQUAL(nodes, std::uint64_t{200000});
}

MALIS_TEST(contracted_beyond_the_cache) {
    const std::size_t n = 150000;  // so many nodes have no rings
    UnionFind<std::uint32_t> sets;
    sets.contract(n, 2, [&](std::uint32_t* parent) {
        for (std::uint32_t i = n; i-- > 3;) detail::join_lowest(parent, i, i - 3);
    });
    CHECK_EQUAL(sets.sets(), std::size_t{3});
    for (std::uint32_t i = 0; i < n; ++i)
        if (sets.find(i) != i % 3) CHECK_EQUAL(sets.find(i), i % 3);
    CHECK_EQUAL(sets.size(1), std::uint32_t{50000});
    CHECK(sets.unite(4, 5));
    CHECK_EQUAL(sets.size(sets.find(7)), std::uint32_t{100000});
}
