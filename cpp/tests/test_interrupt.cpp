#include <chrono>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"
#include "problems.hpp"

using namespace malis;
using namespace malis::test;

namespace {

struct Cancelled : std::runtime_error {
    Cancelled() : std::runtime_error("cancelled") {}
};

constexpr auto always = std::chrono::nanoseconds(0);  // ask whenever a loop is ready for it

// Runs compute() and returns how often it asked whether to go on.
std::size_t asks_of(const std::function<void()>& compute) {
    std::size_t asks = 0;
    const Interruptible call([&] { ++asks; }, always);
    compute();
    return asks;
}

void cancel_at(std::size_t ask, const std::function<void()>& compute) {
    std::size_t asks = 0;
    const Interruptible call(
        [&] {
            if (++asks >= ask) throw Cancelled();
        },
        always);
    compute();
}

}  // namespace

MALIS_TEST(loops_ask_whether_to_go_on) {
    for (const int threads : {1, 2, 4}) {
        const std::thread::id here = std::this_thread::get_id();
        bool always_here = true;
        std::size_t asks = 0;
        {
            const Interruptible call(
                [&] {
                    ++asks;
                    always_here &= std::this_thread::get_id() == here;
                },
                always);
            parallel_for(100, threads, [](std::size_t, std::size_t) { poll(); });
        }
        CHECK(asks > 0 || threads > 1);  // the others may be faster than the caller
        CHECK(always_here);
        // Nobody is asked once the call has ended.
        const std::size_t before = asks;
        parallel_for(100, threads, [](std::size_t, std::size_t) { poll(); });
        CHECK_EQUAL(asks, before);
    }
}

MALIS_TEST(threads_stop_when_the_caller_does) {
    // The tasks of the others would never end by themselves.
    for (int repeat = 0; repeat < 20; ++repeat) {
        CHECK_THROWS(Cancelled, "cancelled", cancel_at(50, [] {
                         parallel_for(8, 4, [](std::size_t, std::size_t) {
                             while (true) poll();
                         });
                     }));
        // Neither would those of a loop within a loop; and the caller is asked while it waits for others.
        CHECK_THROWS(Cancelled, "cancelled", cancel_at(20, [] {
                         parallel_for(2, 2, [](std::size_t task, std::size_t) {
                             if (task == 0) return;
                             parallel_for(4, 2, [](std::size_t, std::size_t) {
                                 while (true) poll();
                             });
                         });
                     }));
        if (available_cores() < 2) continue;
        CHECK_THROWS(std::runtime_error, "task 1", parallel_for(2, 2, [](std::size_t task, std::size_t) {
                         if (task == 1) throw std::runtime_error("task 1");
                         while (true) poll();
                     }));
    }
}

MALIS_TEST(a_call_within_a_call) {
    std::size_t outer = 0, inner = 0;
    const Interruptible call([&] { ++outer; }, always);
    poll();
    {
        const Interruptible handler([&] { ++inner; }, always);
        poll();
    }
    poll();
    CHECK_EQUAL(outer, std::size_t{2});
    CHECK_EQUAL(inner, std::size_t{1});
}

MALIS_TEST(everything_can_be_cancelled) {
    Random random(23);
    const Volume volume{{24, 60, 61}, nearest_neighbours()};
    const std::size_t n = volume.voxels(), m = volume.edges();
    const auto seg = make_seg(volume, Seg::split, random);
    const auto aff = make_aff<float>(volume, seg, Aff::noisy, random);
    std::vector<std::int64_t> far_labels(seg.begin(), seg.end());
    for (auto& label : far_labels) label *= std::int64_t{1} << 40;
    const Mask voxels = make_mask(n, 0.1, random);
    for (const int threads : {1, 2}) {
        PairOptions options, unconstrained;
        options.threads = unconstrained.threads = threads;
        unconstrained.constrain_positive = unconstrained.constrain_negative = false;
        unconstrained.unlabelled_mask = voxels.get();
        std::vector<std::int64_t> pos(m), neg(m), labels(n);
        std::vector<float> grad(m);
        const auto tree = maximum_spanning_tree<std::int32_t>(volume, aff.data(), threads);
        const TreeView view{tree.affinities.data(), tree.node1.data(), tree.node2.data(), tree.edges.size(), n};
        std::vector<double> rows(4 * n);
        const std::vector<std::pair<const char*, std::function<void()>>> calls{
            {"pairs", [&] { count_pairs(volume, aff.data(), seg.data(), options, pos.data(), neg.data()); }},
            {"unconstrained",
             [&] { count_pairs(volume, aff.data(), far_labels.data(), unconstrained, pos.data(), neg.data()); }},
            {"loss", [&] { malis_loss(volume, aff.data(), seg.data(), options, LossOptions{}, grad.data()); }},
            {"curve", [&] { rand_curve(volume, aff.data(), seg.data(), threads); }},
            {"tree", [&] { maximum_spanning_tree<std::int32_t>(volume, aff.data(), threads); }},
            {"components", [&] { components(volume, aff.data(), 0.5, 0, labels.data(), threads); }},
            {"chunk", [&] { chunk_components<std::uint32_t>(volume, aff.data(), 0.5, nullptr, 0, 0, threads); }},
            {"merge", [&] { components(volume, aff.data(), 0.9, 5, labels.data(), threads, Small::merge); }},
            {"basins", [&] { watershed_basins(volume, aff.data(), 0.0, 0, labels.data(), threads); }},
            {"watershed",
             [&] {
                 labels.assign(seg.begin(), seg.end());
                 watershed(volume, aff.data(), 0.0, labels.data(), threads);
             }},
            {"connect_labels", [&] { connect_labels(volume, far_labels.data(), labels.data(), threads); }},
            {"segment_tree", [&] { segment_tree<std::uint64_t, std::int64_t>(view, {0.5}, 0, {labels.data()}, 1); }},
            {"linkage", [&] { linkage<std::uint32_t>(view, 10, rows.data()); }},
        };
        for (const auto& named : calls) {
            // No structured binding: a lambda may not name one in C++17, and the check below is a lambda.
            const auto& call = named.second;
            context = std::string(named.first) + " on " + std::to_string(threads);
            // With an exception at the first, at the last and at some of the times in between.
            const std::size_t asks = asks_of(call);
            CHECK(asks > 0);
            for (std::size_t part = 0; part <= 4; ++part) {
                // On several threads, which of them asks when differs between two runs: the last may not come.
                if (threads > 1 && part == 4) continue;
                const std::size_t at = std::max<std::size_t>(1, asks * part / 4 / static_cast<std::size_t>(threads));
                CHECK_THROWS(Cancelled, "cancelled", cancel_at(at, call));
            }
        }
        // Nothing is left behind.
        std::vector<std::int64_t> pos_after(m), neg_after(m);
        count_pairs(volume, aff.data(), seg.data(), options, pos.data(), neg.data());
        options.threads = 1;
        count_pairs(volume, aff.data(), seg.data(), options, pos_after.data(), neg_after.data());
        CHECK_SAME(pos, pos_after);
        CHECK_SAME(neg, neg_after);
    }
}
