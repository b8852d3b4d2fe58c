// Which items share a section with which: what the searches that look at pairs need. There can be
// as many pairs as half the square of the items, so they are counted before they are listed. Not
// changed once made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "plan/part.hpp"

namespace cistern::detail {

/// How many pairs there are. O(n).
[[nodiscard]] std::uint64_t count_conflicts(const Part& part);

class Conflicts {
 public:
  /// O(n log n + pairs).
  explicit Conflicts(const Part& part);

  [[nodiscard]] std::span<const std::uint32_t> of(std::uint32_t item) const noexcept {
    return std::span(others_).subspan(begins_[item], begins_[item + 1] - begins_[item]);
  }

 private:
  std::vector<std::size_t> begins_;
  std::vector<std::uint32_t> others_;
};

}  // namespace cistern::detail
