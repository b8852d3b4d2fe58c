// Which of the items that are not placed yet goes into a niche: the first in the order of those
// that lie within it. A binary tree over the items by their first section knows of each subtree the
// first in the order and the earliest end, and is searched where both promise more than what was
// found. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "plan/part.hpp"

namespace cistern::detail {

class FitIndex {
 public:
  explicit FitIndex(const Part& part);

  /// All items, the one that goes first at the front. O(n).
  void fill(std::span<const std::uint32_t> order);

  /// The rank in the order of the first item that lies within the sections from `first` up to, but
  /// not including, `last`; none if none does. Looks at O(log n) nodes of the tree, and at those of
  /// items that start within these sections and could have gone first, but end too late.
  [[nodiscard]] std::uint32_t first_within(std::uint32_t first, std::uint32_t last);
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  /// O(log n).
  void erase(std::uint32_t item);

  /// At nodes, since this was asked last.
  [[nodiscard]] std::uint64_t take_looks() noexcept;

 private:
  struct Node {
    std::uint32_t rank = none;
    std::uint32_t last = none;
  };

  [[nodiscard]] static Node joined(const Node& a, const Node& b) noexcept;
  void search(std::uint32_t node, std::uint32_t begin, std::uint32_t end) noexcept;

  struct Query {
    std::uint32_t begin = 0;  // of the leaves
    std::uint32_t end = 0;
    std::uint32_t last = 0;
    std::uint32_t best = none;
  };

  const Part& part_;
  std::uint32_t leaves_;
  std::vector<std::uint32_t> begins_;   // by section: the first leaf of an item that starts there
  std::vector<std::uint32_t> leaf_of_;  // by item
  std::vector<Node> nodes_;             // the root is 1; below i are 2 i and 2 i + 1
  Query query_;
  std::uint64_t looks_ = 0;
};

}  // namespace cistern::detail
