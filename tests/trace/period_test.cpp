#include "trace/period.hpp"

#include <vector>

#include <gtest/gtest.h>

#include "support/seed.hpp"

namespace cistern::detail {
namespace {

using Values = std::vector<std::uint64_t>;

/// The law as the header states it, tried on every stretch.
std::optional<std::size_t> smallest_period(const Values& values) {
  for (std::size_t length = 1; 2 * length <= values.size(); ++length) {
    std::size_t matches = 0;
    for (std::size_t index = length; index < values.size(); ++index) {
      matches = values[index] == values[index - length] ? matches + 1 : 0;
      const std::size_t stretch = matches + length;
      if (matches >= length && 2 * stretch >= values.size()) return length;
    }
  }
  return std::nullopt;
}

TEST(FindPeriod, FindsTheTurnsOfALoop) {
  const auto period = find_period(Values{9, 9, 1, 2, 3, 1, 2, 3, 1, 2, 7});
  ASSERT_TRUE(period);
  EXPECT_EQ(period->length, 3U);
  EXPECT_EQ(period->begin, 2U);
  EXPECT_EQ(period->end, 10U);
  EXPECT_FALSE(find_period(Values{}));
  EXPECT_FALSE(find_period(Values{1}));
  EXPECT_FALSE(find_period(Values{1, 2, 3, 4, 1, 2, 3}));
  EXPECT_FALSE(find_period(Values{1, 1, 2, 3, 4}));
  EXPECT_EQ(find_period(Values{5, 5})->length, 1U);
}

TEST(FindPeriod, AgreesWithTryingEveryStretch) {
  const std::uint64_t seed = testing::seed_or(3);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  int found = 0;
  for (int round = 0; round < 20'000; ++round) {
    Values turn;
    for (std::uint64_t count = 1 + random.below(6); count > 0; --count)
      turn.push_back(random.below(3));
    Values values;
    for (std::uint64_t count = random.below(5); count > 0; --count)
      values.push_back(random.below(3));
    for (std::uint64_t count = random.below(20); count > 0; --count)
      values.push_back(turn[values.size() % turn.size()]);
    for (std::uint64_t count = random.below(5); count > 0; --count)
      values.push_back(random.below(3));

    const auto expected = smallest_period(values);
    const auto period = find_period(values);
    ASSERT_EQ(period.has_value(), expected.has_value()) << ::testing::PrintToString(values);
    if (!period) continue;
    ++found;
    ASSERT_EQ(period->length, *expected) << ::testing::PrintToString(values);
    ASSERT_GE(period->end - period->begin, 2 * period->length);
    ASSERT_GE(2 * (period->end - period->begin), values.size());
    ASSERT_LE(period->end, values.size());
    for (std::size_t index = period->begin + period->length; index < period->end; ++index) {
      ASSERT_EQ(values[index], values[index - period->length]) << ::testing::PrintToString(values);
    }
  }
  EXPECT_GT(found, 1000);
}

}  // namespace
}  // namespace cistern::detail
