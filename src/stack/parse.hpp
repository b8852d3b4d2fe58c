// From text to tree. The grammar stands in docs/stack-language.md.
#pragma once

#include <cstddef>
#include <string_view>

#include "stack/syntax.hpp"

namespace cistern::language {

// A text comes from an environment variable, a command line or a file: bounds that no honest text
// meets keep a wrong one from exhausting memory or the call stack.
inline constexpr std::size_t longest_text = 64 * 1024;
inline constexpr std::size_t most_stages = 64;      // of one stack
inline constexpr std::size_t deepest_nesting = 32;  // of parentheses and brackets

/// The stages of `text`, or the first place where it does not follow the grammar. O(length).
[[nodiscard]] Result<StackSyntax> parse(std::string_view text);

}  // namespace cistern::language
