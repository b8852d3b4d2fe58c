#include "device/simulated_residency.hpp"

#include <algorithm>
#include <exception>
#include <mutex>

#include "device/block_start.hpp"

namespace cistern {

SimulatedDevice::Resident::Resident(SimulatedDevice& device) : Residency(device), device_(device) {}

std::size_t SimulatedDevice::Resident::bytes() const {
  std::size_t bytes = 0;
  for (const auto& [start, end] : parts_)
    bytes += end - start;
  return bytes;
}

Expected<void> SimulatedDevice::Resident::do_make_resident(std::span<const Block> parts) noexcept {
  const std::lock_guard lock(device_.mutex_);
  std::size_t bytes = 0;
  for (const Block& part : parts)
    bytes += part.bytes;
  if (!device_.take_commit()) return tl::unexpected(fail(Errc::device_failed, bytes));
  std::size_t added = 0;
  try {
    for (; added < parts.size(); ++added) {
      const std::uintptr_t start = start_of(parts[added]);
      parts_.emplace(start, start + parts[added].bytes);
      longest_ = std::max(longest_, parts[added].bytes);
    }
    return {};
  } catch (const std::exception&) {  // the host has no memory for the table
    for (const Block& part : parts.first(added))
      erase(part);
    return tl::unexpected(fail(Errc::out_of_memory, bytes));
  }
}

void SimulatedDevice::Resident::do_end_residency(std::span<const Block> parts) noexcept {
  const std::lock_guard lock(device_.mutex_);
  device_.count_end_of_residency_call();
  for (const Block& part : parts)
    erase(part);
}

void SimulatedDevice::Resident::erase(const Block& part) noexcept {
  const std::uintptr_t start = start_of(part);
  const auto [first, last] = parts_.equal_range(start);
  const auto found = std::find_if(
      first, last, [&](const auto& each) { return each.second == start + part.bytes; });
  if (found != last) parts_.erase(found);
}

void SimulatedDevice::Resident::gave_back(std::uintptr_t start, std::size_t bytes) noexcept {
  const std::uintptr_t end = start + bytes;
  auto part = parts_.lower_bound(start - std::min<std::uintptr_t>(start, longest_));
  for (; part != parts_.end() && part->first < end; ++part) {
    if (part->second > start && broken_law_ == nullptr)
      broken_law_ = "simulated: memory that is given back is not resident";
  }
}

}  // namespace cistern
