#include "device/simulated_pages.hpp"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

#include "cistern/device/simulated_queues.hpp"
#include "device/simulated_residency.hpp"

namespace cistern {
namespace {

constexpr VirtualMemory::PageSizes simulated_page_sizes = {.smallest = std::size_t{4} << 10,
                                                           .largest = std::size_t{1} << 30};

}  // namespace

SimulatedDevice::Pages::Pages(SimulatedDevice& device)
    : VirtualMemory(device, simulated_page_sizes), device_(device) {}

std::size_t SimulatedDevice::Pages::mapped_bytes() const {
  std::size_t bytes = 0;
  for (const auto& [start, table] : ranges_) {
    const auto pages = std::count(table.is_mapped.begin(), table.is_mapped.end(), true);
    bytes += static_cast<std::size_t>(pages) * table.page;
  }
  return bytes;
}

Expected<AddressRange> SimulatedDevice::Pages::do_reserve(std::size_t bytes,
                                                          std::size_t page) noexcept {
  const std::lock_guard lock(device_.mutex_);
  void* start = device_.next_addresses(bytes, page);
  if (start == nullptr) return tl::unexpected(fail(Errc::out_of_memory, bytes));
  const AddressRange range{.start = static_cast<std::byte*>(start), .bytes = bytes, .page = page};
  try {
    ranges_[range.start] = {.is_mapped = std::vector<bool>(bytes / page), .page = page};
  } catch (const std::exception&) {  // the host has no memory for the table, or none so large
    ranges_.erase(range.start);
    return tl::unexpected(fail(Errc::out_of_memory, bytes));
  }
  return range;
}

void SimulatedDevice::Pages::do_release(const AddressRange& range) noexcept {
  const std::lock_guard lock(device_.mutex_);
  const auto found = ranges_.find(range.start);
  if (found == ranges_.end()) return note("simulated: a range is released once");
  const std::vector<bool>& mapped = found->second.is_mapped;
  if (std::find(mapped.begin(), mapped.end(), true) != mapped.end())
    note("simulated: no page of a range that is released is mapped");
  ranges_.erase(found);
}

Expected<void> SimulatedDevice::Pages::do_map(const AddressRange& range, std::byte* start,
                                              std::size_t bytes, Stream /*stream*/) noexcept {
  const std::lock_guard lock(device_.mutex_);
  if (Expected<void> taken = device_.take(bytes); !taken) return taken;
  if (flip(range, start, bytes, false)) return {};
  device_.used_ -= bytes;
  return tl::unexpected(fail(Errc::device_failed, bytes));
}

void SimulatedDevice::Pages::do_unmap(const AddressRange& range, std::byte* start,
                                      std::size_t bytes, Stream stream) noexcept {
  if (device_.queues_ != nullptr)
    device_.queues_->gave_back(reinterpret_cast<std::uintptr_t>(start), bytes, stream);
  const std::lock_guard lock(device_.mutex_);
  device_.count_free_call();
  if (flip(range, start, bytes, true)) device_.used_ -= bytes;
  device_.resident_->gave_back(reinterpret_cast<std::uintptr_t>(start), bytes);
}

bool SimulatedDevice::Pages::flip(const AddressRange& range, const std::byte* start,
                                  std::size_t bytes, bool from) {
  const auto found = ranges_.find(range.start);
  const auto offset = static_cast<std::size_t>(start - range.start);
  if (found == ranges_.end() || offset > range.bytes || bytes > range.bytes - offset) {
    note("simulated: what is mapped and unmapped lies in a range that is reserved");
    return false;
  }
  if (offset % range.page != 0 || bytes % range.page != 0) {
    note("simulated: what is mapped and unmapped is whole pages");
    return false;
  }
  std::vector<bool>& mapped = found->second.is_mapped;
  const auto first = mapped.begin() + static_cast<std::ptrdiff_t>(offset / range.page);
  const auto last = first + static_cast<std::ptrdiff_t>(bytes / range.page);
  if (std::find(first, last, !from) != last) {
    note(from ? "simulated: a page that is unmapped was mapped"
              : "simulated: no page is mapped twice");
    return false;
  }
  std::fill(first, last, !from);
  return true;
}

void SimulatedDevice::Pages::note(const char* law) noexcept {
  if (broken_law_ == nullptr) broken_law_ = law;
}

}  // namespace cistern
