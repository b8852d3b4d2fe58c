#include "device/host_residency.hpp"

#include <sys/mman.h>
#include <sys/resource.h>

#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"
#include "cistern/core/size.hpp"
#include "device/block_start.hpp"
#include "device/mapping.hpp"

namespace cistern {
namespace {

int system_lock(const void* start, std::size_t bytes) noexcept {
  return mlock(start, bytes);
}

int system_unlock(const void* start, std::size_t bytes) noexcept {
  return munlock(start, bytes);
}

std::size_t limit_of_locks() noexcept {
  rlimit limit{};
  const bool is_bound = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  return is_bound ? limit.rlim_cur : unbounded;
}

void* address(std::uintptr_t place) noexcept {
  return reinterpret_cast<void*>(place);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace

HostResidency::HostResidency(Device& device)
    : HostResidency(device, {.lock = &system_lock, .unlock = &system_unlock}) {}

HostResidency::HostResidency(Device& device, const System& system)
    : Residency(device), system_(system) {}

// Those that hold any of it.
HostResidency::Pages HostResidency::pages_of(const Block& part) noexcept {
  const std::uintptr_t mask = ~(std::uintptr_t{page_size()} - 1);
  const std::uintptr_t start = start_of(part);
  return {.begin = start & mask, .end = (start + part.bytes + page_size() - 1) & mask};
}

Expected<void> HostResidency::do_make_resident(std::span<const Block> parts) noexcept {
  std::size_t done = 0;
  while (done < parts.size() && lock(parts[done]))
    ++done;
  if (done == parts.size()) return {};

  const std::size_t left = saturating_subtract(limit_of_locks(), locked_bytes_);
  for (const Block& part : parts.first(done))
    unlock(part);
  std::size_t bytes = 0;
  for (const Block& part : parts) {
    populate(part);
    bytes += part.bytes;
  }
  if (!told_) told_ = to_be_told_ = true;
  return tl::unexpected(fail(Errc::out_of_memory, bytes, left != unbounded ? left : 0));
}

void HostResidency::refused(const Error& error) noexcept {
  if (!to_be_told_.exchange(false)) return;
  report("host could not lock %zu bytes in memory (see RLIMIT_MEMLOCK): they may be paged out",
         error.requested);
}

void HostResidency::do_end_residency(std::span<const Block> parts) noexcept {
  for (const Block& part : parts)
    unlock(part);
}

// All pages of the part that are not locked yet, or none.
bool HostResidency::lock(const Block& part) noexcept {
  const Pages pages = pages_of(part);
  if (!locked_.add(pages.begin, pages.end)) return false;
  bool is_locked = true;
  std::uintptr_t failed_at = pages.end;
  locked_.each_covered(pages.begin, pages.end, 1, [&](std::uintptr_t begin, std::uintptr_t end) {
    if (is_locked && system_.lock(address(begin), end - begin) == 0) {
      locked_bytes_ += end - begin;
    } else if (is_locked) {
      is_locked = false;
      failed_at = begin;
    }
  });
  if (is_locked) return true;
  locked_.each_covered(pages.begin, pages.end, 1, [&](std::uintptr_t begin, std::uintptr_t end) {
    // The system may have locked a beginning of the piece that it failed.
    if (begin <= failed_at) system_.unlock(address(begin), end - begin);
    if (begin < failed_at) locked_bytes_ -= end - begin;
  });
  locked_.remove(pages.begin, pages.end);
  return false;
}

// Those that no other part needs.
void HostResidency::unlock(const Block& part) noexcept {
  const Pages pages = pages_of(part);
  locked_.each_covered(pages.begin, pages.end, 1, [&](std::uintptr_t begin, std::uintptr_t end) {
    system_.unlock(address(begin), end - begin);
    locked_bytes_ -= end - begin;
  });
  locked_.remove(pages.begin, pages.end);
}

// Only the pages that are the part's alone. What is in them stays; advice that the system does not
// take is no failure.
void HostResidency::populate(const Block& part) noexcept {
  const std::uintptr_t mask = ~(std::uintptr_t{page_size()} - 1);
  const std::uintptr_t begin = (start_of(part) + page_size() - 1) & mask;
  const std::uintptr_t end = (start_of(part) + part.bytes) & mask;
  if (begin < end) madvise(address(begin), end - begin, MADV_POPULATE_WRITE);
}

}  // namespace cistern
