#include "plan/fit_index.hpp"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

namespace cistern::detail {

FitIndex::FitIndex(const Part& part)
    : part_(part),
      leaves_(std::bit_ceil(part.size())),
      begins_(std::size_t{part.sections} + 1, 0),
      leaf_of_(part.size()),
      nodes_(std::size_t{2} * leaves_) {
  for (const Item& item : part.items)
    ++begins_[item.first + 1];
  std::partial_sum(begins_.begin(), begins_.end(), begins_.begin());
  std::vector<std::uint32_t> next(begins_.begin(), begins_.end() - 1);
  for (std::uint32_t item = 0; item < part.size(); ++item)
    leaf_of_[item] = next[part.items[item].first]++;
}

FitIndex::Node FitIndex::joined(const Node& a, const Node& b) noexcept {
  return {std::min(a.rank, b.rank), std::min(a.last, b.last)};
}

void FitIndex::fill(std::span<const std::uint32_t> order) {
  std::fill(nodes_.begin(), nodes_.end(), Node{});
  for (std::uint32_t rank = 0; rank < order.size(); ++rank) {
    const std::uint32_t item = order[rank];
    nodes_[leaves_ + leaf_of_[item]] = {rank, part_.items[item].last};
  }
  for (std::uint32_t node = leaves_ - 1; node > 0; --node)
    nodes_[node] = joined(nodes_[2 * node], nodes_[2 * node + 1]);
}

std::uint32_t FitIndex::first_within(std::uint32_t first, std::uint32_t last) {
  query_ = {begins_[first], begins_[last], last, none};
  search(1, 0, leaves_);
  return query_.best;
}

/// `node` covers the leaves from `begin` to `end`.
void FitIndex::search(std::uint32_t node, std::uint32_t begin, std::uint32_t end) noexcept {
  const Node& its = nodes_[node];
  ++looks_;
  if (end <= query_.begin || query_.end <= begin) return;
  if (its.last > query_.last || its.rank >= query_.best) return;
  if (node >= leaves_) {
    query_.best = its.rank;
    return;
  }
  const std::uint32_t left = 2 * node;
  const std::uint32_t middle = begin + (end - begin) / 2;
  if (nodes_[left].rank < nodes_[left + 1].rank) {
    search(left, begin, middle);
    search(left + 1, middle, end);
  } else {
    search(left + 1, middle, end);
    search(left, begin, middle);
  }
}

void FitIndex::erase(std::uint32_t item) {
  std::uint32_t node = leaves_ + leaf_of_[item];
  nodes_[node] = {};
  for (node /= 2; node > 0; node /= 2)
    nodes_[node] = joined(nodes_[2 * node], nodes_[2 * node + 1]);
}

std::uint64_t FitIndex::take_looks() noexcept {
  return std::exchange(looks_, 0);
}

}  // namespace cistern::detail
