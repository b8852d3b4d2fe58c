// Makes a stack go on from where a recorded run stood, and its simulated device hand out the
// recorded segments, so that a pool that places as the recorded one did returns the same addresses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cistern/core/block.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/restorable.hpp"
#include "cistern/stack/stack.hpp"
#include "cistern/trace/event.hpp"
#include "cistern/trace/recorded_layout.hpp"

namespace cistern::detail {

class Follower {
 public:
  /// Throws CannotFollow if the stack does not end in a simulated device, or if there is a state to
  /// begin with and its outermost stage is no pool that can be brought into it.
  Follower(const Trace& trace, const RecordedLayout& layout, Stack& stack);

  /// Brings the stack into the recorded state; the blocks are in the order of
  /// Trace::initial_blocks. Throws CannotFollow.
  [[nodiscard]] std::vector<Block> restore();

  /// Lets come and go what came and went before the event. Events are asked for in order.
  void reach(std::size_t event);

  /// The first event after those reached before which something changes.
  [[nodiscard]] std::size_t next_change() const noexcept;

  /// Segments that were handed out where they were recorded, those of the restored state included.
  [[nodiscard]] std::uint64_t followed() const noexcept { return device_->followed_calls(); }

 private:
  const Trace& trace_;
  const RecordedLayout& layout_;
  Resource& stack_;
  SimulatedDevice* device_;
  RestorablePool* pool_;
  std::size_t changes_ = 0;  // that were made
};

}  // namespace cistern::detail
