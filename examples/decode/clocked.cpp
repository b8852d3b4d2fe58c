#include "clocked.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace decode {
namespace {

using Clock = std::chrono::steady_clock;

/// What two readings one after the other are apart, in the median.
Clocked::Duration cost_of_clock() {
  std::array<Clock::duration, 1001> gaps{};
  for (Clock::duration& gap : gaps) {
    const auto start = Clock::now();
    gap = Clock::now() - start;
  }
  std::ranges::nth_element(gaps, gaps.begin() + gaps.size() / 2);
  return gaps[gaps.size() / 2];
}

}  // namespace

Clocked::Clocked(cistern::Ref<cistern::Resource> upstream)
    : Stage(std::move(upstream)), clock_cost_(cost_of_clock()) {}

Clocked::Duration Clocked::spent() const noexcept {
  return std::max(Duration(0), Duration(sum_) - clock_cost_ * static_cast<double>(calls_));
}

cistern::Expected<cistern::Block> Clocked::try_allocate(const cistern::Request& request) noexcept {
  const auto start = Clock::now();
  auto block = upstream().try_allocate(request);
  sum_ += Clock::now() - start;
  ++calls_;
  return block;
}

bool Clocked::deallocate(const cistern::Block& block, cistern::Stream stream) noexcept {
  const auto start = Clock::now();
  const bool accepted = upstream().deallocate(block, stream);
  sum_ += Clock::now() - start;
  ++calls_;
  return accepted;
}

cistern::Outstanding Clocked::outstanding() const noexcept {
  return upstream().outstanding();
}

}  // namespace decode
