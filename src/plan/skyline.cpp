#include "plan/skyline.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "plan/offset.hpp"

namespace cistern::detail {

void Skyline::clear() {
  std::fill(lasts_.begin(), lasts_.end(), 0);
  heap_.clear();
  add(0, sections(), 0, 0);
}

void Skyline::put(std::uint32_t first, std::uint32_t last, std::size_t height) {
  const Niche niche = lowest();
  const std::uint32_t before = befores_[niche.first];
  lasts_[niche.first] = 0;
  add(first, last, first > niche.first ? niche.first : before, height);
  if (first > niche.first) add(niche.first, first, before, niche.height);
  if (niche.last > last) add(last, niche.last, first, niche.height);
  if (niche.last < sections()) befores_[niche.last] = niche.last > last ? last : first;
  settle();
}

void Skyline::lift() {
  Niche niche = lowest();
  const bool has_left = niche.first > 0;
  const bool has_right = niche.last < sections();
  const std::uint32_t left = befores_[niche.first];
  const std::size_t left_height = has_left ? heights_[left] : nowhere;
  const std::size_t right_height = has_right ? heights_[niche.last] : nowhere;
  niche.height = std::min(left_height, right_height);
  lasts_[niche.first] = 0;
  if (has_right && right_height == niche.height) niche.last = std::exchange(lasts_[niche.last], 0);
  std::uint32_t before = left;
  if (has_left && left_height == niche.height) {
    lasts_[left] = 0;
    niche.first = left;
    before = befores_[left];
  }
  add(niche.first, niche.last, before, niche.height);
  if (niche.last < sections()) befores_[niche.last] = niche.first;
  settle();
}

void Skyline::add(std::uint32_t first, std::uint32_t last, std::uint32_t before,
                  std::size_t height) {
  heights_[first] = height;
  lasts_[first] = last;
  befores_[first] = before;
  heap_.push_back({height, first});
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>{});
}

/// Drops the entries in front that are of no niche.
void Skyline::settle() {
  const auto is_gone = [&](const Entry& entry) {
    return lasts_[entry.first] == 0 || heights_[entry.first] != entry.height;
  };
  while (is_gone(heap_.front())) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>{});
    heap_.pop_back();
  }
}

}  // namespace cistern::detail
