// What the search works on. Only the instants at which the most buffers live together can lie
// above one another, so time is cut into sections, each a largest set of buffers that live
// together: a buffer covers a run of them, and two buffers conflict if they share one. A stretch of
// time that no buffer reaches into or out of is a part of its own, planned as if it were alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cistern/plan/lifetime.hpp"

namespace cistern::detail {

/// A buffer; it covers the sections from `first` up to, but not including, `last`.
struct Item {
  std::size_t bytes = 0;
  std::size_t alignment = 1;
  std::uint32_t first = 0;
  std::uint32_t last = 0;
};

struct Part {
  std::vector<Item> items;
  std::vector<std::uint32_t> buffers;  // that the items are, by their place in what was asked for
  std::uint32_t sections = 0;
  std::size_t lower_bound = 0;  // of its peak
  std::size_t unit = 1;         // divides every size and alignment, and so every useful peak
  std::uint64_t covered = 0;    // sections, by all items together

  [[nodiscard]] std::uint32_t size() const noexcept {
    return static_cast<std::uint32_t>(items.size());
  }
};

/// Without the buffers that are empty in time or bytes. Throws what make_plan() does.
/// O(n log n).
[[nodiscard]] std::vector<Part> partition(std::span<const Lifetime> buffers);

}  // namespace cistern::detail
