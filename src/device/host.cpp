#include "cistern/device/host.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cistern/core/report.hpp"
#include "cistern/core/size.hpp"
#include "device/cache_line.hpp"
#include "device/control_group.hpp"
#include "device/host_pages.hpp"
#include "device/host_residency.hpp"
#include "device/mapping.hpp"
#include "device/system_file.hpp"

namespace cistern {
namespace {

DeviceLimits host_limits() {
  return {.kind = "host",
          .name = "host memory",
          .total_memory = host_memory(),
          .max_allocation = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()),
          .alignment = cache_line,
          .max_alignment = std::size_t{1} << 30,
          .granularity = cache_line,
          .memory_is_address = true,
          .host_addressable = true};
}

}  // namespace

std::size_t host_memory() noexcept {
  const auto pages = static_cast<std::size_t>(std::max(sysconf(_SC_PHYS_PAGES), 1L));
  std::size_t bytes = pages * page_size();
  rlimit address_space{};
  if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY) {
    bytes = std::min<std::size_t>(bytes, address_space.rlim_cur);
  }
  return std::min(bytes, control_group_limit("/proc/self/cgroup", "/sys/fs/cgroup"));
}

std::size_t free_host_memory() noexcept {
  const std::optional<std::size_t> available =
      SystemFile("/proc/meminfo").number("MemAvailable:");  // in KiB
  return std::min(available.value_or(unbounded >> 10U) << 10U,
                  control_group_room("/proc/self/cgroup", "/sys/fs/cgroup"));
}

HostDevice::HostDevice(Options options)
    : Device(host_limits()),
      options_(options),
      pages_(std::make_unique<HostPages>(*this)),
      residency_(std::make_unique<HostResidency>(*this)) {
  if (options_.map_from == 0) throw std::invalid_argument("host: map_from is at least 1 byte");
}

PoolRegistry& HostDevice::registry() noexcept {
  // Nothing ends it: a stack may be closed as late as the program likes.
  static_assert(std::is_trivially_destructible_v<PoolRegistry>);
  static PoolRegistry registry;
  return registry;
}

// The system does not count what was given out and never touched.
std::size_t HostDevice::free_memory() const noexcept {
  return std::min(Device::free_memory(), free_host_memory());
}

HostDevice::~HostDevice() = default;

VirtualMemory* HostDevice::virtual_memory() noexcept {
  return pages_.get();
}

Residency* HostDevice::residency() noexcept {
  return residency_.get();
}

Expected<Device::Piece> HostDevice::obtain(std::size_t bytes, std::size_t alignment,
                                           Stream /*stream*/) noexcept {
  if (!is_mapped(bytes)) {
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment, bytes) != 0) {
      return tl::unexpected(fail(Errc::out_of_memory, bytes));
    }
    if (options_.zero) std::memset(memory, 0, bytes);
    return Piece{.memory = memory, .bytes = bytes, .alignment = alignment};
  }
  const std::optional<std::size_t> mapped = round_up(bytes, page_size());
  if (!mapped) return tl::unexpected(fail(Errc::too_large, bytes));
  const bool transparent = options_.huge_pages == HugePages::transparent && *mapped >= huge_page;
  void* memory = map_aligned(*mapped, transparent ? std::max(alignment, huge_page) : alignment);
  if (memory == nullptr) return tl::unexpected(fail(Errc::out_of_memory, bytes));
  // Advice that the system does not take is no failure.
  if (transparent) madvise(memory, *mapped, MADV_HUGEPAGE);
  if (options_.huge_pages == HugePages::never) madvise(memory, *mapped, MADV_NOHUGEPAGE);
  return Piece{.memory = memory, .bytes = *mapped, .alignment = alignment};
}

void HostDevice::give_back(Piece piece, Stream /*stream*/) noexcept {
  if (!is_mapped(piece.bytes)) {
    std::free(piece.memory);
  } else if (munmap(piece.memory, piece.bytes) != 0) {
    // The system had joined it with its neighbours and has no mapping left to split them: give at
    // least the pages back.
    madvise(piece.memory, piece.bytes, MADV_DONTNEED);
    report("host could not unmap %zu bytes; their pages are returned, their addresses are not",
           piece.bytes);
  }
}

}  // namespace cistern
