// The error that a stage answers with.
#pragma once

#include <cstddef>

#include "cistern/core/error.hpp"

namespace cistern {

/// `stage` must live as long as the program.
inline Error failure(const char* stage, Errc code, std::size_t bytes) noexcept {
  return {.code = code, .stage = stage, .requested = bytes};
}

}  // namespace cistern
