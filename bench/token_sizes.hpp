// The sizes of the token loop, the same every time: log-uniform from 256 B to 4 MiB.
#pragma once

#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

inline std::vector<std::size_t> token_sizes(std::size_t count) {
  std::mt19937_64 random(1750);  // NOLINT: the same sizes every time
  std::vector<std::size_t> sizes(count);
  for (std::size_t& bytes : sizes) {
    bytes = static_cast<std::size_t>(
        std::exp2(8 + static_cast<double>(random() >> 11U) * 0x1p-53 * 14));
  }
  return sizes;
}
