// The splitmix64 generator (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
// 2014): random numbers that are the same on every machine, and a hash.
#pragma once

#include <cstdint>

namespace cistern {

/// Its finaliser: every bit of the answer depends on every bit of the argument.
constexpr std::uint64_t splitmix_finish(std::uint64_t z) noexcept {
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

/// The next number.
constexpr std::uint64_t splitmix_next(std::uint64_t& state) noexcept {
  return splitmix_finish(state += 0x9e3779b97f4a7c15U);
}

/// The same as a fraction: at least 0 and below 1.
constexpr double splitmix_fraction(std::uint64_t& state) noexcept {
  return static_cast<double>(splitmix_next(state) >> 11U) * 0x1p-53;
}

}  // namespace cistern
