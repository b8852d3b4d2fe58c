#include "cistern/core/virtual_memory.hpp"

#include <bit>

#include "cistern/core/device.hpp"
#include "cistern/core/size.hpp"

namespace cistern {

Error VirtualMemory::fail(Errc code, std::size_t requested, std::size_t available) const noexcept {
  return device_.fail(code, requested, available);
}

Expected<AddressRange> VirtualMemory::reserve(std::size_t bytes, std::size_t page) noexcept {
  if (!std::has_single_bit(page) || page < page_sizes_.smallest || page > page_sizes_.largest) {
    return tl::unexpected(fail(Errc::bad_alignment, bytes));
  }
  const std::optional<std::size_t> whole = round_up(bytes, page);
  if (!whole || *whole == 0) return tl::unexpected(fail(Errc::too_large, bytes));
  return do_reserve(*whole, page);
}

Expected<void> VirtualMemory::map(const AddressRange& range, std::byte* start, std::size_t bytes,
                                  Stream stream) noexcept {
  Expected<void> mapped = do_map(range, start, bytes, stream);
  if (mapped) device_.count_mapped(bytes);
  return mapped;
}

void VirtualMemory::unmap(const AddressRange& range, std::byte* start, std::size_t bytes,
                          Stream stream) noexcept {
  do_unmap(range, start, bytes, stream);
  device_.count_unmapped(bytes);
}

}  // namespace cistern
