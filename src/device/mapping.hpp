// Anonymous memory straight from the operating system.
#pragma once

#include <cstddef>

namespace cistern {

inline constexpr std::size_t huge_page = std::size_t{2} << 20;

/// The system's smallest page.
std::size_t page_size() noexcept;

/// Maps `bytes`, a multiple of the page size, at `alignment`, readable and writable; the memory
/// itself comes when it is touched. Null if the system refuses.
void* map_aligned(std::size_t bytes, std::size_t alignment) noexcept;

}  // namespace cistern
