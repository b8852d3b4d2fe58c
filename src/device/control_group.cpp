#include "device/control_group.hpp"

#include <algorithm>
#include <fstream>

#include "cistern/core/size.hpp"

namespace cistern {
namespace {

std::size_t read_limit(const std::string& file) {
  std::ifstream in(file);
  std::size_t bytes = unbounded;
  return in >> bytes ? bytes : unbounded;  // "max", or no such file
}

/// The smallest limit from `group`, such as "/a/b", up to the root.
std::size_t limit_up_from(std::string group, const std::string& root, const std::string& file) {
  std::size_t limit = unbounded;
  while (true) {
    limit = std::min(limit, read_limit(root + group + file));
    const std::size_t parent = group.rfind('/');
    if (parent == std::string::npos) return limit;
    group.resize(parent);
  }
}

}  // namespace

std::size_t control_group_limit(const std::string& groups, const std::string& root) {
  // A container often sees its own group as the root.
  std::size_t limit = std::min(limit_up_from("", root, "/memory.max"),
                               limit_up_from("", root, "/memory/memory.limit_in_bytes"));
  std::ifstream lines(groups);
  for (std::string line; std::getline(lines, line);) {  // "0::/a/b", or version 1's "5:memory:/a/b"
    const std::size_t controllers = line.find(':') + 1;
    const std::size_t group = line.find(':', controllers) + 1;
    if (controllers == 0 || group == 0) continue;
    if (group == controllers + 1) {
      limit = std::min(limit, limit_up_from(line.substr(group), root, "/memory.max"));
    } else if (line.substr(controllers, group - controllers - 1).find("memory") !=
               std::string::npos) {
      limit = std::min(
          limit, limit_up_from(line.substr(group), root + "/memory", "/memory.limit_in_bytes"));
    }
  }
  return limit;
}

}  // namespace cistern
