// Runs the test cases of one executable: all of them, or those whose name contains the first argument.
#include <cstdio>
#include <exception>
#include <string>

#include "check.hpp"

int main(int argc, char** argv) {
    using namespace malis::test;
    const std::string wanted = argc > 1 ? argv[1] : "";
    std::size_t run = 0, failed = 0;
    for (const Case& test : cases()) {
        if (std::string(test.name).find(wanted) == std::string::npos) continue;
        ++run;
        Tally& t = tally();
        const std::size_t checks = t.checks, failures = t.failures;
        t.messages.clear();
        context.clear();
        try {
            test.run();
        } catch (const std::exception& e) {
            record(false, test.name, 0, std::string("throws ") + e.what());
        }
        if (t.checks == checks) record(false, test.name, 0, "checks nothing");
        const bool passed = t.failures == failures;
        failed += !passed;
        std::printf("%s %s (%zu checks, %zu failed)\n", passed ? "ok    " : "FAILED", test.name, t.checks - checks,
                    t.failures - failures);
        for (const std::string& message : t.messages) std::printf("    %s\n", message.c_str());
        std::fflush(stdout);
    }
    std::printf("%zu test cases, %zu failed\n", run, failed);
    return run == 0 || failed > 0;
}
