// A stage's record of a block that it handed out. It lives outside the memory it describes, because
// device memory may not be writable by the host, and as long as the stack, so that a stale handle
// can always be read and refused.
#pragma once

#include <atomic>
#include <cstdint>

#include "cistern/core/block.hpp"

namespace cistern {

class Resource;

struct Node {
  const Resource* owner = nullptr;
  std::atomic<std::uint64_t> generation{0};  // odd while its block is live

  [[nodiscard]] bool is_live() const noexcept {
    return (generation.load(std::memory_order_relaxed) & 1U) != 0;
  }

  /// True if `block` is the live block that `owner_asked` handed out with this node. (Generations
  /// that are handed out are odd, so that of an idle node is nobody's.)
  [[nodiscard]] bool names(const Block& block, const Resource* owner_asked) const noexcept {
    return owner == owner_asked && generation.load(std::memory_order_relaxed) == block.generation;
  }

  /// The node's owner calls these, under whatever guards the node.
  std::uint64_t begin_life() noexcept { return step(); }
  void end_life() noexcept { step(); }
  /// The same where nothing guards the node: false if another thread has ended that life.
  bool end_life(std::uint64_t life) noexcept {
    return generation.compare_exchange_strong(life, life + 1, std::memory_order_acq_rel,
                                              std::memory_order_relaxed);
  }
  std::uint64_t renew_life() noexcept {
    end_life();
    return begin_life();
  }

 private:
  std::uint64_t step() noexcept {
    const std::uint64_t next = generation.load(std::memory_order_relaxed) + 1;
    generation.store(next, std::memory_order_relaxed);
    return next;
  }
};

}  // namespace cistern
