#include "operators.hpp"

#include <cmath>
#include <stdexcept>

#include "cistern/core/device.hpp"
#include "host_operators.hpp"
#ifdef DECODE_HAS_OPENCL
#include "opencl_operators.hpp"
#endif

namespace decode {

Rotation Operators::rotation(std::size_t first, std::size_t count, std::size_t head_width,
                             double base) {
  const std::size_t half = head_width / 2;
  Rotation result{.cosines = tensor(count, half), .sines = tensor(count, half)};
  std::vector<float> cosines;
  std::vector<float> sines;
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t pair = 0; pair < half; ++pair) {
      const double exponent = static_cast<double>(pair) / static_cast<double>(half);
      const double angle = static_cast<double>(first + i) * std::pow(base, -exponent);
      cosines.push_back(static_cast<float>(std::cos(angle)));
      sines.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  upload(cosines, result.cosines);
  upload(sines, result.sines);
  return result;
}

std::unique_ptr<Operators> make_operators(Resource& memory) {
  if (memory.device().limits().host_addressable) return std::make_unique<HostOperators>(memory);
#ifdef DECODE_HAS_OPENCL
  if (auto* const device = dynamic_cast<cistern::OpenClDevice*>(&memory.device()))
    return std::make_unique<OpenClOperators>(memory, *device);
#endif
  throw std::runtime_error("there is no arithmetic for the memory of this device");
}

}  // namespace decode
