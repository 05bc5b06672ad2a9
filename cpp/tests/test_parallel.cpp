#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <limits>
#include <mutex>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "check.hpp"
#include "malis/support/cores.hpp"
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

MALIS_TEST(no_more_threads_than_cores_and_work) {
    const int cores = available_cores();
    CHECK(cores >= 1);
    for (const std::size_t tasks : {std::size_t{1}, std::size_t{2}, std::size_t{100000}}) {
        for (const int threads : {1, 2, 64, 10000, 65536}) {
            std::mutex mutex;
            std::set<std::thread::id> ids;
            std::atomic<std::size_t> highest{0};
            parallel_for(tasks, threads, [&](std::size_t, std::size_t thread) {
                const std::lock_guard<std::mutex> lock(mutex);
                ids.insert(std::this_thread::get_id());
                highest = std::max(highest.load(), thread);
            });
            const auto most = std::min<std::size_t>(tasks, static_cast<std::size_t>(std::min(threads, cores)));
            CHECK(ids.size() <= most);
            CHECK(highest < most);
        }
    }
}

#if defined(__linux__)
MALIS_TEST(cores_of_the_affinity) {
    const int all = malis::detail::cores_of_affinity();
    // On a thread of its own, as the affinity is that of a thread.
    std::thread([all] {
        cpu_set_t set;
        CHECK_EQUAL(sched_getaffinity(0, sizeof set, &set), 0);
        for (int core = CPU_SETSIZE - 1, left = all; left > 1; --core) {
            if (!CPU_ISSET(core, &set)) continue;
            CPU_CLR(core, &set);
            --left;
        }
        CHECK_EQUAL(sched_setaffinity(0, sizeof set, &set), 0);
        CHECK_EQUAL(malis::detail::cores_of_affinity(), 1);
        CHECK_EQUAL(available_cores(), 1);
    }).join();
    CHECK_EQUAL(malis::detail::cores_of_affinity(), all);
}
#endif

MALIS_TEST(cores_of_control_groups) {
    namespace fs = std::filesystem;
    const fs::path root = fs::temp_directory_path() / ("malis_cgroups_" + std::to_string(std::random_device{}()));
    const auto write = [&](const std::string& name, const std::string& text) {
        fs::create_directories((root / name).parent_path());
        std::ofstream(root / name) << text;
    };
    const auto cores = [&](const std::string& groups) {
        write("self", groups);
        return malis::detail::cores_of_cgroups(root.string(), (root / "self").string());
    };
    constexpr int none = std::numeric_limits<int>::max();
    write("a/b/cpu.max", "250000 100000\n");
    write("a/cpu.max", "max 100000\n");
    write("small/inner/cpu.max", "800000 100000\n");
    write("small/cpu.max", "50000 100000\n");
    write("broken/cpu.max", "many\n");
    write("cpu/old/cpu.cfs_quota_us", "300000\n");
    write("cpu/old/cpu.cfs_period_us", "100000\n");
    write("cpu/free/cpu.cfs_quota_us", "-1\n");
    write("cpu/free/cpu.cfs_period_us", "100000\n");
    CHECK_EQUAL(cores("0::/a/b\n"), 3);
    CHECK_EQUAL(cores("0::/a\n"), none);
    CHECK_EQUAL(cores("0::/small/inner\n"), 1);  // the limit of the group around it
    CHECK_EQUAL(cores("0::/broken\n"), none);
    CHECK_EQUAL(cores("0::/nowhere/at/all\n"), none);
    CHECK_EQUAL(cores("5:cpuset:/x\n3:cpu,cpuacct:/old\n"), 3);
    CHECK_EQUAL(cores("3:cpuacct,cpu:/free\n0::/a/b\n"), 3);
    CHECK_EQUAL(cores("nonsense\n\n::\n"), none);
    CHECK_EQUAL(malis::detail::cores_of_cgroups(root.string(), (root / "missing").string()), none);
    fs::remove_all(root);
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
