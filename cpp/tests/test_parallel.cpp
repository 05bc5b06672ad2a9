#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "malis/support/parallel.hpp"

using namespace malis;

MALIS_TEST(every_task_runs_once) {
    for (const int threads : {0, 1, 2, 3, 8}) {
        for (const std::size_t tasks : {0, 1, 2, 7, 1000}) {
            std::vector<std::atomic<int>> runs(tasks);
            std::atomic<bool> known_thread{true};
            parallel_for(tasks, threads, [&](std::size_t task, std::size_t thread) {
                ++runs[task];
                if (thread >= static_cast<std::size_t>(threads > 1 ? threads : 1)) known_thread = false;
            });
            bool once = true;
            for (const auto& n : runs) once &= n == 1;
            CHECK(once);
            CHECK(known_thread.load());
        }
    }
}

MALIS_TEST(thread_numbers_are_not_shared) {
    // A thread may keep what it needs under its number: without a lock, every count must arrive.
    std::vector<std::size_t> counts(4 * 64, 0);
    parallel_for(20000, 4, [&](std::size_t, std::size_t thread) { ++counts[64 * thread]; });
    CHECK_EQUAL(counts[0] + counts[64] + counts[128] + counts[192], std::size_t{20000});
}

MALIS_TEST(ranges_are_a_partition) {
    for (const int threads : {1, 2, 5}) {
        for (const std::size_t n : {0, 1, 9, 10, 11, 1000, 1023}) {
            for (const std::size_t grain : {0, 1, 10, 5000}) {
                std::vector<std::atomic<int>> seen(n);
                std::atomic<std::size_t> pieces{0}, small{0};
                parallel_ranges(n, grain, threads, [&](std::size_t begin, std::size_t end) {
                    ++pieces;
                    small += end - begin < grain;
                    for (std::size_t i = begin; i < end; ++i) ++seen[i];
                });
                bool once = true;
                for (const auto& s : seen) once &= s == 1;
                CHECK(once);
                CHECK(pieces == 1 || small == 0);
            }
        }
    }
}

MALIS_TEST(exceptions_reach_the_caller) {
    for (const int threads : {1, 2, 4}) {
        std::atomic<std::size_t> runs{0};
        CHECK_THROWS(std::runtime_error, "task 17", parallel_for(1000000, threads, [&](std::size_t task, std::size_t) {
                         ++runs;
                         if (task == 17) throw std::runtime_error("task 17");
                     }));
        CHECK(runs < 1000000);  // the others are not begun any more
        CHECK_THROWS(std::runtime_error, "every task", parallel_for(100, threads, [&](std::size_t, std::size_t) {
                         throw std::runtime_error("every task");
                     }));
        CHECK_THROWS(std::invalid_argument, "range", parallel_ranges(100, 1, threads, [&](std::size_t, std::size_t) {
                         throw std::invalid_argument("range");
                     }));
        // Nothing is left behind of a loop that failed.
        std::atomic<std::size_t> after{0};
        parallel_for(100, threads, [&](std::size_t, std::size_t) { ++after; });
        CHECK_EQUAL(after.load(), std::size_t{100});
    }
}

MALIS_TEST(loops_nest) {
    std::vector<std::atomic<int>> runs(6 * 50);
    parallel_for(6, 3, [&](std::size_t outer, std::size_t) {
        parallel_for(50, 2, [&](std::size_t inner, std::size_t) { ++runs[50 * outer + inner]; });
    });
    bool once = true;
    for (const auto& n : runs) once &= n == 1;
    CHECK(once);
    CHECK_THROWS(std::runtime_error, "inner", parallel_for(6, 3, [&](std::size_t outer, std::size_t) {
                     parallel_for(50, 2, [&](std::size_t inner, std::size_t) {
                         if (outer == 4 && inner == 20) throw std::runtime_error("inner");
                     });
                 }));
}

MALIS_TEST(number_of_threads) {
    const int before = num_threads();
    CHECK(before >= 1);
    set_num_threads(3);
    CHECK_EQUAL(num_threads(), 3);
    CHECK_THROWS(std::invalid_argument, "0", set_num_threads(0));
    CHECK_THROWS(std::invalid_argument, "-2", set_num_threads(-2));
    CHECK_EQUAL(num_threads(), 3);
    set_num_threads(before);
}
