#include "plan/conflicts.hpp"

#include <algorithm>
#include <numeric>

namespace cistern::detail {
namespace {

// Calls `visit(item, other)` for each pair, `other` being the one that comes first by `first`.
template <class Visit>
void each_pair(const Part& part, Visit visit) {
  std::vector<std::uint32_t> by_first(part.size());
  std::iota(by_first.begin(), by_first.end(), std::uint32_t{0});
  std::stable_sort(by_first.begin(), by_first.end(), [&](std::uint32_t a, std::uint32_t b) {
    return part.items[a].first < part.items[b].first;
  });
  std::vector<std::uint32_t> live;
  for (const std::uint32_t item : by_first) {
    std::erase_if(live, [&](std::uint32_t other) {
      return part.items[other].last <= part.items[item].first;
    });
    for (const std::uint32_t other : live)
      visit(item, other);
    live.push_back(item);
  }
}

}  // namespace

std::uint64_t count_conflicts(const Part& part) {
  std::vector<std::int64_t> changes(std::size_t{part.sections} + 1, 0);  // of the live items
  std::vector<std::int64_t> starts(part.sections, 0);
  for (const Item& item : part.items) {
    ++starts[item.first];
    --changes[item.last];
  }
  std::uint64_t pairs = 0;
  std::int64_t live = 0;
  for (std::uint32_t section = 0; section < part.sections; ++section) {
    live += changes[section];
    const std::int64_t starting = starts[section];
    pairs += static_cast<std::uint64_t>(starting * live + starting * (starting - 1) / 2);
    live += starting;
  }
  return pairs;
}

Conflicts::Conflicts(const Part& part) : begins_(std::size_t{part.size()} + 1, 0) {
  each_pair(part, [&](std::uint32_t item, std::uint32_t other) {
    ++begins_[item + 1];
    ++begins_[other + 1];
  });
  std::partial_sum(begins_.begin(), begins_.end(), begins_.begin());
  others_.resize(begins_.back());
  std::vector<std::size_t> at(begins_.begin(), begins_.end() - 1);
  each_pair(part, [&](std::uint32_t item, std::uint32_t other) {
    others_[at[item]++] = other;
    others_[at[other]++] = item;
  });
}

}  // namespace cistern::detail
