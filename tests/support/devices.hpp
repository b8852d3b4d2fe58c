// Simulated devices that are told by how much memory they have.
#pragma once

#include <cstddef>

#include "cistern/device/simulated.hpp"

namespace cistern::testing {

inline Ref<SimulatedDevice> device_of(std::size_t capacity) {
  return make<SimulatedDevice>(SimulatedDevice::Options{.capacity = capacity});
}

}  // namespace cistern::testing
