// What is planned: buffers whose sizes and lives are known in advance.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cistern {

/// A buffer that is live from `lower` up to, but not including, `upper`: two buffers may share
/// memory if one's `upper` is at most the other's `lower`. Times are any numbers that order the
/// events. One that is empty in time or in bytes is placed anywhere and disturbs nobody.
struct Lifetime {
  std::uint64_t lower = 0;
  std::uint64_t upper = 0;
  std::size_t bytes = 0;
  std::size_t alignment = 1;  // of the offset; a power of two

  friend bool operator==(const Lifetime&, const Lifetime&) = default;
};

}  // namespace cistern
