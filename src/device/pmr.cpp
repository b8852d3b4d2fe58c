#include "cistern/device/pmr.hpp"

#include <cstdint>
#include <limits>
#include <stdexcept>

#include "cistern/core/report.hpp"
#include "device/cache_line.hpp"

namespace cistern {
namespace {

DeviceLimits pmr_limits() {
  return {.kind = "pmr",
          .name = "a std::pmr::memory_resource",
          .total_memory = 0,
          .max_allocation = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()),
          .alignment = cache_line,
          .max_alignment = std::size_t{1} << 30,
          .granularity = cache_line,
          .memory_is_address = true,
          .host_addressable = true};
}

}  // namespace

PmrDevice::PmrDevice(std::pmr::memory_resource* memory) : Device(pmr_limits()), memory_(memory) {
  if (memory == nullptr) throw std::invalid_argument("pmr: the memory resource is null");
}

Expected<Device::Piece> PmrDevice::obtain(std::size_t bytes, std::size_t alignment,
                                          Stream stream) noexcept {
  Piece piece{.memory = nullptr, .bytes = bytes, .alignment = alignment};
  try {
    // Volatile: a compiler takes the standard's word that it is not null, and drops the test below.
    void* volatile memory = memory_->allocate(bytes, alignment);
    piece.memory = memory;
  } catch (const std::bad_alloc&) {
    return tl::unexpected(fail(Errc::out_of_memory, bytes));
  } catch (...) {
    return tl::unexpected(fail(Errc::device_failed, bytes));
  }
  // Not every memory resource in use keeps its word.
  const bool is_misaligned =
      (reinterpret_cast<std::uintptr_t>(piece.memory) & (alignment - 1)) != 0;
  if (piece.memory != nullptr && !is_misaligned) return piece;
  if (is_misaligned) give_back(piece, stream);
  return tl::unexpected(fail(Errc::device_failed, bytes));
}

void PmrDevice::give_back(Piece piece, Stream /*stream*/) noexcept {
  try {
    memory_->deallocate(piece.memory, piece.bytes, piece.alignment);
  } catch (...) {
    report("pmr: the memory resource threw while it took %zu bytes back", piece.bytes);
  }
}

}  // namespace cistern
