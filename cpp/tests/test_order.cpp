#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/sort.hpp"
#include "problems.hpp"

using namespace malis;
using namespace malis::test;

namespace {

template <class T>
void ranks_reverse_the_order() {
    using limits = std::numeric_limits<T>;
    std::vector<T> values = {-limits::infinity(),
                             limits::lowest(),
                             T(-1e10),
                             T(-1),
                             T(-0.5),
                             -limits::min(),
                             -limits::min() / 2,
                             -limits::denorm_min(),
                             T(0),
                             limits::denorm_min(),
                             limits::min() / 2,
                             limits::min(),
                             T(0.1),
                             std::nextafter(T(0.1), T(1)),
                             T(0.3),
                             T(1),
                             std::nextafter(T(1), T(2)),
                             T(1e10),
                             limits::max(),
                             limits::infinity()};
    for (std::size_t i = 0; i < values.size(); ++i) {
        for (std::size_t j = 0; j < values.size(); ++j)
            CHECK_EQUAL(to_rank(values[i]) < to_rank(values[j]), values[i] > values[j]);
        CHECK_EQUAL(from_rank<T>(to_rank(values[i])), values[i]);
    }
    for (const T value : values) {
        const T before = affinity_before<T>(to_rank(value));
        CHECK_EQUAL(std::isnan(before), value == limits::infinity());
        CHECK(std::isnan(before) || (before > value && (std::abs(before) >= limits::min())));
        for (const T other : values) CHECK(!(other >= before) || to_rank(other) < to_rank(value));
    }
    CHECK_EQUAL(affinity_before<T>(to_rank(T(0.1))), std::nextafter(T(0.1), T(1)));
    CHECK_EQUAL(to_rank(-T(0)), to_rank(T(0)));
    CHECK_EQUAL(from_rank<T>(to_rank(-T(0))), T(0));
    Random random(3);
    for (int i = 0; i < 20000; ++i) {
        const Rank<T> bits = static_cast<Rank<T>>(random.bits());
        T x;
        std::memcpy(&x, &bits, sizeof x);
        const T y = random.chance(0.5) ? static_cast<T>(random.noise()) : std::nextafter(x, T(0));
        if (std::isnan(x) || std::isnan(y)) continue;
        CHECK_EQUAL(to_rank(x) < to_rank(y), x > y);
        CHECK_EQUAL(to_rank(x) == to_rank(y), x == y);
        CHECK_EQUAL(from_rank<T>(to_rank(x)), x);
    }
}

// Values in all the ways that a sort by buckets could stumble over.
template <class T>
std::vector<std::pair<const char*, std::function<T(std::size_t i, std::size_t n, Random&)>>> distributions() {
    using limits = std::numeric_limits<T>;
    return {
        {"uniform", [](std::size_t, std::size_t, Random& r) { return static_cast<T>(r.real()); }},
        {"normal", [](std::size_t, std::size_t, Random& r) { return static_cast<T>(r.noise()); }},
        {"clipped", [](std::size_t, std::size_t,
                       Random& r) { return std::min(T(1), std::max(T(0), static_cast<T>(0.9 + r.noise()))); }},
        {"equal", [](std::size_t, std::size_t, Random&) { return T(0.25); }},
        {"two values", [](std::size_t, std::size_t, Random& r) { return r.chance(0.5) ? T(1) : T(0); }},
        {"few values", [](std::size_t, std::size_t, Random& r) { return static_cast<T>(r.below(7)); }},
        {"signed zeros", [](std::size_t, std::size_t, Random& r) { return r.chance(0.5) ? T(0) : -T(0); }},
        {"increasing", [](std::size_t i, std::size_t n, Random&) { return static_cast<T>(i) / static_cast<T>(n); }},
        {"decreasing", [](std::size_t i, std::size_t n, Random&) { return static_cast<T>(n - i) / static_cast<T>(n); }},
        {"nearly sorted",
         [](std::size_t i, std::size_t n, Random& r) {
             return static_cast<T>(n - i) + (r.chance(0.01) ? static_cast<T>(r.below(n)) : T(0));
         }},
        {"saw", [](std::size_t i, std::size_t, Random&) { return static_cast<T>(i % 257); }},
        {"one outlier",
         [](std::size_t i, std::size_t n, Random& r) { return i == n / 3 ? T(1e30) : static_cast<T>(r.real()); }},
        {"an outlier each way",
         [](std::size_t i, std::size_t n, Random& r) {
             return i == 0 ? limits::lowest() : i == n - 1 ? limits::max() : static_cast<T>(r.real());
         }},
        {"infinities",
         [](std::size_t, std::size_t, Random& r) {
             return r.chance(0.01)   ? limits::infinity()
                    : r.chance(0.01) ? -limits::infinity()
                                     : static_cast<T>(r.real());
         }},
        {"infinities alone",
         [](std::size_t, std::size_t, Random& r) { return r.chance(0.5) ? limits::infinity() : -limits::infinity(); }},
        {"exponential", [](std::size_t, std::size_t, Random& r) { return static_cast<T>(std::exp(-60 * r.real())); }},
        {"nested clusters",
         [](std::size_t, std::size_t, Random& r) {
             T x = 0, scale = 1;
             while (r.chance(0.7) && scale > T(1e-30)) scale *= T(1e-4);
             x = scale * static_cast<T>(r.real());
             return x;
         }},
        {"denormals",
         [](std::size_t, std::size_t, Random& r) { return limits::denorm_min() * static_cast<T>(r.below(1000)); }},
        {"neighbouring numbers",
         [](std::size_t, std::size_t, Random& r) { return T(1) + limits::epsilon() * static_cast<T>(r.below(50)); }},
        {"any bits",
         [](std::size_t, std::size_t, Random& r) {
             const Rank<T> bits = static_cast<Rank<T>>(r.bits());
             T x;
             std::memcpy(&x, &bits, sizeof x);
             return std::isnan(x) ? T(0) : x;
         }},
    };
}

template <class T, class Index>
void sorts_like_stable_sort(std::size_t n, bool all) {
    using R = Record<T, Index>;
    Buffer<R> records;
    SortScratch<T, Index> scratch;
    std::size_t which = 0;
    for (const auto& [name, value] : distributions<T>()) {
        if (!all && which++ % 3 != 0) continue;
        Random random(n + which);
        std::vector<R> expected(n);
        for (std::size_t i = 0; i < n; ++i) {
            expected[i].rank = to_rank(value(i, n, random));
            expected[i].edge = static_cast<Index>(i);
            expected[i].a = static_cast<Index>(random.below(n));
            expected[i].b = static_cast<Index>(random.below(n));
        }
        const std::vector<R> unsorted = expected;
        std::stable_sort(expected.begin(), expected.end(), [](const R& x, const R& y) { return x.rank < y.rank; });
        const std::vector<std::size_t> one_part{0, n}, four_parts{0, n / 3, n / 3, n - n / 5, n};
        for (const auto& [threads, bounds] :
             {std::pair(1, one_part), {3, one_part}, {1, four_parts}, {3, four_parts}}) {
            context = std::string(name) + ", " + std::to_string(n) + " records in " +
                      std::to_string(bounds.size() - 1) + " parts, " + std::to_string(threads) + " threads";
            Parts<T, Index> parts(bounds.size() - 1);
            for (std::size_t p = 0; p < parts.size(); ++p) {
                parts[p].resize(bounds[p + 1] - bounds[p]);
                std::copy(unsorted.data() + bounds[p], unsorted.data() + bounds[p + 1], parts[p].begin());
            }
            if (!sort_records<T, Index>(parts, records, scratch, threads)) {
                // In order already: not even moved.
                records.clear();
                for (const auto& part : parts) {
                    for (const R& r : part) records.push_back(r);
                }
            }
            bool equal = records.size() == n;
            for (std::size_t i = 0; equal && i < n; ++i)
                equal = records[i].rank == expected[i].rank && records[i].edge == expected[i].edge &&
                        records[i].a == expected[i].a && records[i].b == expected[i].b;
            CHECK(equal);
        }
    }
}

}  // namespace

MALIS_TEST(float_ranks) { ranks_reverse_the_order<float>(); }
MALIS_TEST(double_ranks) { ranks_reverse_the_order<double>(); }

MALIS_TEST(sorts_few_records) {
    for (const std::size_t n : {0, 1, 2, 3, 23, 24, 25, 26, 48, 100, 1000, 5000}) {
        sorts_like_stable_sort<float, std::uint32_t>(n, true);
        sorts_like_stable_sort<double, std::uint32_t>(n, true);
    }
}

MALIS_TEST(sorts_many_records) {
    for (const std::size_t n : {(1 << 15) - 1, 1 << 15, (1 << 15) + 1, 100003}) {
        sorts_like_stable_sort<float, std::uint32_t>(n, true);
        sorts_like_stable_sort<double, std::uint32_t>(n, n > 100000);
    }
    sorts_like_stable_sort<float, std::uint32_t>(600000, false);
}

MALIS_TEST(sorts_records_of_64_bit_indices) {
    for (const std::size_t n : {25, 3000, 40000}) {
        sorts_like_stable_sort<float, std::uint64_t>(n, true);
        sorts_like_stable_sort<double, std::uint64_t>(n, true);
    }
}
