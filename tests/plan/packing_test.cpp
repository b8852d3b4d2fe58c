// The exact search against trying everything.
#include "plan/packing.hpp"

#include <cstdint>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/plan/plan.hpp"
#include "plan/instances.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using detail::Packing;

constexpr std::uint64_t endless = ~std::uint64_t{0};

std::vector<std::uint32_t> plain_order(const detail::Part& part) {
  std::vector<std::uint32_t> order(part.size());
  std::iota(order.begin(), order.end(), std::uint32_t{0});
  return order;
}

void compare_with_all_orders(const testing::Shape& shape, std::uint64_t seed) {
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  for (int run = 0; run < 250; ++run) {
    const auto buffers = testing::random_buffers(random, shape);
    const auto parts = detail::partition(buffers);
    if (parts.size() != 1) continue;
    const std::size_t least = testing::least_peak(buffers);
    ASSERT_LE(parts[0].lower_bound, least);
    ASSERT_EQ(least % parts[0].unit, 0U);
    Packing packing(parts[0]);
    detail::Effort effort{PlanBudget{}};
    const auto order = plain_order(parts[0]);
    if (least > parts[0].lower_bound) {
      ASSERT_EQ(packing.attempt(least - 1, order, endless, effort), Packing::Outcome::impossible);
    }
    for (const std::size_t capacity : {least, least + 1, 2 * least}) {
      ASSERT_EQ(packing.attempt(capacity, order, endless, effort), Packing::Outcome::packed);
      Plan plan{.offsets = std::vector<std::size_t>(buffers.size()),
                .peak_bytes = 0,
                .lower_bound_bytes = testing::most_live(buffers)};
      for (std::uint32_t item = 0; item < parts[0].size(); ++item) {
        const std::uint32_t buffer = parts[0].buffers[item];
        plan.offsets[buffer] = packing.offsets()[item];
        plan.peak_bytes =
            std::max(plan.peak_bytes, packing.offsets()[item] + buffers[buffer].bytes);
      }
      plan.proved_optimal = plan.peak_bytes == plan.lower_bound_bytes;
      ASSERT_EQ(validate(buffers, plan), "");
      ASSERT_LE(plan.peak_bytes, capacity);
    }
  }
}

TEST(PackingTest, PacksIntoTheLeastPeakAndProvesThatLessIsImpossible) {
  compare_with_all_orders({.buffers = 7, .times = 6, .bytes = 9}, testing::seed_or(21));
}

TEST(PackingTest, PacksAlignedBuffersIntoTheLeastPeak) {
  compare_with_all_orders({.buffers = 6, .times = 5, .bytes = 20, .alignment_bits = 4},
                          testing::seed_or(22));
}

TEST(PackingTest, GivesUpAfterSoManyDeadEndsAndNamesWhoWasStuck) {
  testing::Random random(3);
  const auto buffers = testing::random_buffers(random, testing::hard);
  const auto parts = detail::partition(buffers);
  ASSERT_EQ(parts.size(), 1U);
  Packing packing(parts[0]);
  detail::Effort effort{PlanBudget{}};
  ASSERT_EQ(packing.attempt(parts[0].lower_bound, plain_order(parts[0]), 1, effort),
            Packing::Outcome::gave_up);
  const auto& trouble = packing.trouble();
  EXPECT_EQ(*std::max_element(trouble.begin(), trouble.end()), 1);
  EXPECT_EQ(*std::min_element(trouble.begin(), trouble.end()), 0);
}

TEST(PackingTest, StopsWhenTheEffortIsSpent) {
  testing::Random random(3);
  const auto buffers = testing::random_buffers(random, testing::hard);
  const auto parts = detail::partition(buffers);
  Packing packing(parts[0]);
  detail::Effort effort{PlanBudget{.steps = 5}};
  EXPECT_EQ(packing.attempt(2 * parts[0].lower_bound, plain_order(parts[0]), endless, effort),
            Packing::Outcome::gave_up);
}

}  // namespace
}  // namespace cistern
