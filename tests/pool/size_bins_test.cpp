#include "cistern/pool/size_bins.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "support/seed.hpp"

namespace cistern {
namespace {

struct Element {
  std::size_t size = 0;
  BinLinks<Element> links;
};

using Bins = SizeBins<Element, &Element::links>;
constexpr std::size_t any_size = std::numeric_limits<std::size_t>::max();

TEST(SizeBins, FindTheSmallestThatFits) {
  std::vector<Element> elements(6);
  const std::vector<std::size_t> sizes = {1, 100, 1000, 1001, 4096, any_size};
  Bins bins;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    bins.put(&elements[i], sizes[i]);
  const auto at_least = [&](std::size_t size) {
    const Element* found =
        bins.find_up(size, any_size, [&](const Element& each) { return each.links.size >= size; });
    return found == nullptr ? 0 : found->links.size;
  };
  EXPECT_EQ(at_least(1), 1U);
  EXPECT_EQ(at_least(2), 100U);
  EXPECT_EQ(at_least(1000), 1000U);
  EXPECT_EQ(at_least(1001), 1001U);
  EXPECT_EQ(at_least(4097), any_size);
  EXPECT_EQ(bins.largest(), any_size);
  bins.remove(&elements[5]);
  EXPECT_EQ(at_least(4097), 0U);
  EXPECT_EQ(bins.largest(), 4096U);
  const auto all = [](const Element&) { return true; };
  EXPECT_EQ(bins.find_down(4000, all), &elements[3]);
  EXPECT_EQ(bins.find_down(0, all), nullptr);
  EXPECT_EQ(bins.find_up(5000, 6000, all), nullptr);
}

TEST(SizeBins, WhateverIsInThemIsFound) {
  const std::uint64_t seed = testing::seed_or(22);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  std::vector<std::unique_ptr<Element>> in;
  Bins bins;
  for (int step = 0; step < 5000; ++step) {
    if (in.empty() || random.chance(55)) {
      in.push_back(std::make_unique<Element>());
      in.back()->size = random.size(40);
      bins.put(in.back().get(), in.back()->size);
    } else {
      const std::size_t index = random.below(in.size());
      bins.remove(in[index].get());
      EXPECT_FALSE(Bins::has(in[index].get()));
      std::swap(in[index], in.back());
      in.pop_back();
    }
    ASSERT_EQ(bins.size(), in.size());
    const std::size_t asked = random.size(40);
    const Element* found =
        bins.find_up(asked, any_size, [&](const Element& each) { return each.size >= asked; });
    const bool there_is_more = std::any_of(
        in.begin(), in.end(), [&](const auto& each) { return each->size >= 2 * asked; });
    if (there_is_more) {
      ASSERT_NE(found, nullptr);
    }
    if (found != nullptr) {
      const std::size_t best = found->size;
      const auto is_much_better = [&](const auto& each) {
        return each->size >= asked + asked / 16 && each->size < best - best / 16;
      };
      ASSERT_TRUE(std::none_of(in.begin(), in.end(), is_much_better));
    }
  }
}

}  // namespace
}  // namespace cistern
