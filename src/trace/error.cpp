#include "cistern/trace/error.hpp"

#include <fmt/format.h>

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

}  // namespace cistern
