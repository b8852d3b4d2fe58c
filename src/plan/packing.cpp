#include "plan/packing.hpp"

#include <algorithm>
#include <utility>

#include "plan/offset.hpp"

namespace cistern::detail {

Packing::Packing(const Part& part)
    : part_(part),
      conflicts_(part),
      next_(std::size_t{part.size()} + 1),
      previous_(std::size_t{part.size()} + 1),
      sections_(part.sections),
      members_(part.covered) {
  for (const Item& item : part.items) {
    for (std::uint32_t index = item.first; index < item.last; ++index)
      ++sections_[index].count;
  }
  std::uint32_t begin = 0;
  for (Section& section : sections_) {
    section.begin = begin;
    begin += std::exchange(section.count, 0);
  }
}

Packing::Outcome Packing::attempt(std::size_t capacity, std::span<const std::uint32_t> order,
                                  std::uint64_t dead_ends, Effort& effort) {
  if (capacity < part_.lower_bound) return Outcome::impossible;
  reset(capacity, order);
  if (!propagate()) return Outcome::impossible;
  while (decisions_.size() < part_.size()) {
    const std::uint32_t item = lowest_of_all();
    bool goes_on = is_supported_[item] ? place_lowest(item) : place_higher(item);
    while (!goes_on) {
      ++dead_ends_;
      if (decisions_.empty()) return Outcome::impossible;
      const Decision decision = decisions_.back();  // a copy: it goes
      undo(decision);
      goes_on = place_higher(decision.item);
      effort.spend(std::exchange(looks_, 0));
    }
    effort.spend(std::exchange(looks_, 0) + part_.size() / 64 + 1);
    if (dead_ends_ >= dead_ends || effort.is_spent()) return Outcome::gave_up;
  }
  return Outcome::packed;
}

const std::vector<double>& Packing::trouble() {
  const double most = *std::max_element(trouble_.begin(), trouble_.end());
  if (most > 0) {
    for (double& trouble : trouble_)
      trouble /= most;
  }
  return trouble_;
}

void Packing::reset(std::size_t capacity, std::span<const std::uint32_t> order) {
  capacity_ = capacity;
  dead_ends_ = 0;
  places_.clear();
  for (std::uint32_t item = 0; item < part_.size(); ++item)
    places_.push_back(place_at(item, 0));
  is_supported_.assign(part_.size(), 1);
  is_placed_.assign(part_.size(), 0);
  trouble_.assign(part_.size(), 0);
  decisions_.clear();
  raises_.clear();
  bounds_.clear();

  std::uint32_t last = part_.size();
  for (const std::uint32_t item : order) {
    next_[last] = item;
    previous_[item] = last;
    last = item;
  }
  next_[last] = part_.size();
  previous_[part_.size()] = last;

  for (Section& section : sections_)
    section = {.begin = section.begin};
  for (std::uint32_t item = 0; item < part_.size(); ++item) {
    const Item& its = part_.items[item];
    for (std::uint32_t index = its.first; index < its.last; ++index) {
      Section& section = sections_[index];
      members_[section.begin + section.count++] = item;
      section.bytes += its.bytes;
    }
  }
  queue_.clear();
  for (std::uint32_t index = 0; index < part_.sections; ++index)
    queue(index);
}

/// The first one in the order, of those that can be placed equally low.
std::uint32_t Packing::lowest_of_all() const noexcept {
  const std::uint32_t head = part_.size();
  std::uint32_t best = next_[head];
  for (std::uint32_t item = next_[best]; item != head; item = next_[item]) {
    if (places_[item].lowest < places_[best].lowest) best = item;
  }
  return best;
}

Packing::Place Packing::place_at(std::uint32_t item, std::size_t offset) const noexcept {
  return {.lowest = offset, .end = end_of(offset, part_.items[item].bytes)};
}

std::vector<std::size_t> Packing::offsets() const {
  std::vector<std::size_t> offsets;
  offsets.reserve(places_.size());
  for (const Place& place : places_)
    offsets.push_back(place.lowest);
  return offsets;
}

bool Packing::place_lowest(std::uint32_t item) {
  decisions_.push_back({item, raises_.size(), bounds_.size()});
  take_out(item);
  const std::size_t end = places_[item].end;
  for (const std::uint32_t other : conflicts_.of(item)) {
    if (!is_placed_[other]) raise(other, end, true);
  }
  return propagate();
}

/// In a plan in which no buffer could sink, `item` lies higher than its lowest offset only on top
/// of another that would be in its way there. All that are placed are too low for that.
bool Packing::place_higher(std::uint32_t item) {
  const std::size_t end = places_[item].end;
  std::size_t first_end = nowhere;
  for (const std::uint32_t other : conflicts_.of(item)) {
    if (!is_placed_[other] && places_[other].lowest < end)
      first_end = std::min(first_end, places_[other].end);
  }
  if (first_end == nowhere) return false;
  raise(item, first_end, false);
  return propagate();
}

bool Packing::propagate() {
  most_looks_ = looks_ + looks_per_section * part_.sections;
  for (std::size_t at = 0; at < queue_.size(); ++at) {
    sections_[queue_[at]].is_queued = false;
    if (look_at(queue_[at])) continue;
    for (; at < queue_.size(); ++at)
      sections_[queue_[at]].is_queued = false;
    queue_.clear();
    return false;
  }
  queue_.clear();
  return true;
}

bool Packing::look_at(std::uint32_t index) {
  Section& section = sections_[index];
  ++looks_;
  const std::span members = std::span(members_).subspan(section.begin, section.count);
  std::size_t floor = nowhere;
  std::size_t highest = 0;  // of the lowest offsets
  std::size_t highest_end = 0;
  std::size_t first_end = nowhere;
  std::size_t second_end = nowhere;
  std::uint32_t first_to_end = 0;
  for (const std::uint32_t item : members) {
    const auto [lowest, end] = places_[item];
    floor = std::min(floor, lowest);
    highest = std::max(highest, lowest);
    highest_end = std::max(highest_end, end);
    if (end < first_end) {
      second_end = std::exchange(first_end, end);
      first_to_end = item;
    } else {
      second_end = std::min(second_end, end);
    }
  }
  if (floor != section.floor || second_end != section.second_end) {
    bounds_.push_back({index, section.floor, section.second_end});
    section.floor = floor;
    section.second_end = second_end;
  }
  if (members.empty()) return true;

  const std::size_t room = capacity_ - section.bytes;
  bool goes_on = floor <= room && highest_end <= capacity_;
  const bool may_raise = highest > room && looks_ < most_looks_;
  for (const std::uint32_t item : members) {
    if (!goes_on || !may_raise) break;
    if (places_[item].lowest <= room) continue;  // all others would fit above it
    const std::size_t end = item == first_to_end ? second_end : first_end;
    goes_on = end != nowhere;
    if (goes_on) raise(item, end, false);
  }
  if (!goes_on) {
    for (const std::uint32_t item : members)
      trouble_[item] += 1;
  }
  return goes_on;
}

/// Queues the sections in which that may make a difference.
void Packing::set_lowest(std::uint32_t item, std::size_t raised, bool by_placed) {
  const Item& its = part_.items[item];
  const auto [lowest, end] = places_[item];
  raises_.push_back({item, is_supported_[item] != 0, lowest});
  is_supported_[item] = by_placed ? 1 : 0;
  if (raised == lowest) return;
  places_[item] = place_at(item, raised);
  for (std::uint32_t index = its.first; index < its.last; ++index) {
    const Section& section = sections_[index];
    if (lowest == section.floor || end <= section.second_end || raised > capacity_ - section.bytes)
      queue(index);
  }
}

void Packing::queue(std::uint32_t index) {
  if (std::exchange(sections_[index].is_queued, true)) return;
  queue_.push_back(index);
}

void Packing::take_out(std::uint32_t item) {
  const Item& its = part_.items[item];
  is_placed_[item] = 1;
  next_[previous_[item]] = next_[item];
  previous_[next_[item]] = previous_[item];
  for (std::uint32_t index = its.first; index < its.last; ++index) {
    Section& section = sections_[index];
    const auto begin = members_.begin() + section.begin;
    --section.count;
    section.bytes -= its.bytes;
    std::iter_swap(std::find(begin, begin + section.count, item), begin + section.count);
    queue(index);
  }
}

/// The item that was taken out last of those that are not back.
void Packing::put_back(std::uint32_t item) {
  const Item& its = part_.items[item];
  is_placed_[item] = 0;
  next_[previous_[item]] = item;
  previous_[next_[item]] = item;
  for (std::uint32_t index = its.first; index < its.last; ++index) {
    ++sections_[index].count;
    sections_[index].bytes += its.bytes;
  }
}

/// The last decision.
void Packing::undo(const Decision& decision) {
  for (; raises_.size() > decision.raises; raises_.pop_back()) {
    const Raise& raise = raises_.back();
    places_[raise.item] = place_at(raise.item, raise.lowest);
    is_supported_[raise.item] = raise.was_supported ? 1 : 0;
  }
  for (; bounds_.size() > decision.bounds; bounds_.pop_back()) {
    const Bound& bound = bounds_.back();
    sections_[bound.section].floor = bound.floor;
    sections_[bound.section].second_end = bound.second_end;
  }
  put_back(decision.item);
  decisions_.pop_back();
}

}  // namespace cistern::detail
