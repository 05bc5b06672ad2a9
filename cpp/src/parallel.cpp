#include "malis/parallel.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "malis/cores.hpp"

namespace malis {

namespace {

std::atomic<int> thread_count{0};  // 0: not set

// How many threads the environment asks for, in the variable of OpenMP, whose users expect it to count for everything;
// 0 where it does not. Its value may be a list, one number for each level of nested loops.
int threads_of_environment() {
    const char* const value = std::getenv("OMP_NUM_THREADS");
    if (value == nullptr) return 0;
    char* end = nullptr;
    const long count = std::strtol(value, &end, 10);
    while (*end == ' ') ++end;
    if (end == value || (*end != '\0' && *end != ',') || count < 1) return 0;
    return static_cast<int>(std::min(count, 1L << 16));
}

// glibc allocates the thread-local memory of a library when a thread first uses it, and ends the process where that
// fails. The first exception of a thread is such a use, and running out of memory is what throws one. So a thread sees
// to that memory before it takes work: it allocates one block of every small size and gives them back, of which the
// allocator keeps one of each size for this thread, and then has the C++ runtime touch what it keeps for exceptions.
bool can_throw() noexcept {
    constexpr std::size_t sizes = 32, step = 16;
    void* blocks[sizes];
    std::size_t count = 0;
    while (count < sizes && (blocks[count] = std::malloc((count + 1) * step)) != nullptr) ++count;
    for (std::size_t i = 0; i < count; ++i) std::free(blocks[i]);
    return count == sizes && std::uncaught_exceptions() == 0;
}

}  // namespace

int available_cores() {
    const int affinity = detail::cores_of_affinity();
    if (affinity < 2) return 1;
    // Limits of control groups are read once: they are set when a container or job starts.
    static const int granted = detail::cores_of_cgroups();
    return std::min(affinity, granted);
}

int num_threads() {
    const int n = thread_count.load(std::memory_order_relaxed);
    if (n > 0) return n;
    static const int wanted = threads_of_environment();
    return wanted > 0 ? std::min(wanted, available_cores()) : available_cores();
}

void set_num_threads(int n) {
    if (n < 1) throw std::invalid_argument("n must be an integer of at least 1, got " + std::to_string(n));
    thread_count.store(n, std::memory_order_relaxed);
}

namespace detail {

void run_team(std::size_t workers, const std::function<void(std::size_t)>& work) {
    std::vector<std::thread> team;
    team.reserve(workers - 1);
    try {
        for (std::size_t thread = 1; thread < workers; ++thread) {
            team.emplace_back([&work, thread] {
                if (can_throw()) work(thread);
            });
        }
    } catch (...) {
        // No more threads to be had: those that started and this one do the work.
    }
    work(0);
    for (auto& thread : team) thread.join();
}

}  // namespace detail

}  // namespace malis
