#include "cistern/trace/capacity.hpp"

#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/stack/simulated_capacity.hpp"
#include "cistern/trace/replay.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;

Event nth_event(std::uint64_t sequence, std::uint64_t id, std::uint64_t bytes,
                Operation operation) {
  return {.sequence = sequence, .id = id, .bytes = bytes, .operation = operation};
}

/// 1,500 bytes of live blocks at the most, one of them from before the first event.
Trace some_trace() {
  Trace trace;
  trace.initial_blocks = {{.id = 0, .bytes = 700}};
  trace.events = {nth_event(1, 1, 800, Operation::allocate), nth_event(2, 0, 700, Operation::free),
                  nth_event(3, 2, 600, Operation::allocate), nth_event(4, 1, 800, Operation::free)};
  return trace;
}

SmallestCapacity smallest(const Trace& trace, const std::string& stack, std::size_t granularity) {
  const testing::CaughtReports reports;
  const SmallestCapacity found = smallest_capacity(
      trace,
      [&](std::size_t capacity) { return open(with_simulated_capacity(stack, capacity).value()); },
      {.granularity = granularity});
  EXPECT_TRUE(testing::CaughtReports::all().empty()) << "blocks were left in a stack";
  return found;
}

TEST(SmallestCapacity, IsThePeakWhereNothingIsLost) {
  const std::string bare = "simulated(granularity=1, alignment=1)";
  EXPECT_EQ(smallest(some_trace(), bare, 1).bytes, 1500U);
  EXPECT_EQ(smallest(some_trace(), bare, 1000).bytes, 2000U);
  EXPECT_EQ(smallest(some_trace(), bare, 1).replays, 1U);
  EXPECT_EQ(smallest(Trace(), bare, 64).bytes, 64U);
}

TEST(SmallestCapacity, CountsRoundingAndLimits) {
  EXPECT_EQ(smallest(some_trace(), "simulated(granularity=1KiB)", 1).bytes, 2048U);
  EXPECT_EQ(smallest(some_trace(), "cache(buckets=pow2) > simulated(granularity=512)", 1).bytes,
            2048U);
  // Half of the device's memory is all that may be asked for.
  EXPECT_EQ(smallest(some_trace(), "limit(50%) > simulated(alignment=1, granularity=1)", 1).bytes,
            3000U);
  const SmallestCapacity none = smallest(some_trace(), "limit(1KiB) > simulated", 512);
  EXPECT_FALSE(none.bytes);
  EXPECT_FALSE(smallest(some_trace(), "simulated(fail_at=1)", 512).bytes);  // an initial block
}

TEST(SmallestCapacity, SurvivesThereAndNotAGranuleBelow) {
  Trace trace;
  for (std::uint64_t id = 1; id <= 200; ++id)
    trace.events.push_back(nth_event(id, id, id * 1000, Operation::allocate));
  for (std::uint64_t id = 1; id <= 200; ++id)
    trace.events.push_back(nth_event(200 + id, id, id * 1000, Operation::free));
  for (const std::string stack :
       {"simulated", "cache(buckets=pow2) > simulated", "cache > simulated(granularity=64KiB)"}) {
    const auto found = smallest(trace, stack, 4_KiB).bytes;
    ASSERT_TRUE(found);
    const auto failed = [&](std::size_t capacity) {
      return replay(trace, [&] { return open(with_simulated_capacity(stack, capacity).value()); })
          .failed;
    };
    EXPECT_EQ(failed(*found), 0U) << stack;
    EXPECT_GT(failed(*found - 4_KiB), 0U) << stack;
  }
}

TEST(SmallestCapacity, RefusesAGranularityOfNothing) {
  EXPECT_THROW((void)smallest(some_trace(), "simulated", 0), std::invalid_argument);
}

TEST(SmallestCapacity, ShowsItsProgress) {
  double last = -1;
  (void)smallest_capacity(
      some_trace(),
      [](std::size_t capacity) {
        return open("simulated(granularity=1MiB, capacity=" + std::to_string(capacity) + ")");
      },
      {.granularity = 1, .progress = [&](double part) {
         EXPECT_GT(part, last);
         EXPECT_LT(part, 1);
         last = part;
       }});
  EXPECT_GT(last, 0.5);
}

}  // namespace
}  // namespace cistern
