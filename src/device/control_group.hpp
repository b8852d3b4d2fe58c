// What the control groups of Linux allow a process: inside a container the machine's memory is not
// the program's.
#pragma once

#include <cstddef>
#include <string>

namespace cistern {

/// The smallest memory limit among the process's groups and those around them, of version 2 or 1 of
/// the interface; SIZE_MAX where there is none. `groups` lists the process's groups, as
/// /proc/self/cgroup does, and `root` is where they are mounted.
std::size_t control_group_limit(const std::string& groups, const std::string& root);

}  // namespace cistern
