// What a request, or a text that is to be opened as a stack, failed with.
#pragma once

#include <string>
#include <string_view>

#include "cistern/core/error.hpp"
#include "cistern/core/resource.hpp"
#include "cistern/stack/stack.hpp"

namespace cistern::testing {

/// Errc::device_failed, which no test of it expects, if it did not fail.
inline Errc code_of(const Expected<Block>& block) {
  return block ? Errc::device_failed : block.error().code;
}

/// "opened" if it did not fail.
inline std::string stack_error(std::string_view text) {
  const auto stack = try_open(text);
  return stack ? "opened" : stack.error().what();
}

}  // namespace cistern::testing
