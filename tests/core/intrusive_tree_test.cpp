#include "cistern/core/intrusive_tree.hpp"

#include <algorithm>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "support/seed.hpp"

namespace cistern {
namespace {

struct Item {
  int key = 0;
  int most_below = 0;  // in the tree that summarises
  TreeLinks<Item> links;
};

struct ByKey {
  static bool before(const Item& a, const Item& b) noexcept { return a.key < b.key; }
};
using Tree = IntrusiveTree<Item, &Item::links, ByKey>;

struct BySummary : ByKey {
  static void update(Item& item) noexcept;
};
using SummarisingTree = IntrusiveTree<Item, &Item::links, BySummary>;

int expected_below(const Item& item) {
  int most = item.key;
  for (const Item* side : {SummarisingTree::left(&item), SummarisingTree::right(&item)})
    if (side != nullptr) most = std::max(most, side->most_below);
  return most;
}
void BySummary::update(Item& item) noexcept {
  item.most_below = expected_below(item);
}

template <class AnyTree>
void expect_same_items(const AnyTree& tree, const std::set<int>& model) {
  std::vector<int> keys;
  tree.each([&](const Item& item) { keys.push_back(item.key); });
  ASSERT_EQ(keys, std::vector<int>(model.begin(), model.end()));
  ASSERT_EQ(tree.empty(), model.empty());
  ASSERT_EQ(tree.root() == nullptr, model.empty());
  const Item* first = tree.first();
  ASSERT_EQ(first != nullptr, !model.empty());
  if (first != nullptr) {
    ASSERT_EQ(first->key, *model.begin());
  }
}

void expect_summarised(const Tree& /*tree*/) {}
void expect_summarised(const SummarisingTree& tree) {
  tree.each([](const Item& item) { ASSERT_EQ(item.most_below, expected_below(item)); });
}

template <class AnyTree>
class IntrusiveTreeTest : public ::testing::Test {};
using Trees = ::testing::Types<Tree, SummarisingTree>;
TYPED_TEST_SUITE(IntrusiveTreeTest, Trees);

TYPED_TEST(IntrusiveTreeTest, IsASetInOrder) {
  for (std::uint64_t seed = testing::seed_or(1), end = seed + 20; seed < end; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    testing::Random random(seed);
    std::vector<Item> items(1 + random.below(200));
    for (std::size_t i = 0; i < items.size(); ++i)
      items[i].key = static_cast<int>(2 * (i * 101 % 199));  // not in the order of addresses
    std::vector<bool> is_in(items.size());
    TypeParam tree;
    std::set<int> model;
    for (int step = 0; step < 600; ++step) {
      const std::size_t i = random.below(items.size());
      if (!is_in[i] && model.contains(items[i].key)) continue;
      if (is_in[i]) {
        tree.erase(&items[i]);
        model.erase(items[i].key);
      } else {
        tree.insert(&items[i]);
        model.insert(items[i].key);
      }
      is_in[i] = !is_in[i];
      const int sought = static_cast<int>(random.below(400));
      const Item* found = tree.first_reached([&](const Item& item) { return item.key >= sought; });
      const auto expected = model.lower_bound(sought);
      ASSERT_EQ(found == nullptr, expected == model.end());
      if (found != nullptr) {
        ASSERT_EQ(found->key, *expected);
      }
      expect_same_items(tree, model);
      expect_summarised(tree);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

template <class AnyTree>
std::size_t depth(const Item* top) {
  if (top == nullptr) return 0;
  return 1 + std::max(depth<AnyTree>(AnyTree::left(top)), depth<AnyTree>(AnyTree::right(top)));
}

TYPED_TEST(IntrusiveTreeTest, StaysShallowWhenElementsComeInOrder) {
  std::vector<Item> items(10'000);
  TypeParam tree;
  for (std::size_t i = 0; i < items.size(); ++i) {
    items[i].key = static_cast<int>(i);
    tree.insert(&items[i]);
  }
  EXPECT_LT(depth<TypeParam>(tree.root()), 60U);
}

}  // namespace
}  // namespace cistern
