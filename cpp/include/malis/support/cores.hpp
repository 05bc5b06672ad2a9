// How many cores a process may use, as far as the system says. Both functions return at least 1.
#pragma once

#include <string>

namespace malis::detail {

// The cores that the scheduler may put this process on; all of the machine where the system does not tell.
int cores_of_affinity();

// The CPU time that control groups grant to this process, in cores, rounded up; no limit is INT_MAX. `root` is where the
// group files are mounted, `self` lists the groups of the process.
int cores_of_cgroups(const std::string& root = "/sys/fs/cgroup", const std::string& self = "/proc/self/cgroup");

}  // namespace malis::detail
