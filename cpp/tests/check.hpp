// Test cases and checks. A check that fails is printed and counted, and its test goes on.
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace malis::test {

struct Case {
    const char* name;
    void (*run)();
};

inline std::vector<Case>& cases() {
    static std::vector<Case> all;
    return all;
}

struct Registration {
    Registration(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

struct Tally {
    std::atomic<std::size_t> checks{0}, failures{0};
    std::mutex mutex;
    std::vector<std::string> messages;
};

inline Tally& tally() {
    static Tally one;
    return one;
}

// What a loop over random problems is at: printed with every failure, so that it can be found again.
inline thread_local std::string context;

inline void record(bool passed, const char* file, int line, const std::string& what) {
    Tally& t = tally();
    ++t.checks;
    if (passed) return;
    ++t.failures;
    const std::lock_guard<std::mutex> lock(t.mutex);
    if (t.messages.size() < 20)
        t.messages.push_back(std::string(file) + ":" + std::to_string(line) + ": " + what +
                             (context.empty() ? "" : " [" + context + "]"));
}

template <class A, class B>
void record_equal(const A& a, const B& b, const char* file, int line, const char* what) {
    if (a == b) {
        record(true, file, line, {});
        return;
    }
    std::ostringstream text;
    text.precision(17);
    text << what << ": " << +a << " is not " << +b;
    record(false, file, line, text.str());
}

template <class A, class B>
void record_same(const A& a, const B& b, const char* file, int line, const char* what) {
    if (a.size() != b.size()) {
        record(false, file, line,
               std::string(what) + ": sizes " + std::to_string(a.size()) + " and " + std::to_string(b.size()));
        return;
    }
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (a[i] == b[i]) continue;
        std::ostringstream text;
        text.precision(17);
        text << what << ": at " << i << " of " << a.size() << " " << +a[i] << " is not " << +b[i];
        record(false, file, line, text.str());
        return;
    }
    record(true, file, line, {});
}

template <class Exception, class F>
void record_throws(F&& f, const std::string& part, const char* file, int line, const char* what) {
    try {
        f();
    } catch (const Exception& e) {
        const std::string message = e.what();
        record(message.find(part) != std::string::npos, file, line,
               std::string(what) + ": the message '" + message + "' lacks '" + part + "'");
        return;
    } catch (...) {
        record(false, file, line, std::string(what) + ": throws another exception");
        return;
    }
    record(false, file, line, std::string(what) + ": throws nothing");
}

}  // namespace malis::test

#define MALIS_TEST(name)                                                            \
    static void test_##name();                                                      \
    static const malis::test::Registration registration_##name(#name, test_##name); \
    static void test_##name()

#define CHECK(...) malis::test::record(static_cast<bool>(__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)
// One number, or containers item by item.
#define CHECK_EQUAL(a, b) malis::test::record_equal((a), (b), __FILE__, __LINE__, #a " == " #b)
#define CHECK_SAME(a, b) malis::test::record_same((a), (b), __FILE__, __LINE__, #a " == " #b)
// `part` has to occur in the message of the exception.
#define CHECK_THROWS(Exception, part, ...) \
    malis::test::record_throws<Exception>([&] { (void)(__VA_ARGS__); }, part, __FILE__, __LINE__, #__VA_ARGS__)
