#include "malis/parallel.hpp"

#include <stdexcept>
#include <string>

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

}  // namespace malis
