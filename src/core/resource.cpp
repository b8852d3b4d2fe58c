#include "cistern/core/resource.hpp"

#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"
#include "cistern/core/size.hpp"

namespace cistern {

Expected<Block> Resource::try_grow(const Block& /*block*/, std::size_t bytes) noexcept {
  return tl::unexpected(
      Error{.code = Errc::cannot_grow, .stage = device().limits().kind, .requested = bytes});
}

std::size_t Resource::trim(std::size_t keep_bytes) noexcept {
  const std::size_t before = stats().reserved.current;
  trim_to(keep_bytes);
  return saturating_subtract(before, stats().reserved.current);
}

void Resource::release() noexcept {
  if (owners_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  const Outstanding out = outstanding();
  if (out.blocks > 0) {
    report(
        "a stack on %s was closed with blocks still out: %zu, of %zu bytes in all, the largest of "
        "%zu",
        device().limits().kind, out.blocks, out.bytes, out.largest);
  }
  abandoned();
}

bool Resource::refuse_free(const char* stage, const Block& block) noexcept {
  report("%s refused to free a block of %zu bytes: freed before, or not this resource's", stage,
         block.bytes);
  return false;
}

}  // namespace cistern
