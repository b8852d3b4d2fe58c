// A stack that is never there, as where a driver is missing.
#pragma once

#include <stdexcept>

#include "cistern/core/resource.hpp"

namespace cistern::testing {

inline Ref<Resource> cannot() {
  throw std::runtime_error("no driver");
}

}  // namespace cistern::testing
