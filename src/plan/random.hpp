// Random numbers that are the same on every machine, from a seed: the splitmix64 generator (Steele,
// Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#pragma once

#include <cstdint>

namespace cistern::detail {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  /// At least 0 and below 1.
  double fraction() noexcept {
    constexpr double scale = 1.0 / (std::uint64_t{1} << 53U);
    return static_cast<double>(next() >> 11U) * scale;
  }

 private:
  std::uint64_t next() noexcept {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }

  std::uint64_t state_;
};

}  // namespace cistern::detail
