// Long computations that can be stopped.
//
//     {
//         const malis::Interruptible call([&] { if (cancelled) throw Cancelled(); });
//         malis::count_pairs(volume, aff, seg, options, pos, neg);  // throws Cancelled soon after it is asked to
//     }
//
// As long as the object lives, what its thread computes asks the function some twenty times a second, always on that
// thread, and the exception that it throws ends the computation: threads that help are stopped and joined, memory is
// given back, and arrays of results hold anything. Which call a thread works for is kept for that thread alone.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>

namespace malis {

namespace detail {
struct Asked;
}  // namespace detail

class Interruptible {
  public:
    // `ask` throws to end what this thread computes, and otherwise returns soon. It is called no more often than once in
    // `interval`, and not much less often.
    explicit Interruptible(std::function<void()> ask,
                           std::chrono::steady_clock::duration interval = std::chrono::milliseconds(50));
    ~Interruptible();
    Interruptible(const Interruptible&) = delete;
    Interruptible& operator=(const Interruptible&) = delete;

  private:
    detail::Asked* const asked_;
    detail::Asked* const outer_;  // a call within a call: a signal handler may compute, too
};

// What loops do every `steps_per_poll` steps or so, as it costs about as much as some ten of them: throws where the
// computation has to end.
void poll();

constexpr std::size_t steps_per_poll = std::size_t{1} << 16;

// Calls f(begin, end) on pieces of [first, last), numbers or pointers, one after the other: for long loops of one thread.
template <class Index, class F>
void in_steps(Index first, Index last, std::size_t step, F&& f) {
    while (first < last) {
        poll();
        const auto left = last - first;
        const Index end = static_cast<std::size_t>(left) > step ? first + static_cast<decltype(left)>(step) : last;
        f(first, end);
        first = end;
    }
}
template <class Index, class F>
void in_steps(Index n, F&& f) {
    in_steps(Index{0}, n, steps_per_poll, f);
}

// Compares as `Less` does, for sorts of many items.
template <class Less>
struct PollingLess {
    Less less;
    std::size_t comparisons = 0;
    template <class A, class B>
    bool operator()(const A& a, const B& b) {
        if (++comparisons % steps_per_poll == 0) poll();
        return less(a, b);
    }
};
template <class Less>
PollingLess<Less> polling(Less less) {
    return {less};
}

}  // namespace malis
