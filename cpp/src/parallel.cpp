#include "malis/support/parallel.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "malis/support/cores.hpp"
#include "malis/support/interrupt.hpp"

namespace malis {

namespace detail {

// Whom a thread asks whether to go on, and when next.
struct Asked {
    using Clock = std::chrono::steady_clock;

    std::function<void()> ask;
    Clock::duration interval;
    Clock::time_point next = Clock::now() + interval;

    void in_time() {
        if (Clock::now() < next) return;
        ask();
        next = Clock::now() + interval;
    }
};

}  // namespace detail

namespace {

std::atomic<int> thread_count{0};  // 0: not set

// The number in a variable of the environment; 0 where there is none. It may be the first of a list, as OpenMP has one
// number for each level of nested loops.
int number_of_environment(const char* name) {
    const char* const value = std::getenv(name);
    if (value == nullptr) return 0;
    char* end = nullptr;
    const long count = std::strtol(value, &end, 10);
    if (end == value || count < 1) return 0;
    while (*end == ' ') ++end;
    if (*end != '\0' && *end != ',') return 0;
    return static_cast<int>(std::min(count, 1L << 16));
}

// The threads of one loop, and the loop within which it runs, if any.
struct Team {
    std::atomic<bool> stopped{false};
    const Team* outer;
};

// What ends the tasks of a loop that has failed elsewhere.
struct Stopped : std::runtime_error {
    Stopped() : std::runtime_error("stopped, as another thread has failed") {}
};

// What a thread works for.
struct Work {
    detail::Asked* asked = nullptr;
    const Team* team = nullptr;
};
thread_local Work work_of_thread;

// glibc allocates the thread-local memory of a library when a thread first uses it, and ends the process where that
// fails. The first exception of a thread is such a use, and running out of memory is what throws one. So a thread sees
// to that memory before it takes work: it allocates blocks of every small size and gives them back, which the allocator
// then keeps for this thread, and uses what is thread-local here and in the C++ runtime.
bool ready_for_work(const Team& team) noexcept {
    constexpr std::size_t sizes = 32, step = 16, of_each = 2;
    void* blocks[sizes * of_each];
    std::size_t count = 0;
    while (count < sizes * of_each && (blocks[count] = std::malloc((count / of_each + 1) * step)) != nullptr) ++count;
    for (std::size_t i = 0; i < count; ++i) std::free(blocks[i]);
    if (count < sizes * of_each || std::uncaught_exceptions() > 0) return false;
    work_of_thread.team = &team;
    return true;
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
    // The variable of OpenMP, whose users expect it to count for everything; and the number of processes that torchrun
    // starts on this machine, which share the cores.
    static const int wanted = number_of_environment("OMP_NUM_THREADS");
    static const int processes = std::max(1, number_of_environment("LOCAL_WORLD_SIZE"));
    const int share = std::max(1, available_cores() / processes);
    return wanted > 0 ? std::min(wanted, share) : share;
}

void set_num_threads(int n) {
    if (n < 1) throw std::invalid_argument("n must be an integer of at least 1, got " + std::to_string(n));
    thread_count.store(n, std::memory_order_relaxed);
}

Interruptible::Interruptible(std::function<void()> ask, std::chrono::steady_clock::duration interval)
    : asked_(new detail::Asked{std::move(ask), interval}), outer_(std::exchange(work_of_thread.asked, asked_)) {}

Interruptible::~Interruptible() {
    work_of_thread.asked = outer_;
    delete asked_;
}

void poll() {
    const Work& work = work_of_thread;
    for (const Team* team = work.team; team != nullptr; team = team->outer)
        if (team->stopped.load(std::memory_order_relaxed)) throw Stopped();
    if (work.asked != nullptr) work.asked->in_time();
}

namespace detail {

namespace {

// A loop while its threads run.
class Loop {
  public:
    using Call = void (*)(void* f, std::size_t task, std::size_t thread);

    Loop(std::size_t tasks, Call call, void* f) : tasks_(tasks), call_(call), f_(f) {
        team_.outer = work_of_thread.team;
    }

    void run(std::size_t workers) {
        std::vector<std::thread> threads;
        threads.reserve(workers - 1);
        start(workers, threads);
        work_of_thread.team = &team_;
        work(0);
        if (work_of_thread.asked != nullptr) ask_until_ended();
        for (auto& thread : threads) thread.join();
        work_of_thread.team = team_.outer;
        if (error_) std::rethrow_exception(error_);
    }

  private:
    void start(std::size_t workers, std::vector<std::thread>& threads) {
        for (std::size_t thread = 1; thread < workers; ++thread) {
            count_running(1);
            try {
                threads.emplace_back([this, thread] {
                    if (ready_for_work(team_)) work(thread);
                    count_running(static_cast<std::size_t>(-1));
                });
            } catch (...) {
                // No more threads to be had: those that started and this one do the work.
                count_running(static_cast<std::size_t>(-1));
                break;
            }
        }
    }

    void work(std::size_t thread) {
        guarded([&] {
            for (std::size_t task = next_.fetch_add(1); task < tasks_; task = next_.fetch_add(1)) {
                poll();
                call_(f_, task, thread);
            }
        });
    }

    // The other threads may have long to go when the calling one has no task any more: it goes on asking.
    void ask_until_ended() {
        const auto interval =
            std::max<Asked::Clock::duration>(work_of_thread.asked->interval, std::chrono::milliseconds(1));
        std::unique_lock<std::mutex> lock(mutex_);
        while (!ended_.wait_for(lock, interval, [&] { return running_ == 0; })) {
            lock.unlock();
            guarded([] { work_of_thread.asked->in_time(); });
            lock.lock();
        }
    }

    // The first error is kept, and ends the others.
    template <class Body>
    void guarded(Body&& body) {
        try {
            body();
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!error_) error_ = std::current_exception();
            team_.stopped.store(true, std::memory_order_relaxed);
        }
    }

    void count_running(std::size_t change) {
        const std::lock_guard<std::mutex> lock(mutex_);
        running_ += change;
        ended_.notify_all();
    }

    const std::size_t tasks_;
    const Call call_;
    void* const f_;
    Team team_{{}, nullptr};
    std::atomic<std::size_t> next_{0};
    std::mutex mutex_;  // of what follows
    std::exception_ptr error_;
    std::size_t running_ = 0;
    std::condition_variable ended_;
};

}  // namespace

void run_tasks(std::size_t tasks, std::size_t workers, void (*call)(void* f, std::size_t task, std::size_t thread),
               void* f) {
    Loop(tasks, call, f).run(workers);
}

}  // namespace detail

}  // namespace malis
