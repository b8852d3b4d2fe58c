#include "device/control_group.hpp"

#include <algorithm>
#include <array>
#include <climits>
#include <cstdio>
#include <string_view>

#include "cistern/core/size.hpp"
#include "device/system_file.hpp"

namespace cistern {
namespace {

/// Where a version of the interface keeps its figures.
struct Version {
  const char* folder;
  const char* limit;
  const char* usage;
  const char* reclaimable;  // a key in memory.stat
};
constexpr Version version_1{.folder = "/memory",
                            .limit = "memory.limit_in_bytes",
                            .usage = "memory.usage_in_bytes",
                            .reclaimable = "total_inactive_file "};
constexpr Version version_2{.folder = "",
                            .limit = "memory.max",
                            .usage = "memory.current",
                            .reclaimable = "inactive_file "};

enum class Figure : bool { limit, room };

/// The figures of one group.
class Group {
 public:
  Group(const char* root, const Version& version, std::string_view name) noexcept
      : root_(root), version_(version), name_(name) {}

  [[nodiscard]] std::size_t figure(Figure figure) const noexcept {
    // The limit may be "max", and so no number.
    const std::size_t limit = file(version_.limit).number().value_or(unbounded);
    if (figure == Figure::limit || limit == unbounded) return limit;
    const std::size_t usage = file(version_.usage).number().value_or(0);
    const std::size_t reclaimable = file("memory.stat").number(version_.reclaimable).value_or(0);
    return saturating_subtract(limit, saturating_subtract(usage, reclaimable));
  }

 private:
  [[nodiscard]] SystemFile file(const char* file_name) const noexcept {
    std::array<char, PATH_MAX> path{};
    std::snprintf(path.data(), path.size(), "%s%s%.*s/%s", root_, version_.folder,
                  static_cast<int>(name_.size()), name_.data(), file_name);
    return SystemFile(path.data());
  }

  const char* root_;
  const Version& version_;
  std::string_view name_;
};

/// The smallest figure from the group `name`, such as "/a/b", up to the root.
std::size_t smallest_up_from(std::string_view name, const char* root, const Version& version,
                             Figure figure) noexcept {
  std::size_t smallest = unbounded;
  while (true) {
    smallest = std::min(smallest, Group(root, version, name).figure(figure));
    const std::size_t parent = name.rfind('/');
    if (parent == std::string_view::npos) return smallest;
    name = name.substr(0, parent);
  }
}

std::size_t smallest_of_all(const char* groups, const char* root, Figure figure) noexcept {
  // A container often sees its own group as the root.
  std::size_t smallest = std::min(smallest_up_from("", root, version_2, figure),
                                  smallest_up_from("", root, version_1, figure));
  const SystemFile list(groups);
  for (std::string_view rest = list.text(); !rest.empty();) {
    // "0::/a/b", or version 1's "5:memory:/a/b"
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const std::size_t controllers = line.find(':') + 1;
    const std::size_t group = line.find(':', controllers) + 1;
    if (controllers == 0 || group == 0) continue;
    const std::string_view name = line.substr(group);
    if (group == controllers + 1) {
      smallest = std::min(smallest, smallest_up_from(name, root, version_2, figure));
    } else if (line.substr(controllers, group - controllers - 1).find("memory") !=
               std::string_view::npos) {
      smallest = std::min(smallest, smallest_up_from(name, root, version_1, figure));
    }
  }
  return smallest;
}

}  // namespace

std::size_t control_group_limit(const char* groups, const char* root) noexcept {
  return smallest_of_all(groups, root, Figure::limit);
}

std::size_t control_group_room(const char* groups, const char* root) noexcept {
  return smallest_of_all(groups, root, Figure::room);
}

}  // namespace cistern
