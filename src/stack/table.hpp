// The one table of stages: what the language knows of each, and how it is made. To add a stage is
// to add an entry.
#pragma once

#include <string_view>
#include <vector>

#include "stack/stage_entry.hpp"

namespace cistern::language {

/// Adaptors first, devices last. Made on first use.
const std::vector<StageEntry>& stages();

/// The entry of that name, or null.
const StageEntry* find_stage(std::string_view name);

/// A device that the language knows and this version does not have: what is given to it is not
/// looked at, and to open it throws `DeviceAbsent`.
struct AbsentDevice {
  const char* name;
  const char* reason;
};

/// The device of that name, or null.
const AbsentDevice* find_absent_device(std::string_view name);

}  // namespace cistern::language
