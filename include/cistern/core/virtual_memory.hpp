// What a device can do that keeps addresses and memory apart: a range of addresses costs nothing
// until pages of it are mapped, and pages that are unmapped leave the addresses in place. Absent
// where `Device::virtual_memory` answers null.
//
// Thread-safe: calls on different pages may come from any number of threads at once.
#pragma once

#include <cstddef>

#include "cistern/core/block.hpp"
#include "cistern/core/error.hpp"

namespace cistern {

class Device;

/// Addresses reserved for `bytes`, a multiple of `page`, and aligned to it.
struct AddressRange {
  std::byte* start = nullptr;
  std::size_t bytes = 0;
  std::size_t page = 0;  // what is mapped and unmapped there are whole pages of this size
};

class VirtualMemory {
 public:
  /// The page sizes that a range can have: powers of two from the smallest to the largest.
  struct PageSizes {
    std::size_t smallest = 0;
    std::size_t largest = 0;
  };

  VirtualMemory(const VirtualMemory&) = delete;
  VirtualMemory& operator=(const VirtualMemory&) = delete;
  VirtualMemory(VirtualMemory&&) = delete;
  VirtualMemory& operator=(VirtualMemory&&) = delete;

  [[nodiscard]] PageSizes page_sizes() const noexcept { return page_sizes_; }

  /// Reserves addresses for `bytes`, rounded up to pages of `page` bytes. No memory is obtained,
  /// and nothing is counted. The device must not be let go of before the range is released. Errors:
  /// bad_alignment where there are no pages of that size, too_large, out_of_memory where addresses
  /// have run out, device_failed.
  [[nodiscard]] Expected<AddressRange> reserve(std::size_t bytes, std::size_t page) noexcept;

  /// Gives the addresses back. No page of the range is mapped any more.
  void release(const AddressRange& range) noexcept { do_release(range); }

  /// Puts memory behind `bytes` at `start`, whole pages of `range` that are not mapped, however
  /// many, in one call. Afterwards they can be touched without fail; on failure none of them is
  /// mapped. What is in them is not specified. Counts as a device allocation, the bytes as
  /// reserved. `stream` is that of the request. Errors: out_of_memory, device_failed, in_capture.
  Expected<void> map(const AddressRange& range, std::byte* start, std::size_t bytes,
                     Stream stream = {}) noexcept;

  /// Takes the memory behind whole pages of `range` away, all of which are mapped, once the device
  /// is done with what stands in `stream`. Counts as a device free.
  void unmap(const AddressRange& range, std::byte* start, std::size_t bytes,
             Stream stream) noexcept;

 protected:
  VirtualMemory(Device& device, PageSizes page_sizes) noexcept
      : device_(device), page_sizes_(page_sizes) {}
  ~VirtualMemory() = default;

  [[nodiscard]] Error fail(Errc code, std::size_t requested,
                           std::size_t available = 0) const noexcept;

  /// As the public ones, which check sizes and count; called outside every lock of theirs. The
  /// page size is one of those stated, and `bytes` a multiple of it, not zero.
  virtual Expected<AddressRange> do_reserve(std::size_t bytes, std::size_t page) noexcept = 0;
  virtual void do_release(const AddressRange& range) noexcept = 0;
  virtual Expected<void> do_map(const AddressRange& range, std::byte* start, std::size_t bytes,
                                Stream stream) noexcept = 0;
  virtual void do_unmap(const AddressRange& range, std::byte* start, std::size_t bytes,
                        Stream stream) noexcept = 0;

 private:
  Device& device_;
  const PageSizes page_sizes_;
};

}  // namespace cistern
