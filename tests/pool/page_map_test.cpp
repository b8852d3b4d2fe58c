#include "cistern/pool/page_map.hpp"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "support/seed.hpp"

namespace cistern {
namespace {

TEST(PageMap, AgreesWithAListOfFlags) {
  const std::uint64_t seed = testing::seed_or(21);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  constexpr std::size_t pages = 300;
  PageMap map(pages);
  std::vector<bool> flags(pages);
  const auto any_run = [&] {
    const std::size_t first = random.below(pages);
    return PageMap::Run{.first = first, .count = random.below(pages - first + 1)};
  };
  for (int step = 0; step < 3000; ++step) {
    const PageMap::Run changed = any_run();
    const bool mapped = random.chance(50);
    map.set(changed, mapped);
    std::fill_n(flags.begin() + static_cast<std::ptrdiff_t>(changed.first), changed.count, mapped);

    const PageMap::Run asked = any_run();
    const bool wanted = random.chance(50);
    const auto begin = flags.begin() + static_cast<std::ptrdiff_t>(asked.first);
    const auto end = begin + static_cast<std::ptrdiff_t>(asked.count);
    ASSERT_EQ(map.count(asked), static_cast<std::size_t>(std::count(begin, end, true)));
    const auto first = std::find(begin, end, wanted);
    const auto last = std::find(first, end, !wanted);
    const PageMap::Run found = map.find(asked, wanted);
    ASSERT_EQ(found.count, static_cast<std::size_t>(last - first));
    if (found.count > 0) {
      ASSERT_EQ(found.first, static_cast<std::size_t>(first - flags.begin()));
    }
  }
}

TEST(PageMap, NoPagesHoldNothing) {
  PageMap map(64);
  map.set({.first = 64, .count = 0}, true);
  EXPECT_EQ(map.count({.first = 0, .count = 64}), 0U);
  EXPECT_EQ(map.find({.first = 0, .count = 64}, true).count, 0U);
  EXPECT_EQ(map.find({.first = 64, .count = 0}, false).count, 0U);
}

}  // namespace
}  // namespace cistern
