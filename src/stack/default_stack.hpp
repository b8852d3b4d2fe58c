// What stack the default resource is, apart from there being one of it: tests open it many times.
#pragma once

#include "cistern/stack/stack.hpp"

namespace cistern::language {

inline constexpr const char* default_variable = "CISTERN_STACK";
inline constexpr const char* default_text = "cache > host";

/// The stack that the variable names; the text above where it is unset or empty.
[[nodiscard]] Stack open_default();

}  // namespace cistern::language
