#include "device/mapping.hpp"

#include <cstdint>
#include <optional>

#include <sys/mman.h>
#include <unistd.h>

#include "cistern/core/size.hpp"

namespace cistern {

std::size_t page_size() noexcept {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

// More is mapped where needed, and the rest cut off.
void* map_aligned(std::size_t bytes, std::size_t alignment) noexcept {
  const std::size_t slack = alignment > page_size() ? alignment - page_size() : 0;
  const std::optional<std::size_t> mapped = checked_add(bytes, slack);
  if (!mapped) return nullptr;
  void* memory = mmap(nullptr, *mapped, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  if (slack == 0) return memory;
  const auto start = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t aligned = (start + alignment - 1) & ~(alignment - 1);
  const std::size_t head = aligned - start;
  const std::size_t tail = slack - head;
  bool cut = head == 0 || munmap(memory, head) == 0;
  auto* piece = static_cast<std::byte*>(memory) + head;
  cut = cut && (tail == 0 || munmap(piece + bytes, tail) == 0);
  if (cut) return piece;
  munmap(memory, *mapped);  // too many mappings: unmapping all of it again needs no new one
  return nullptr;
}

}  // namespace cistern
