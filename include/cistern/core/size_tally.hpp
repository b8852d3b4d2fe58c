// Counts bytes by the size of the blocks they are in, in a fixed place: for the out-of-memory
// report, which must not allocate. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "cistern/core/shortage.hpp"

namespace cistern {

class SizeTally {
 public:
  /// Adds a block of `size` bytes (not zero), live or idle. O(1). Beyond some hundreds of different
  /// sizes some are left out.
  void add(std::size_t size, bool is_live) noexcept {
    const std::uint64_t hash = (size * 0x9e3779b97f4a7c15U) >> 55U;
    for (std::size_t probe = 0; probe < longest_search; ++probe) {
      Shortage::Size& slot = slots_[(hash + probe) % slots_.size()];
      if (slot.bytes != 0 && slot.bytes != size) continue;
      slot.bytes = size;
      (is_live ? slot.live : slot.idle) += size;
      return;
    }
  }

  template <class Visit>
  void each(Visit&& visit) const {
    for (const Shortage::Size& slot : slots_) {
      if (slot.bytes != 0) visit(slot);
    }
  }

 private:
  static constexpr std::size_t longest_search = 32;

  std::array<Shortage::Size, 512> slots_{};
};

}  // namespace cistern
