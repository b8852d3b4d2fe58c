#include "bench_workloads.hpp"

#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>

namespace cistern::command {

std::vector<std::size_t> Token::token_sizes() {
  constexpr double smallest_power = 8;
  constexpr double largest_power = 22;
  std::mt19937_64 random(1750);  // NOLINT: the same sizes every time
  std::vector<std::size_t> sizes(pairs);
  for (std::size_t& bytes : sizes) {
    // Not a distribution of the standard library: those differ from one to the next.
    const double part = static_cast<double>(random() >> 11U) * 0x1p-53;
    bytes = static_cast<std::size_t>(
        std::exp2(smallest_power + part * (largest_power - smallest_power)));
  }
  return sizes;
}

std::size_t Token::peak_live() const noexcept {
  return std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
}

}  // namespace cistern::command
