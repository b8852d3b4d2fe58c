// Lifetimes to plan: random ones, and the least peak of a few found by trying everything.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "cistern/plan/lifetime.hpp"
#include "support/seed.hpp"

namespace cistern::testing {

struct Shape {
  std::size_t buffers = 8;
  std::uint64_t times = 8;
  std::uint64_t bytes = 16;
  unsigned alignment_bits = 0;
  std::uint64_t longest = ~std::uint64_t{0};
};

/// Too hard for a first answer to be the best one, and for a few steps to find that.
inline constexpr Shape hard{.buffers = 150, .times = 60, .bytes = 1000, .longest = 12};

/// Buffers that are not empty.
inline std::vector<Lifetime> random_buffers(Random& random, const Shape& shape) {
  std::vector<Lifetime> buffers(shape.buffers);
  for (Lifetime& buffer : buffers) {
    const std::uint64_t a = random.below(shape.times);
    const std::uint64_t b = random.below(shape.times);
    const std::uint64_t width = std::max(a, b) - std::min(a, b);
    buffer = {std::min(a, b), std::min(a, b) + std::min(width, shape.longest - 1) + 1,
              static_cast<std::size_t>(1 + random.below(shape.bytes)),
              std::size_t{1} << random.below(shape.alignment_bits + 1)};
  }
  return buffers;
}

inline bool conflict(const Lifetime& a, const Lifetime& b) {
  return a.lower < b.upper && b.lower < a.upper;
}

/// With the buffers placed in that order, each as low as it can be.
inline std::size_t peak_in_order(std::span<const Lifetime> buffers,
                                 std::span<const std::size_t> order) {
  std::vector<std::size_t> offsets(buffers.size());
  std::size_t peak = 0;
  for (std::size_t at = 0; at < order.size(); ++at) {
    const Lifetime& buffer = buffers[order[at]];
    std::size_t offset = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (const std::size_t other : order.first(at)) {
        const std::size_t end = offsets[other] + buffers[other].bytes;
        if (!conflict(buffer, buffers[other]) || offset >= end ||
            offsets[other] >= offset + buffer.bytes)
          continue;
        offset = (end + buffer.alignment - 1) / buffer.alignment * buffer.alignment;
        moved = true;
      }
    }
    offsets[order[at]] = offset;
    peak = std::max(peak, offset + buffer.bytes);
  }
  return peak;
}

/// Of all orders, among which is that of the offsets of a best plan. O(n! n^2).
inline std::size_t least_peak(std::span<const Lifetime> buffers) {
  std::vector<std::size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::size_t least = peak_in_order(buffers, order);
  while (std::next_permutation(order.begin(), order.end()))
    least = std::min(least, peak_in_order(buffers, order));
  return least;
}

/// The most bytes that live together.
inline std::size_t most_live(std::span<const Lifetime> buffers) {
  std::size_t most = 0;
  for (const Lifetime& at : buffers) {
    std::size_t live = 0;
    for (const Lifetime& buffer : buffers) {
      if (buffer.lower <= at.lower && at.lower < buffer.upper) live += buffer.bytes;
    }
    most = std::max(most, live);
  }
  return most;
}

}  // namespace cistern::testing
