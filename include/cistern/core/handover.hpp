// What a pool does so that memory passes from stream to stream in order: the rules in
// `stream_order.hpp`, kept in one place. On a device without queues all of it comes to nothing.
// Guarded by the pool's lock; the waits are enqueued, not waited for, so that they may be made
// under it.
#pragma once

#include <cstddef>
#include <vector>

#include "cistern/core/block.hpp"
#include "cistern/core/stream_order.hpp"

namespace cistern {

class Handover {
 public:
  /// `order` is the device's, or null.
  explicit Handover(StreamOrder* order = nullptr) noexcept : order_(order) {}

  /// True if what was last used on `last` may be used on `next` as it is.
  [[nodiscard]] bool is_ready(Stream last, Stream next) const noexcept {
    return order_ == nullptr || !StreamOrder::needs_wait(last, next);
  }

  /// The same after `next` was made to wait, where it has to: false if it cannot be.
  [[nodiscard]] bool make_ready(Stream last, Stream next) const noexcept {
    return cistern::make_ready(order_, last, next);
  }

  /// The one that comes after both, or the first where none can.
  [[nodiscard]] Stream join(Stream first, Stream other) const noexcept {
    return cistern::join(order_, first, other).value_or(first);
  }

  /// Notes that a live block is used on `stream` as well. False if the host has no memory to.
  [[nodiscard]] bool add_use(const Node& block, Stream stream) noexcept;

  /// The block is freed. Answers the stream that comes after all its uses: `freed_on`, joined with
  /// the other streams that it was used on. Allocates nothing.
  [[nodiscard]] Stream end_uses(const Node& block, Stream freed_on) noexcept {
    if (uses_.empty()) [[likely]]
      return freed_on;
    return end_uses_if([&](const Node& other) { return &other == &block; }, freed_on);
  }
  /// The same for all blocks of which `ends` is true.
  template <class Ends>
  [[nodiscard]] Stream end_uses_if(Ends&& ends, Stream freed_on) noexcept {
    Stream last = freed_on;
    const auto is_over = [&](const Use& use) {
      if (!ends(*use.block)) return false;
      last = join(last, use.stream);
      return true;
    };
    std::erase_if(uses_, is_over);
    return last;
  }
  [[nodiscard]] bool has_uses() const noexcept { return !uses_.empty(); }

 private:
  struct Use {
    const Node* block = nullptr;
    Stream stream;
  };

  StreamOrder* order_;
  std::vector<Use> uses_;  // few: most blocks are used on one stream
};

}  // namespace cistern
