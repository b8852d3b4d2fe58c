// Where a block lies, on devices whose memory is told by addresses.
#pragma once

#include <cstdint>

#include "cistern/core/block.hpp"

namespace cistern {

inline std::uintptr_t start_of(const Block& block) noexcept {
  return reinterpret_cast<std::uintptr_t>(block.memory) + block.offset;
}

}  // namespace cistern
