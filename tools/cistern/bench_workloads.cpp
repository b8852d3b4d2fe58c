#include "bench_workloads.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>

namespace cistern::command {

namespace {

/// Log-uniform between powers of two. Not a distribution of the standard library: those differ from
/// one to the next.
std::size_t log_uniform(std::mt19937_64& random, double smallest_power, double largest_power) {
  const double part = static_cast<double>(random() >> 11U) * 0x1p-53;
  return static_cast<std::size_t>(
      std::exp2(smallest_power + part * (largest_power - smallest_power)));
}

}  // namespace

std::vector<std::size_t> Token::token_sizes() {
  std::mt19937_64 random(1750);  // NOLINT: the same sizes every time
  std::vector<std::size_t> sizes(pairs);
  for (std::size_t& bytes : sizes)
    bytes = log_uniform(random, 8, 22);
  return sizes;
}

std::size_t Token::peak_live() const noexcept {
  return std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
}

Churn::Churn(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::size_t> sizes(alive);
  std::size_t live = 0;
  steps_.resize(operations / 2);
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const std::size_t place = i < alive ? i : random() % alive;
    steps_[i] = {.bytes = log_uniform(random, 8, 24), .place = place};
    live += steps_[i].bytes - std::exchange(sizes[place], steps_[i].bytes);
    peak_live_ = std::max(peak_live_, live);
  }
}

}  // namespace cistern::command
