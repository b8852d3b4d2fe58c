// How long a stress test works: moments, unless CISTERN_STRESS_SECONDS makes it a soak.
#pragma once

#include <chrono>
#include <cstdlib>

namespace cistern::testing {

/// What CISTERN_STRESS_SECONDS says, else `otherwise`.
inline std::chrono::milliseconds stress_time_or(std::chrono::milliseconds otherwise) {
  const char* text = std::getenv("CISTERN_STRESS_SECONDS");  // NOLINT(concurrency-mt-unsafe)
  return text != nullptr ? std::chrono::duration_cast<std::chrono::milliseconds>(
                               std::chrono::duration<double>(std::strtod(text, nullptr)))
                         : otherwise;
}

}  // namespace cistern::testing
