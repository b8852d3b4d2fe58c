// Addresses of a test's choice, behind which there is no memory.
#pragma once

#include <cstdint>

namespace cistern::testing {

inline void* address(std::uintptr_t number) {
  return reinterpret_cast<void*>(number);
}

}  // namespace cistern::testing
