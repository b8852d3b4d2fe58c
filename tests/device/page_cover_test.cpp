// Pages that several ranges cover, against a count for each page.
#include "device/page_cover.hpp"

#include <array>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/failing_new.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using Pieces = std::vector<std::pair<std::uintptr_t, std::uintptr_t>>;

Pieces covered(const PageCover& cover, std::uintptr_t begin, std::uintptr_t end,
               std::size_t times) {
  Pieces pieces;
  cover.each_covered(begin, end, times, [&](std::uintptr_t from, std::uintptr_t to) {
    pieces.emplace_back(from, to);
  });
  return pieces;
}

TEST(PageCover, NeighboursMayShareAPage) {
  PageCover cover;
  ASSERT_TRUE(cover.add(0, 3));
  ASSERT_TRUE(cover.add(2, 5));
  EXPECT_EQ(covered(cover, 2, 5, 1), (Pieces{{3, 5}}));
  EXPECT_EQ(covered(cover, 2, 5, 2), (Pieces{{2, 3}}));
  cover.remove(0, 3);
  EXPECT_EQ(covered(cover, 2, 5, 1), (Pieces{{2, 5}}));
  cover.remove(2, 5);
  EXPECT_TRUE(cover.empty());
}

TEST(PageCover, CountsLikeACountForEachPage) {
  constexpr std::size_t pages = 40;
  const std::uint64_t seed = testing::seed_or(7);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  PageCover cover;
  std::array<std::size_t, pages> counts{};
  Pieces ranges;
  for (int step = 0; step < 5000; ++step) {
    if (ranges.empty() || (ranges.size() < 12 && random.chance(50))) {
      const std::uintptr_t begin = random.below(pages - 1);
      const std::uintptr_t end = begin + 1 + random.below(pages - begin - 1);
      ASSERT_TRUE(cover.add(begin, end));
      ranges.emplace_back(begin, end);
      for (std::uintptr_t page = begin; page < end; ++page)
        ++counts[page];
    } else {
      const std::size_t index = random.below(ranges.size());
      const auto [begin, end] = ranges[index];
      ranges.erase(ranges.begin() + static_cast<std::ptrdiff_t>(index));
      const testing::FailingNew failing(1);
      cover.remove(begin, end);
      EXPECT_FALSE(testing::FailingNew::has_failed());
      for (std::uintptr_t page = begin; page < end; ++page)
        --counts[page];
    }
    for (const auto& [begin, end] : ranges) {
      for (std::size_t times = 1; times < 4; ++times) {
        std::array<bool, pages> found{};
        for (const auto& [from, to] : covered(cover, begin, end, times)) {
          for (std::uintptr_t page = from; page < to; ++page)
            found[page] = true;
        }
        for (std::uintptr_t page = begin; page < end; ++page)
          ASSERT_EQ(found[page], counts[page] == times);
      }
    }
  }
  for (const auto& [begin, end] : ranges)
    cover.remove(begin, end);
  EXPECT_TRUE(cover.empty());
}

TEST(PageCover, SurvivesAHostWithoutMemory) {
  for (int n = 1; n <= 2; ++n) {
    PageCover cover;
    ASSERT_TRUE(cover.add(0, 10));
    {
      const testing::FailingNew failing(n);
      EXPECT_FALSE(cover.add(3, 7));
    }
    EXPECT_EQ(covered(cover, 0, 10, 1), (Pieces{{0, 10}}));
    cover.remove(0, 10);
    EXPECT_TRUE(cover.empty());
  }
}

}  // namespace
}  // namespace cistern
