#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/plan/plan.hpp"
#include "plan/instances.hpp"
#include "plan/part.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using detail::Part;
using detail::partition;

constexpr std::uint64_t max_time = std::numeric_limits<std::uint64_t>::max();

TEST(PartitionTest, NothingHasNoParts) {
  EXPECT_TRUE(partition({}).empty());
}

TEST(PartitionTest, LeavesOutWhatIsEmptyInTimeOrBytes) {
  const std::vector<Lifetime> buffers{{3, 3, 10}, {1, 5, 0}, {2, 4, 7}};
  const auto parts = partition(buffers);
  ASSERT_EQ(parts.size(), 1U);
  EXPECT_EQ(parts[0].buffers, std::vector<std::uint32_t>{2});
}

TEST(PartitionTest, CutsTimeWhereNothingIsLive) {
  // 0-2 and 2-4 meet but do not overlap; 3-6 reaches over the end of the second.
  const std::vector<Lifetime> buffers{{2, 4, 5}, {0, 2, 3}, {3, 6, 4}, {9, max_time, 1}};
  const auto parts = partition(buffers);
  ASSERT_EQ(parts.size(), 3U);
  EXPECT_EQ(parts[0].buffers, std::vector<std::uint32_t>{1});
  EXPECT_EQ(parts[1].buffers, (std::vector<std::uint32_t>{2, 0}));  // the smaller first
  EXPECT_EQ(parts[2].buffers, std::vector<std::uint32_t>{3});
  EXPECT_EQ(parts[0].lower_bound, 3U);
  EXPECT_EQ(parts[1].lower_bound, 9U);
  EXPECT_EQ(parts[2].lower_bound, 1U);
}

TEST(PartitionTest, SectionsAreTheLargestSetsThatLiveTogether) {
  // Starts at 0, 1, 2 make one set; after the end at 3 a start at 4 makes the second.
  const std::vector<Lifetime> buffers{{0, 9, 1}, {1, 3, 2}, {2, 8, 4}, {4, 6, 8}};
  const auto parts = partition(buffers);
  ASSERT_EQ(parts.size(), 1U);
  const Part& part = parts[0];
  EXPECT_EQ(part.sections, 2U);
  EXPECT_EQ(part.covered, 6U);
  ASSERT_EQ(part.size(), 4U);
  EXPECT_EQ(part.buffers, (std::vector<std::uint32_t>{1, 0, 2, 3}));
  EXPECT_EQ(part.items[0].first, 0U);
  EXPECT_EQ(part.items[0].last, 1U);
  EXPECT_EQ(part.items[1].first, 0U);
  EXPECT_EQ(part.items[1].last, 2U);
  EXPECT_EQ(part.items[3].first, 1U);
  EXPECT_EQ(part.items[3].last, 2U);
  EXPECT_EQ(part.lower_bound, 13U);
}

TEST(PartitionTest, UnitDividesSizesAndAlignments) {
  EXPECT_EQ(partition(std::vector<Lifetime>{{0, 2, 24}, {1, 3, 36}})[0].unit, 12U);
  EXPECT_EQ(partition(std::vector<Lifetime>{{0, 2, 24, 8}, {1, 3, 36}})[0].unit, 4U);
}

TEST(PartitionTest, LowerBoundCountsThePaddingThatNoPlanCanAvoid) {
  // Two of the three lie below another one, which starts at a multiple of 16.
  const std::vector<Lifetime> buffers{{0, 2, 20, 16}, {0, 2, 17, 16}, {1, 3, 3, 32}};
  EXPECT_EQ(partition(buffers)[0].lower_bound, 20U + 17U + 3U + 12U + 15U + 13U - 15U);
}

TEST(PartitionTest, RefusesWhatIsNoLifetime) {
  EXPECT_THROW(partition(std::vector<Lifetime>{{5, 4, 1}}), std::invalid_argument);
  EXPECT_THROW(partition(std::vector<Lifetime>{{4, 4, 1, 0}}), std::invalid_argument);
  EXPECT_THROW(partition(std::vector<Lifetime>{{4, 5, 1, 24}}), std::invalid_argument);
  EXPECT_THROW(partition(std::vector<Lifetime>{{0, 2, max_time - 1}, {1, 3, 1}}),
               std::invalid_argument);
  EXPECT_EQ(partition(std::vector<Lifetime>{{0, 2, max_time - 1}, {2, 3, max_time - 1}}).size(),
            2U);
}

TEST(PartitionTest, ItemsConflictInSectionsAsTheirBuffersDoInTime) {
  const std::uint64_t seed = testing::seed_or(11);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  for (int run = 0; run < 300; ++run) {
    const auto buffers = testing::random_buffers(random, {.buffers = 12, .times = 14});
    std::size_t items = 0;
    std::size_t largest = 0;
    for (const Part& part : partition(buffers)) {
      items += part.size();
      largest = std::max(largest, part.lower_bound);
      for (std::uint32_t a = 0; a < part.size(); ++a) {
        EXPECT_LT(part.items[a].first, part.items[a].last);
        EXPECT_LE(part.items[a].last, part.sections);
        for (std::uint32_t b = 0; b < a; ++b) {
          const bool share =
              part.items[a].first < part.items[b].last && part.items[b].first < part.items[a].last;
          ASSERT_EQ(share, testing::conflict(buffers[part.buffers[a]], buffers[part.buffers[b]]));
        }
      }
    }
    EXPECT_EQ(items, buffers.size());
    EXPECT_EQ(largest, testing::most_live(buffers));
  }
}

TEST(PartitionTest, TheOrderOfTheBuffersIsNoMatter) {
  const std::uint64_t seed = testing::seed_or(14);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  for (int run = 0; run < 50; ++run) {
    const std::vector<Lifetime> buffers =
        testing::random_buffers(random, {.buffers = 40, .times = 30, .alignment_bits = 3});
    std::vector<Lifetime> reversed(buffers.rbegin(), buffers.rend());
    const PlanBudget budget{.steps = 2000};
    ASSERT_EQ(make_plan(buffers, budget).peak_bytes, make_plan(reversed, budget).peak_bytes);
    const auto parts = partition(buffers);
    const auto others = partition(reversed);
    ASSERT_EQ(parts.size(), others.size());
    for (std::size_t i = 0; i < parts.size(); ++i) {
      ASSERT_EQ(parts[i].size(), others[i].size());
      for (std::uint32_t item = 0; item < parts[i].size(); ++item) {
        EXPECT_EQ(parts[i].items[item].first, others[i].items[item].first);
        EXPECT_EQ(parts[i].items[item].last, others[i].items[item].last);
        EXPECT_EQ(parts[i].items[item].bytes, others[i].items[item].bytes);
        EXPECT_EQ(parts[i].items[item].alignment, others[i].items[item].alignment);
      }
    }
  }
}

}  // namespace
}  // namespace cistern
