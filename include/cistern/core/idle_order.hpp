// The order of idle memory for a pool that does not know which stream used which part of it: all
// of it is taken for used by all the streams that have freed since. A stream that frees and takes
// alone never waits. Guarded by the pool's lock.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "cistern/core/block.hpp"
#include "cistern/core/error.hpp"
#include "cistern/core/stream_order.hpp"

namespace cistern {

class IdleOrder {
 public:
  /// `order` is the device's, or null.
  explicit IdleOrder(StreamOrder* order) noexcept : order_(order) {}

  /// Allocates nothing: where many streams free, one waits for the others. They can be captured
  /// into at most eight graphs at a time.
  void note_free(Stream stream) noexcept;

  /// Idle memory goes to `stream`, which is made to wait for those that have used it. Errors: those
  /// of `StreamOrder::wait`, where it cannot be.
  [[nodiscard]] Expected<void> make_ready(Stream stream) noexcept;

  /// A stream that comes after all that has used idle memory; it is joined with the others. Where
  /// that cannot be, one that cannot be waited for either, as long as it is so.
  [[nodiscard]] Stream gather() noexcept;

 private:
  [[nodiscard]] std::span<const Stream> freed_on() const noexcept {
    return std::span(freed_on_).first(size_);
  }

  /// With one of the first so many; false if it can be joined with none of them.
  bool join_with_first(std::size_t number, Stream stream) noexcept;

  StreamOrder* order_;
  std::array<Stream, 8> freed_on_{};
  std::size_t size_ = 0;
};

}  // namespace cistern
