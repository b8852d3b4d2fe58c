// What stack the environment names, and what becomes of it when the process ends, for those who
// open one for the whole process. Apart from there being one of it: tests open it many times.
#pragma once

#include <string>
#include <string_view>

#include "cistern/stack/stack.hpp"

namespace cistern::language {

inline constexpr const char* default_variable = "CISTERN_STACK";
inline constexpr const char* default_text = "cache > host";

/// What the variable holds; `otherwise` where it is unset or empty.
[[nodiscard]] std::string text_of_environment(std::string_view otherwise);

/// The same error, with where the text comes from.
[[nodiscard]] StackError in_environment(std::string_view text, const StackError& error);

/// A stack that is never closed: what it records must still end.
void finish_recordings(Resource& stage);

/// The stack that the variable names; the text above where it is unset or empty.
[[nodiscard]] Stack open_default();

}  // namespace cistern::language
