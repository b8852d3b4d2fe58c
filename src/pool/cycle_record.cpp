#include "cistern/pool/cycle_record.hpp"

#include <algorithm>
#include <bit>
#include <new>

namespace cistern {

std::uint32_t CycleRecord::add_allocation(const Request& request) noexcept {
  add({.kind = Kind::allocate,
       .alignment_bits = static_cast<std::uint8_t>(std::bit_width(request.alignment)),
       .allocation = allocations_,
       .stream = request.stream.id,
       .bytes = request.bytes});
  return allocations_++;
}

void CycleRecord::add_free(Kind kind, std::uint32_t allocation) noexcept {
  add({.kind = kind, .allocation = allocation});
}

void CycleRecord::add(const Event& event) noexcept try {
  if (!is_whole_) return;
  if (events_.size() == most_events) return give_up();
  events_.push_back(event);
} catch (const std::bad_alloc&) {
  give_up();
}

std::vector<std::size_t> CycleRecord::bytes() const {
  std::vector<std::size_t> all;
  all.reserve(allocations_);
  for (const Event& event : events_) {
    if (event.kind == Kind::allocate) all.push_back(event.bytes);
  }
  return all;
}

void CycleRecord::set_bytes(const std::vector<std::size_t>& bytes) noexcept {
  for (Event& event : events_) {
    if (event.kind == Kind::allocate) event.bytes = bytes[event.allocation];
  }
}

bool CycleRecord::is_like(const CycleRecord& other) const noexcept {
  return is_whole_ && other.is_whole_ && allocations_ > 0 &&
         std::ranges::equal(events_, other.events_,
                            [](const Event& a, const Event& b) { return a.is_like(b); });
}

}  // namespace cistern
