#include "trace/block_checker.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

namespace cistern::detail {

void BlockChecker::granted(const Request& request, const Block& block) {
  if (request.bytes == 0) {
    if (!block.empty()) fail(request, block, "zero bytes are answered with the empty block");
    return;
  }
  if (block.bytes < request.bytes) fail(request, block, "it is smaller than was requested");
  if (!is_aligned(block, std::max(request.alignment, limits_.alignment), limits_)) {
    fail(request, block, "it is not aligned");
  }
  const Place place = place_of(block);
  const std::uintptr_t end = place.start + block.bytes;
  if (!is_free(place, end)) fail(request, block, "it overlaps a live block");
  live_.insert_or_assign(place, end);
}

void BlockChecker::freed(const Block& block) {
  if (!block.empty()) live_.erase(place_of(block));
}

BlockChecker::Place BlockChecker::place_of(const Block& block) const noexcept {
  const auto memory = reinterpret_cast<std::uintptr_t>(block.memory);
  return limits_.memory_is_address ? Place{.object = 0, .start = memory + block.offset}
                                   : Place{.object = memory, .start = block.offset};
}

bool BlockChecker::is_free(const Place& place, std::uintptr_t end) const {
  const auto next = live_.lower_bound(place);
  if (next != live_.end() && next->first.object == place.object && next->first.start < end) {
    return false;
  }
  if (next == live_.begin()) return true;
  const auto& [before, before_end] = *std::prev(next);
  return before.object != place.object || before_end <= place.start;
}

void BlockChecker::fail(const Request& request, const Block& block, const char* what) {
  if (!error_.empty()) return;
  error_ =
      fmt::format("the block of {} bytes at {} + {}, for a request of {} bytes aligned to {}: {}",
                  block.bytes, block.memory, block.offset, request.bytes, request.alignment, what);
}

}  // namespace cistern::detail
