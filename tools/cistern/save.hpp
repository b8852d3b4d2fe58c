// Writes what a subcommand makes beside its report.
#pragma once

#include <string>
#include <string_view>

namespace cistern::command {

/// Writes `text` to `file`, or to standard output for "-". Throws JobFailed, saying what the system
/// said.
void save(const std::string& file, std::string_view text);

}  // namespace cistern::command
