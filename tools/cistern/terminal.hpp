// What the command knows of the terminal it writes to.
#pragma once

#include <cstddef>
#include <cstdio>

namespace cistern::command {

bool is_terminal(std::FILE* file) noexcept;

/// Columns that a line on standard output may have: the terminal's, within reason; 100 where there
/// is none.
std::size_t columns() noexcept;

}  // namespace cistern::command
