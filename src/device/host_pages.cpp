#include "device/host_pages.hpp"

#include <algorithm>
#include <cerrno>

#include <sys/mman.h>

#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"
#include "cistern/core/size.hpp"
#include "device/mapping.hpp"

namespace cistern {
namespace {

/// Backs the pages with memory now. A system that does not know how to does it when they are
/// touched.
bool populate(std::byte* start, std::size_t bytes) noexcept {
  return madvise(start, bytes, MADV_POPULATE_WRITE) == 0 || errno == EINVAL;
}

}  // namespace

HostPages::HostPages(Device& device)
    : VirtualMemory(device, {.smallest = page_size(), .largest = std::max(page_size(), huge_page)}),
      most_(device.limits().total_memory) {}

Expected<AddressRange> HostPages::do_reserve(std::size_t bytes, std::size_t page) noexcept {
  void* start = map_aligned(bytes, page);
  if (start == nullptr) return tl::unexpected(fail(Errc::out_of_memory, bytes));
  // A huge page behind a smaller one would be memory that nobody counts. Advice that the system
  // does not take is no failure.
  madvise(start, bytes, page < huge_page ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
  return AddressRange{.start = static_cast<std::byte*>(start), .bytes = bytes, .page = page};
}

void HostPages::do_release(const AddressRange& range) noexcept {
  if (munmap(range.start, range.bytes) != 0)
    report("host could not release %zu bytes of addresses", range.bytes);
}

Expected<void> HostPages::do_map(const AddressRange& /*range*/, std::byte* start, std::size_t bytes,
                                 Stream /*stream*/) noexcept {
  const std::size_t before = mapped_.fetch_add(bytes, std::memory_order_relaxed);
  if (bytes <= saturating_subtract(most_, before) && populate(start, bytes)) return {};
  mapped_.fetch_sub(bytes, std::memory_order_relaxed);
  madvise(start, bytes, MADV_DONTNEED);  // those that were backed before it failed
  return tl::unexpected(fail(Errc::out_of_memory, bytes, saturating_subtract(most_, before)));
}

void HostPages::do_unmap(const AddressRange& /*range*/, std::byte* start, std::size_t bytes,
                         Stream /*stream*/) noexcept {
  if (madvise(start, bytes, MADV_DONTNEED) != 0)
    report("host could not give back %zu bytes of pages", bytes);
  mapped_.fetch_sub(bytes, std::memory_order_relaxed);
}

}  // namespace cistern
