#include "cistern/plan/plan.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "plan/instances.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

constexpr std::size_t max_size = std::numeric_limits<std::size_t>::max();

Plan checked_plan(std::span<const Lifetime> buffers, const PlanBudget& budget) {
  Plan plan = make_plan(buffers, budget);
  EXPECT_EQ(validate(buffers, plan), "");
  return plan;
}

TEST(PlanTest, NothingNeedsNothing) {
  const Plan plan = checked_plan({}, {});
  EXPECT_EQ(plan.peak_bytes, 0U);
  EXPECT_TRUE(plan.proved_optimal);
}

TEST(PlanTest, EmptyBuffersNeedNothing) {
  const std::vector<Lifetime> buffers{{3, 3, 100}, {1, 9, 0, 64}, {0, 0, 0}};
  const Plan plan = checked_plan(buffers, {});
  EXPECT_EQ(plan.offsets.size(), 3U);
  EXPECT_EQ(plan.peak_bytes, 0U);
  EXPECT_TRUE(plan.proved_optimal);
}

TEST(PlanTest, BuffersThatMeetInTimeShareTheirMemory) {
  const std::vector<Lifetime> buffers{{0, 5, 10}, {5, 7, 10}, {7, 9, 10}};
  EXPECT_EQ(checked_plan(buffers, {}).peak_bytes, 10U);
}

TEST(PlanTest, IdenticalLifetimesAreStacked) {
  const std::vector<Lifetime> buffers(50, Lifetime{3, 9, 7});
  const Plan plan = checked_plan(buffers, {});
  EXPECT_EQ(plan.peak_bytes, 350U);
  EXPECT_TRUE(plan.proved_optimal);
}

TEST(PlanTest, ProvesAPeakAboveTheMostLiveBytes) {
  // Two of these start at a multiple of 8, so that the second leaves three bytes unused; only the
  // third fits in there.
  const std::vector<Lifetime> buffers{{0, 2, 5, 8}, {0, 2, 5, 8}, {0, 2, 1}, {1, 3, 4}};
  const Plan plan = checked_plan(buffers, {});
  EXPECT_TRUE(plan.proved_optimal);
  EXPECT_EQ(testing::most_live(buffers), 15U);
  EXPECT_EQ(testing::least_peak(buffers), 17U);
  EXPECT_EQ(plan.peak_bytes, 17U);
  EXPECT_EQ(plan.lower_bound_bytes, 17U);
}

TEST(PlanTest, StopsAtEnough) {
  testing::Random random(6);
  const auto buffers = testing::random_buffers(random, testing::hard);
  const Plan first = checked_plan(buffers, {.steps = 0});
  ASSERT_FALSE(first.proved_optimal);
  const Plan enough = checked_plan(buffers, {.enough_bytes = first.peak_bytes});
  EXPECT_EQ(enough.offsets, first.offsets);
  EXPECT_EQ(enough.steps, first.steps);
  const Plan better = checked_plan(buffers, {.enough_bytes = first.peak_bytes - 1});
  EXPECT_LT(better.peak_bytes, first.peak_bytes);
}

TEST(PlanTest, AFirstAnswerIsFoundWithoutABudget) {
  testing::Random random(7);
  const auto buffers =
      testing::random_buffers(random, {.buffers = 500, .times = 1000, .bytes = 1000});
  const Plan of_steps = checked_plan(buffers, {.steps = 0});
  EXPECT_EQ(checked_plan(buffers, {.seconds = 0}).offsets, of_steps.offsets);
  EXPECT_EQ(checked_plan(buffers, {.seconds = -1}).offsets, of_steps.offsets);
}

