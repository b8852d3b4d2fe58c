#include "cistern/trace/streams.hpp"

#include <stdexcept>

#include <gtest/gtest.h>

#include "cistern/trace/check.hpp"
#include "trace/samples.hpp"

namespace cistern {
namespace {

TEST(DealOverStreams, GivesBlocksTheStreamsInTurnAndFreesThemOnTheirs) {
  Trace trace = samples::small_trace();
  deal_over_streams(trace, 3);
  EXPECT_EQ(trace.initial_blocks[0].stream, 0U);
  EXPECT_EQ(trace.initial_blocks[1].stream, 1U);
  EXPECT_EQ(trace.events[0].stream, 2U);  // allocates 20
  EXPECT_EQ(trace.events[1].stream, 0U);  // 21
  EXPECT_EQ(trace.events[2].stream, 0U);  // frees 7
  EXPECT_EQ(trace.events[4].stream, 2U);  // frees 20
  EXPECT_EQ(trace.events[6].stream, 1U);  // 22
  EXPECT_TRUE(check_trace(trace));
}

TEST(DealOverStreams, NeedsAStream) {
  Trace trace;
  EXPECT_THROW(deal_over_streams(trace, 0), std::invalid_argument);
}

}  // namespace
}  // namespace cistern
