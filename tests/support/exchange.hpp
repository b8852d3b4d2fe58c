// A place where threads leave blocks for one another to free.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <optional>
#include <utility>

#include "cistern/core/block.hpp"

namespace cistern::testing {

class Exchange {
 public:
  std::optional<Block> swap(std::size_t slot, std::optional<Block> block) {
    const std::lock_guard lock(mutex_);
    std::swap(slots_[slot % slots_.size()], block);
    return block;
  }
  [[nodiscard]] std::size_t size() const { return slots_.size(); }

 private:
  std::mutex mutex_;
  std::array<std::optional<Block>, 64> slots_;
};

}  // namespace cistern::testing