TEST(PlanTest, ABudgetOfStepsIsKeptAndRepeatsExactly) {
  const std::uint64_t seed = testing::seed_or(8);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  for (int run = 0; run < 10; ++run) {
    const auto buffers =
        testing::random_buffers(random, {.buffers = 80, .times = 60, .bytes = 10000});
    std::size_t last_peak = max_size;
    for (const std::uint64_t steps : {5'000U, 50'000U, 200'000U}) {
      const Plan plan = checked_plan(buffers, {.steps = steps});
      const Plan again = checked_plan(buffers, {.steps = steps});
      EXPECT_EQ(plan.offsets, again.offsets);
      EXPECT_EQ(plan.steps, again.steps);
      EXPECT_LT(plan.steps, steps + 10'000);
      EXPECT_LE(plan.peak_bytes, last_peak);
      last_peak = plan.peak_bytes;
    }
  }
}

TEST(PlanTest, RefusesWhatIsNoLifetime) {
  using Buffers = std::vector<Lifetime>;
  EXPECT_THROW(make_plan(Buffers{{2, 1, 1}}, {}), std::invalid_argument);
  EXPECT_THROW(make_plan(Buffers{{1, 2, 1, 3}}, {}), std::invalid_argument);
  EXPECT_THROW(make_plan(Buffers{{1, 2, 1, 0}}, {}), std::invalid_argument);
  EXPECT_THROW(make_plan(Buffers{{1, 3, max_size}, {2, 4, 1}}, {}), std::invalid_argument);
  EXPECT_THROW(make_plan(Buffers{{1, 3, max_size - 1}, {2, 4, 1, 2}, {2, 4, 1, 2}}, {}),
               std::invalid_argument);
}

TEST(PlanTest, RefusesWhatDoesNotFitForItsAlignment) {
  constexpr std::size_t half = max_size / 2 + 1;
  EXPECT_THROW(
      make_plan(std::vector<Lifetime>{{1, 3, half, half}, {1, 3, 1, half}, {1, 3, 1, half}},
                {.steps = 1000}),
      std::invalid_argument);
}

TEST(PlanTest, HugeSizesAndTimesAreNumbersLikeOthers) {
  constexpr std::size_t half = max_size / 2;
  const std::vector<Lifetime> buffers{{0, max_size, half},
                                      {max_size - 1, max_size, half},
                                      {5, max_size - 1, half - 9},
                                      {0, 5, 3, 2}};
  const Plan plan = checked_plan(buffers, {.steps = 100'000});
  EXPECT_EQ(plan.peak_bytes, max_size - 1);
  EXPECT_TRUE(plan.proved_optimal);
}

TEST(PlanTest, IsBetweenTheMostLiveBytesAndTheLeastPeak) {
  const std::uint64_t seed = testing::seed_or(9);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  int proved = 0;
  for (int run = 0; run < 300; ++run) {
    const testing::Shape shape{.buffers = 1 + random.below(7),
                               .times = 1 + random.below(10),
                               .bytes = 1 + random.below(30),
                               .alignment_bits = random.chance(50) ? 0U : 3U};
    const auto buffers = testing::random_buffers(random, shape);
    const Plan plan = checked_plan(buffers, {.steps = 1'000'000});
    const std::size_t least = testing::least_peak(buffers);
    ASSERT_LE(plan.lower_bound_bytes, least);
    ASSERT_GE(plan.peak_bytes, least);
    if (!plan.proved_optimal) continue;
    ++proved;
    ASSERT_EQ(plan.peak_bytes, least);
  }
  EXPECT_EQ(proved, 300);  // they are small
}

TEST(PlanTest, ManyShapesAreValidAndNearTheirLowerBound) {
  const std::uint64_t seed = testing::seed_or(10);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  for (int run = 0; run < 40; ++run) {
    const testing::Shape shape{.buffers = 1 + random.below(400),
                               .times = 1 + random.below(500),
                               .bytes = std::uint64_t{1} << random.below(40),
                               .alignment_bits = random.chance(50) ? 0U : 9U};
    const auto buffers = testing::random_buffers(random, shape);
    const Plan plan = checked_plan(buffers, {.steps = 20'000});
    ASSERT_GE(plan.lower_bound_bytes, testing::most_live(buffers));
    if (shape.alignment_bits == 0) {
      ASSERT_LE(static_cast<double>(plan.peak_bytes),
                1.3 * static_cast<double>(plan.lower_bound_bytes));
    }
  }
}

TEST(PlanTest, OnlyTheWorstPartIsSearched) {
  // A thousand small parts beside one that is hard.
  testing::Random random(12);
  auto buffers = testing::random_buffers(random, testing::hard);
  const Plan alone = checked_plan(buffers, {.steps = 50'000});
  for (std::uint64_t i = 0; i < 1000; ++i)
    buffers.push_back({1000 + i, 1001 + i, static_cast<std::size_t>(1 + i)});
  const Plan together = checked_plan(buffers, {.steps = 51'000 + 1'000});
  EXPECT_EQ(together.lower_bound_bytes, alone.lower_bound_bytes);
  EXPECT_LE(together.peak_bytes, alone.peak_bytes);
}

}  // namespace
}  // namespace cistern
