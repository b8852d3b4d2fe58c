// What the stages that take a batch of requests as a whole share: its size, and the error of a
// batch that fails.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "cistern/core/block.hpp"
#include "cistern/core/error.hpp"
#include "cistern/core/size.hpp"

namespace cistern {

/// What the requests ask for in all; SIZE_MAX where the sum is beyond it.
[[nodiscard]] inline std::size_t bytes_of(std::span<const Request> requests) noexcept {
  std::size_t bytes = 0;
  for (const Request& request : requests)
    bytes = saturating_add(bytes, request.bytes);
  return bytes;
}

/// Leaves every block empty and returns the error of a batch whose request failed with `error`
/// while `rest` bytes were still to be asked for: so many more are missing as well.
[[nodiscard]] inline tl::unexpected<Error> fail_batch(std::span<Block> blocks, Error error,
                                                      std::size_t rest) noexcept {
  std::ranges::fill(blocks, Block{});
  if (error.is_exhaustion()) error.requested = saturating_add(error.requested, rest);
  return tl::unexpected(error);
}

}  // namespace cistern
