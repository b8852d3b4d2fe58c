#include "cistern/trace/error.hpp"

#include <utility>

#include <fmt/format.h>

#include "trace/fail.hpp"

namespace cistern {

std::string TraceError::text() const {
  const std::string prefix = file.empty() ? "" : file + ": ";
  switch (unit) {
    case Unit::file:
      break;
    case Unit::byte:
      return fmt::format("{}byte {}: {}", prefix, position, message);
    case Unit::line:
      return fmt::format("{}line {}: {}", prefix, position, message);
    case Unit::event:
      return fmt::format("{}event {}: {}", prefix, position, message);
    case Unit::initial_block:
      return fmt::format("{}initial block {}: {}", prefix, position, message);
  }
  return prefix + message;
}

namespace detail {

Failure fail(std::string message) {
  return Failure(TraceError{"", TraceError::Unit::file, 0, std::move(message)});
}

Failure fail_at_byte(std::uint64_t position, std::string message) {
  return Failure(TraceError{"", TraceError::Unit::byte, position, std::move(message)});
}

Failure fail_at_line(std::uint64_t position, std::string message) {
  return Failure(TraceError{"", TraceError::Unit::line, position, std::move(message)});
}

std::string quoted(std::string_view text) {
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

}  // namespace detail
}  // namespace cistern
