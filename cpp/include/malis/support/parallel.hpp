// Parallel loops on threads that live for one call.
//
// Users fork DataLoader workers: a pool that outlives a call would be broken in the child, so every loop starts
// its threads and joins them. Starting one costs some 20 microseconds; callers pass `threads = 1` for small work.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>

namespace malis {

// The number of threads a call takes when it is not told (the only state the library keeps).
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
    const std::size_t workers = std::min<std::size_t>(tasks, threads > 1 ? static_cast<std::size_t>(threads) : 1);
    if (workers <= 1) {
        for (std::size_t task = 0; task < tasks; ++task) f(task, std::size_t{0});
        return;
    }
    using Function = std::remove_reference_t<F>;
    const auto call = [](void* function, std::size_t task, std::size_t thread) {
        (*static_cast<Function*>(function))(task, thread);
    };
    detail::run_tasks(tasks, workers, call, const_cast<void*>(static_cast<const void*>(std::addressof(f))));
}

// Calls f(begin, end) on contiguous pieces of [0, n) of at least `grain` items.
template <class F>
void parallel_ranges(std::size_t n, std::size_t grain, int threads, F&& f) {
    const std::size_t pieces =
        std::max<std::size_t>(1, std::min<std::size_t>(n / std::max<std::size_t>(grain, 1),
                                                       threads > 1 ? 4 * static_cast<std::size_t>(threads) : 1));
    parallel_for(pieces, threads, [&](std::size_t piece, std::size_t) {
        f(n / pieces * piece + std::min(piece, n % pieces), n / pieces * (piece + 1) + std::min(piece + 1, n % pieces));
    });
}

}  // namespace malis
