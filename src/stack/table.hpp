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

}  // namespace cistern::language
