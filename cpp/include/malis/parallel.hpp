// Parallel loops on threads that live for one call.
//
// Users fork DataLoader workers: a pool that outlives a call would be broken in the child, so every loop starts
// its threads and joins them. Starting one costs some 20 microseconds; callers pass `threads = 1` for small work.
//
// Threads are a matter of speed alone. More of them than cores or tasks are never started, and where the system has no
// memory for another one, those that there are do the work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>

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

// Calls work(thread) on up to `workers` threads at once, of which the calling one is thread 0; returns when all have
// ended. Where no more threads are to be had, there are fewer calls. `work` must not throw.
void run_team(std::size_t workers, const std::function<void(std::size_t)>& work);

}  // namespace detail

// Calls f(task, thread) for every task in [0, tasks), each exactly once, in no particular order.
// The first exception of any task is thrown again here, after all threads have ended.
template <class F>
void parallel_for(std::size_t tasks, int threads, F&& f) {
    if (threads > 1 && tasks > 1) threads = std::min(threads, available_cores());
    const std::size_t workers = std::min<std::size_t>(tasks, threads > 1 ? static_cast<std::size_t>(threads) : 1);
    if (workers <= 1) {
        for (std::size_t task = 0; task < tasks; ++task) f(task, std::size_t{0});
        return;
    }
    std::atomic<std::size_t> next{0};
    std::exception_ptr error;
    std::mutex error_mutex;
    detail::run_team(workers, [&](std::size_t thread) {
        try {
            for (std::size_t task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) f(task, thread);
        } catch (...) {
            next.store(tasks);
            const std::lock_guard<std::mutex> lock(error_mutex);
            if (!error) error = std::current_exception();
        }
    });
    if (error) std::rethrow_exception(error);
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
