// What a device with queues can do: make one stream wait for another, without the host waiting.
// Absent where `Device::stream_order` answers null: such a device has no queues, and all that was
// asked of it is done when the call returns.
//
// The rules of reuse, which every pool keeps:
//
//   - A block is requested for a stream, which may use it from then on, and freed on a stream: what
//     stands in that one is done before anyone else may touch the memory. Where it is another one
//     than the block was requested for, the program has made it wait for the first (as
//     cudaFreeAsync asks of it, too), or has said that the block is used on the first as well.
//   - Taken again on the stream it was freed on: at once, and for nothing, since the stream itself
//     is in order. A stream that runs out of order gets a barrier.
//   - Taken on another stream: that stream is made to wait, on the device, for all that stands in
//     the one that freed it. The wait is made when the block is taken, not when it is freed.
//   - A block that is used on other streams than the one that frees it is said to be
//     (`Resource::also_used_on`). The one that frees it is made to wait for the others. Where it
//     cannot be, as long as one of these is captured into a graph, the memory is taken for freed
//     on that one.
//   - Whoever reads or writes the memory with the host waits first (`synchronize`).
//   - A stream is retired before its queue is destroyed for good.
#pragma once

#include <optional>

#include "cistern/core/block.hpp"
#include "cistern/core/error.hpp"

namespace cistern {

/// Thread-safe.
class StreamOrder {
 public:
  StreamOrder(const StreamOrder&) = delete;
  StreamOrder& operator=(const StreamOrder&) = delete;
  StreamOrder(StreamOrder&&) = delete;
  StreamOrder& operator=(StreamOrder&&) = delete;

  /// True if what is enqueued in `next` may begin before what stands in `last` has ended.
  [[nodiscard]] static bool needs_wait(Stream last, Stream next) noexcept {
    return last.id != next.id || next.runs_out_of_order();
  }

  /// What is enqueued in `waiter` from now on begins after all that stands in `on` now has ended.
  /// Does not wait itself, and nothing happens where `on` was retired. The two may be the same. If
  /// the device cannot be made to wait, as where `waiter` was retired, the host waits. Error:
  /// device_failed, where neither can.
  Expected<void> wait(Stream waiter, Stream on) noexcept;

  /// The host waits until all that stands in `stream` now has ended. Error: device_failed.
  Expected<void> synchronize(Stream stream) noexcept { return do_synchronize(stream); }

  /// Waits for `stream` and forgets it: what was freed on it is free for all.
  void retire(Stream stream) noexcept { do_retire(stream); }

 protected:
  StreamOrder() = default;
  ~StreamOrder() = default;

  /// As the public ones; `do_wait` fails where `waiter` was retired.
  virtual Expected<void> do_wait(Stream waiter, Stream on) noexcept = 0;
  virtual Expected<void> do_synchronize(Stream stream) noexcept = 0;
  virtual void do_retire(Stream stream) noexcept = 0;
};

/// Memory that was last used on `last` goes to `next`, which is made to wait where it has to: false
/// if it cannot be. Without queues `order` is null, and nothing need wait.
[[nodiscard]] inline bool make_ready(StreamOrder* order, Stream last, Stream next) noexcept {
  return order == nullptr || !StreamOrder::needs_wait(last, next) ||
         order->wait(next, last).has_value();
}

/// The one of two streams that comes after all that stands in both: `first`, which is made to wait
/// for `other`; or where it cannot be, because `other` is captured into a graph, `other`, once the
/// host has waited for `first`. None where neither can: the device has failed, or both are captured
/// apart. The host waits wherever the caller stands, as it does in `StreamOrder::wait`.
[[nodiscard]] inline std::optional<Stream> join(StreamOrder* order, Stream first,
                                                Stream other) noexcept {
  if (order == nullptr || first.id == other.id || order->wait(first, other)) return first;
  if (order->synchronize(first)) return other;
  return std::nullopt;
}

}  // namespace cistern
