#include "malis/support/cores.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace malis::detail {

namespace {

// The cores of a quota of microseconds within a period; without a limit the quota is "max" or -1.
double cores_of_quota(const std::string& quota, const std::string& period) {
    try {
        const double time = std::stod(quota), of = std::stod(period);
        if (time > 0 && of > 0) return time / of;
    } catch (const std::exception&) {
        // No number: no limit.
    }
    return std::numeric_limits<double>::infinity();
}

std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

// What a path and a name make together.
std::string within(const std::string& folder, const char* name) {
    std::string path = folder;
    path += name;
    return path;
}

// Calls f with the folders of a group and of those that it is in, below `top`: a limit holds for all groups within its own.
template <class F>
void each_folder(const std::string& top, std::string group, F&& f) {
    while (true) {
        f(within(top, group.c_str()));
        if (group.empty() || group == "/") return;
        const std::size_t last = group.find_last_of('/');
        group.erase(last == std::string::npos ? 0 : last);
    }
}

}  // namespace

int cores_of_affinity() {
#if defined(__linux__)
    // Sets are as long as the kernel needs; a call with one that is too short fails.
    for (int cores = 1024; cores <= (1 << 20); cores *= 4) {
        cpu_set_t* const set = CPU_ALLOC(static_cast<std::size_t>(cores));
        if (set == nullptr) break;
        const std::size_t size = CPU_ALLOC_SIZE(static_cast<std::size_t>(cores));
        const bool known = sched_getaffinity(0, size, set) == 0;
        const int count = known ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (known) return std::max(1, count);
    }
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int cores_of_cgroups(const std::string& root, const std::string& self) {
    double cores = std::numeric_limits<double>::infinity();
    std::ifstream groups(self);
    // A line is "number:controllers:group"; that of version 2 has the number 0 and no controllers.
    for (std::string line; std::getline(groups, line);) {
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        std::istringstream controllers(line.substr(first + 1, second - first - 1));
        const std::string group = line.substr(second + 1);
        if (second == first + 1) {
            each_folder(root, group, [&](const std::string& folder) {
                std::istringstream limit(first_line(within(folder, "/cpu.max")));
                std::string quota, period;
                if (limit >> quota >> period) cores = std::min(cores, cores_of_quota(quota, period));
            });
        }
        for (std::string controller; std::getline(controllers, controller, ',');) {
            if (controller != "cpu") continue;
            each_folder(within(root, "/cpu"), group, [&](const std::string& folder) {
                cores = std::min(cores, cores_of_quota(first_line(within(folder, "/cpu.cfs_quota_us")),
                                                       first_line(within(folder, "/cpu.cfs_period_us"))));
            });
        }
    }
    if (cores > 1e6) return std::numeric_limits<int>::max();
    return std::max(1, static_cast<int>(std::ceil(cores)));
}

}  // namespace malis::detail
