// A trace made ready for replay: what has to be done and nothing else, small and in order. Ids are
// replaced by slots that are used again after a free, so that the replay looks nothing up and its
// working set is what is live at one time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cistern/core/block.hpp"
#include "cistern/trace/event.hpp"

namespace cistern::detail {

/// One call to a stack.
struct Step {
  enum class Kind : std::uint8_t { allocate, free, cycle };

  std::uint64_t bytes = 0;  // requested; a free repeats it
  std::uint64_t stream = 0;
  std::uint32_t slot = 0;
  Kind kind = Kind::allocate;
  std::uint8_t alignment_bits = 0;  // 0 for the default, else one more than the power of two

  [[nodiscard]] Request request() const noexcept {
    return {.bytes = bytes,
            .alignment = alignment_bits == 0 ? 0 : std::size_t{1} << (alignment_bits - 1U),
            .stream = {.handle = nullptr, .id = stream}};
  }
};

struct Program {
  std::vector<Step> before;  // brings the blocks to life that were live before the first event
  std::vector<Step> steps;   // the events; a reset is a free for each live block
  std::vector<Step> after;   // frees what is live at the end
  std::size_t slots = 0;
};

/// `trace` must be lawful. O(events).
Program compile(const Trace& trace);

}  // namespace cistern::detail
