#include "malis/support/parallel.hpp"

#include <atomic>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace malis {

namespace {
std::atomic<int> thread_count{0};  // 0: as many as the machine offers
}

int num_threads() {
    const int n = thread_count.load(std::memory_order_relaxed);
    return n > 0 ? n : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void set_num_threads(int n) {
    if (n < 1) throw std::invalid_argument("n must be an integer of at least 1, got " + std::to_string(n));
    thread_count.store(n, std::memory_order_relaxed);
}

namespace detail {

void run_tasks(std::size_t tasks, std::size_t workers, void (*call)(void* f, std::size_t task, std::size_t thread),
               void* f) {
    std::atomic<std::size_t> next{0};
    std::exception_ptr error;
    std::mutex error_mutex;
    const auto work = [&](std::size_t thread) {
        try {
            for (std::size_t task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) call(f, task, thread);
        } catch (...) {
            next.store(tasks);
            const std::lock_guard<std::mutex> lock(error_mutex);
            if (!error) error = std::current_exception();
        }
    };
    std::vector<std::thread> team;
    team.reserve(workers - 1);
    try {
        for (std::size_t thread = 1; thread < workers; ++thread) team.emplace_back(work, thread);
    } catch (...) {
        // No more threads to be had: those that started and this one do the work.
    }
    work(0);
    for (auto& thread : team) thread.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace detail

}  // namespace malis
