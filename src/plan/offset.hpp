// Arithmetic of offsets that cannot wrap: what is beyond the largest number stays there, so that a
// plan that does not fit into a std::size_t compares as the worst one.
#pragma once

#include <cstddef>
#include <limits>

namespace cistern::detail {

inline constexpr std::size_t nowhere = std::numeric_limits<std::size_t>::max();

constexpr std::size_t end_of(std::size_t offset, std::size_t bytes) noexcept {
  return bytes < nowhere - offset ? offset + bytes : nowhere;
}

/// The lowest multiple of `alignment`, a power of two, that is not below `offset`.
constexpr std::size_t aligned(std::size_t offset, std::size_t alignment) noexcept {
  const std::size_t mask = alignment - 1;
  return offset <= nowhere - mask ? (offset + mask) & ~mask : nowhere;
}

}  // namespace cistern::detail
