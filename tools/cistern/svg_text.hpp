// Text of a user's within a picture: every writer of SVG has names in it that it did not choose.
#pragma once

#include <string>
#include <string_view>

namespace cistern::command {

/// Text as XML may hold it: valid UTF-8 without control characters, and without markup.
[[nodiscard]] std::string escaped(std::string_view text);

}  // namespace cistern::command
