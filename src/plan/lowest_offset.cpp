#include "plan/lowest_offset.hpp"

#include <algorithm>

#include "plan/offset.hpp"

namespace cistern::detail {
namespace {

constexpr std::uint64_t looks_per_step = 16;  // at nodes of the index

}  // namespace

std::size_t LowestOffset::place(std::span<const std::uint32_t> order,
                                std::vector<std::size_t>& offsets, Effort& effort) {
  offsets.resize(part_.size());
  skyline_.clear();
  index_.fill(order);
  std::size_t peak = 0;
  for (std::uint32_t placed = 0; placed < part_.size();) {
    const Skyline::Niche niche = skyline_.lowest();
    const std::uint32_t rank = index_.first_within(niche.first, niche.last);
    effort.spend(1 + index_.take_looks() / looks_per_step);
    if (effort.is_spent()) return nowhere;
    if (rank == FitIndex::none) {
      skyline_.lift();
      continue;
    }
    const std::uint32_t item = order[rank];
    const Item& its = part_.items[item];
    offsets[item] = aligned(niche.height, its.alignment);
    const std::size_t end = end_of(offsets[item], its.bytes);
    skyline_.put(its.first, its.last, end);
    index_.erase(item);
    peak = std::max(peak, end);
    ++placed;
  }
  return peak;
}

}  // namespace cistern::detail
