// Every law of a plan, kept and broken.
#include <cstddef>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/plan/plan.hpp"

namespace cistern {
namespace {

using ::testing::HasSubstr;

class ValidateTest : public ::testing::Test {
 protected:
  // time 0   2   4   6
  //      AAAAAAAAA          bytes 8, at 0
  //          BBBBBBBBB      bytes 4, at 8
  //                  CCC    bytes 8, at 0
  std::vector<Lifetime> buffers_{{0, 4, 8, 8}, {2, 6, 4, 4}, {4, 6, 8, 1}};
  Plan plan_{
      .offsets = {0, 8, 0}, .peak_bytes = 12, .lower_bound_bytes = 12, .proved_optimal = true};
};

TEST_F(ValidateTest, AcceptsAPlan) {
  EXPECT_EQ(validate(buffers_, plan_), "");
  Plan nothing;
  nothing.proved_optimal = true;
  EXPECT_EQ(validate({}, nothing), "");
}

TEST_F(ValidateTest, FindsOverlapsBelowAndAbove) {
  plan_.offsets = {0, 4, 8};
  plan_.peak_bytes = 16;
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("buffer 1 overlaps buffer 0"));
  plan_.offsets = {8, 4, 9};
  plan_.peak_bytes = 17;
  plan_.proved_optimal = false;
  EXPECT_EQ(validate(buffers_, plan_), "");
  plan_.offsets[2] = 7;  // one byte
  plan_.proved_optimal = false;
  plan_.peak_bytes = 16;
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("buffer 2 overlaps buffer 1"));
  plan_.offsets[2] = 1;
  plan_.peak_bytes = 16;
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("buffer 2 overlaps buffer 1"));
}

TEST_F(ValidateTest, FindsTwoBuffersAtTheSamePlace) {
  plan_.offsets = {0, 0, 4};
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("overlaps"));
}

TEST_F(ValidateTest, FindsAnOffsetThatIsNotAligned) {
  plan_.offsets = {4, 0, 4};
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("buffer 0 is not aligned"));
}

TEST_F(ValidateTest, FindsAPeakThatIsNotTheHighestEnd) {
  plan_.peak_bytes = 11;
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("ends above the peak"));
  plan_.peak_bytes = 13;
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("highest end"));
  plan_.offsets[1] = ~std::size_t{0} & ~std::size_t{3};
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("ends above the peak"));
}

TEST_F(ValidateTest, FindsALowerBoundThatCannotBe) {
  plan_.lower_bound_bytes = 11;
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("live together"));
  plan_.lower_bound_bytes = 13;
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("not above the peak"));
}

TEST_F(ValidateTest, FindsAProofThatIsNone) {
  plan_.proved_optimal = false;
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("proved"));
}

TEST_F(ValidateTest, WantsAnOffsetForEachBuffer) {
  plan_.offsets.pop_back();
  EXPECT_THAT(validate(buffers_, plan_), HasSubstr("every buffer has an offset"));
}

TEST_F(ValidateTest, EmptyBuffersDisturbNobody) {
  buffers_.push_back({1, 3, 0, 1});
  buffers_.push_back({3, 3, 100, 1});
  plan_.offsets.insert(plan_.offsets.end(), {2, 3});
  EXPECT_EQ(validate(buffers_, plan_), "");
}

}  // namespace
}  // namespace cistern
