// Random whole numbers that are the same on every machine, from a seed: splitmix64, and nothing
// that rounds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/splitmix.hpp"

namespace cistern::detail {

class Draws {
 public:
  explicit Draws(std::uint64_t seed) noexcept : state_(seed) {}

  /// From 0 to `bound` - 1. `bound` is small, so that the bias of a remainder does not matter.
  std::uint64_t below(std::uint64_t bound) noexcept { return splitmix_next(state_) % bound; }
  std::uint64_t between(std::uint64_t least, std::uint64_t most) noexcept {
    return least + below(most - least + 1);
  }
  /// At least 2^`low` and below 2^`high`, every doubling as likely.
  std::uint64_t log_uniform(unsigned low, unsigned high) noexcept {
    const std::uint64_t doubling = std::uint64_t{1} << (low + below(high - low));
    return doubling + below(doubling);
  }
  template <std::size_t n>
  std::uint64_t one_of(const std::uint64_t (&choices)[n]) noexcept {
    return choices[below(n)];
  }

 private:
  std::uint64_t state_;
};

}  // namespace cistern::detail
