#include "trace/fail.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace cistern::detail {

Failure fail(std::string message) {
  return Failure(TraceError{"", TraceError::Unit::file, 0, std::move(message)});
}

Failure fail_at_byte(std::uint64_t position, std::string message) {
  return Failure(TraceError{"", TraceError::Unit::byte, position, std::move(message)});
}

Failure fail_at_line(std::uint64_t position, std::string message) {
  return Failure(TraceError{"", TraceError::Unit::line, position, std::move(message)});
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t shown_at_most = 40;
  std::string result = "\"";
  for (const char character : text.substr(0, shown_at_most)) {
    if (character >= ' ' && character <= '~') {
      result += character;
    } else {
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(character));
    }
  }
  return result + (text.size() > shown_at_most ? "...\"" : "\"");
}

std::string first_of(const std::vector<std::string>& names) {
  constexpr std::size_t shown_at_most = 8;
  const std::size_t shown = std::min(names.size(), shown_at_most);
  std::string list = fmt::format(
      "{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < names.size()) list += fmt::format(" and {} more", names.size() - shown);
  return list;
}

}  // namespace cistern::detail
