// Parallel loops on threads that live for one call.
//
// Users fork DataLoader workers: a pool that outlives a call would be broken in the child, so every loop starts
// its threads and joins them. Starting one costs some 20 microseconds; callers pass `threads = 1` for small work.
//
// Threads are a matter of speed alone. More of them than cores or tasks are never started, and where the system has no
// memory for another one, those that there are do the work.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>

#include "malis/support/interrupt.hpp"

namespace malis {

// The cores that this process may use: those of its CPU affinity, or as many as its control groups grant it time for if
// these are fewer. At least 1.
int available_cores();

// The number of threads a call takes when it is not told: what set_num_threads was given (the only state the library
// keeps), or else the available cores, but no more than OMP_NUM_THREADS says.
int num_threads();

// Throws std::invalid_argument unless n >= 1.
void set_num_threads(int n);

namespace detail {

// A loop on several threads, compiled once and not for every function: call(f, task, thread).
void run_tasks(std::size_t tasks, std::size_t workers, void (*call)(void* f, std::size_t task, std::size_t thread),
               void* f);

}  // namespace detail

// Calls f(task, thread) for every task in [0, tasks), each exactly once, in no particular order.
// The first exception of any task is thrown again here, after all threads have ended.
template <class F>
void parallel_for(std::size_t tasks, int threads, F&& f) {
    if (threads > 1 && tasks > 1) threads = std::min(threads, available_cores());
    const std::size_t workers = std::min<std::size_t>(tasks, threads > 1 ? static_cast<std::size_t>(threads) : 1);
    if (workers <= 1) {
        for (std::size_t task = 0; task < tasks; ++task) {
            poll();
            f(task, std::size_t{0});
        }
        return;
    }
    using Function = std::remove_reference_t<F>;
    const auto call = [](void* function, std::size_t task, std::size_t thread) {
        (*static_cast<Function*>(function))(task, thread);
    };
    detail::run_tasks(tasks, workers, call, const_cast<void*>(static_cast<const void*>(std::addressof(f))));
}

// Calls f(begin, end) on contiguous pieces of [0, n) of at least `grain` items, and not many times as many.
template <class F>
void parallel_ranges(std::size_t n, std::size_t grain, int threads, F&& f) {
    constexpr std::size_t most_grains = 64;  // then a piece takes milliseconds, and interruptions wait for no longer
    grain = std::max<std::size_t>(grain, 1);
    const std::size_t wanted = threads > 1 ? 4 * static_cast<std::size_t>(threads) : 1;
    const std::size_t pieces =
        std::max<std::size_t>(1, std::min(n / grain, std::max(wanted, n / (most_grains * grain))));
    parallel_for(pieces, threads, [&](std::size_t piece, std::size_t) {
        f(n / pieces * piece + std::min(piece, n % pieces), n / pieces * (piece + 1) + std::min(piece + 1, n % pieces));
    });
}

}  // namespace malis
