#include "cistern/core/size.hpp"

#include <gtest/gtest.h>

namespace cistern {
namespace {

using namespace literals;

TEST(Size, ArithmeticSaysWhenItOverflows) {
  EXPECT_EQ(checked_add(1, 2), 3U);
  EXPECT_EQ(checked_add(unbounded, 0), unbounded);
  EXPECT_EQ(checked_add(unbounded, 1), std::nullopt);
  EXPECT_EQ(checked_multiply(0, unbounded), 0U);
  EXPECT_EQ(checked_multiply(2, unbounded / 2), unbounded - 1);
  EXPECT_EQ(checked_multiply(2, unbounded / 2 + 1), std::nullopt);
  EXPECT_EQ(round_up(0, 64), 0U);
  EXPECT_EQ(round_up(1, 64), 64U);
  EXPECT_EQ(round_up(64, 64), 64U);
  EXPECT_EQ(round_up(unbounded - 63, 64), unbounded - 63);
  EXPECT_EQ(round_up(unbounded - 62, 64), std::nullopt);
  EXPECT_EQ(saturating_add(unbounded, 5), unbounded);
  EXPECT_EQ(saturating_subtract(3, 5), 0U);
}

TEST(Size, ScalesWithoutOverflow) {
  EXPECT_EQ(scale(1000, 1.5), 1500U);
  EXPECT_EQ(scale(unbounded, 1), unbounded);
  EXPECT_EQ(scale(unbounded / 2, 4), unbounded);
  EXPECT_EQ(scale(0, std::numeric_limits<double>::infinity()), unbounded);
}

TEST(Size, UnitsAreBinary) {
  EXPECT_EQ(1_KiB, 1024U);
  EXPECT_EQ(3_MiB, 3U * 1024 * 1024);
  EXPECT_EQ(2_GiB, std::size_t{2} << 30);
}

}  // namespace
}  // namespace cistern
