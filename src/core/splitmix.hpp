// The finaliser of the splitmix64 generator (Steele, Lea, Flood: Fast Splittable Pseudorandom
// Number Generators, 2014): every bit of the answer depends on every bit of the argument.
#pragma once

#include <cstdint>

namespace cistern {

constexpr std::uint64_t splitmix_finish(std::uint64_t z) noexcept {
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

}  // namespace cistern
