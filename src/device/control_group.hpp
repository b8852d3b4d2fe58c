// What the control groups of Linux allow a process: inside a container the machine's memory is not
// the program's.
//
// `groups` is the file that lists the process's groups, as /proc/self/cgroup does, and `root` is
// where they are mounted. Nothing here uses the heap.
#pragma once

#include <cstddef>

namespace cistern {

/// The smallest memory limit among the process's groups and those around them, of version 2 or 1 of
/// the interface; SIZE_MAX where there is none.
std::size_t control_group_limit(const char* groups, const char* root) noexcept;

/// The same for what is left under each limit. Memory that the system would take back by itself
/// (files that were read and not used lately) counts as left.
std::size_t control_group_room(const char* groups, const char* root) noexcept;

}  // namespace cistern
