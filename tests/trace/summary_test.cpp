#include "cistern/trace/summary.hpp"

#include <gtest/gtest.h>

#include "trace/samples.hpp"

namespace cistern {
namespace {

TEST(Summarise, CountsWhatHappens) {
  const TraceSummary summary = summarise(samples::small_trace());
  EXPECT_EQ(summary.events, 7U);
  EXPECT_EQ(summary.allocations, 3U);
  EXPECT_EQ(summary.frees, 2U);
  EXPECT_EQ(summary.resets, 1U);
  EXPECT_EQ(summary.initial_blocks, 2U);
  EXPECT_EQ(summary.initial_bytes, 4196U);
  EXPECT_EQ(summary.peak_live_bytes, 4196U + 512 + (1 << 20));
  EXPECT_EQ(summary.peak_live_blocks, 4U);
  EXPECT_EQ(summary.final_live_bytes, 0U);
  EXPECT_EQ(summary.final_live_blocks, 1U);
  EXPECT_EQ(summary.requested_bytes, 512U + (1 << 20));
  EXPECT_EQ(summary.duration_ns, 1300U);
  EXPECT_EQ(summary.threads, 2U);

  EXPECT_EQ(summary.sizes[0].count, 1U);
  EXPECT_EQ(summary.sizes[10].count, 1U);
  EXPECT_EQ(summary.sizes[10].bytes, 512U);
  EXPECT_EQ(summary.sizes[21].count, 1U);
  EXPECT_EQ(summary.sizes[21].bytes, 1U << 20);

  EXPECT_EQ(summary.lifetimes[3],
            2U);  // 4 events each: one freed, one reset; initial blocks have none
  EXPECT_EQ(summary.never_freed, 1U);

  ASSERT_EQ(summary.streams.size(), 2U);
  EXPECT_EQ(summary.streams.at(0).allocations, 2U);
  EXPECT_EQ(summary.streams.at(3).allocations, 1U);
  EXPECT_EQ(summary.streams.at(3).bytes, 1U << 20);

  EXPECT_EQ(summary.cycles.evidence, TraceSummary::Cycles::Evidence::events);
  EXPECT_EQ(summary.cycles.turns, 1U);
}

TEST(Summarise, TakesAnEmptyTrace) {
  const TraceSummary summary = summarise({});
  EXPECT_EQ(summary.events, 0U);
  EXPECT_EQ(summary.duration_ns, 0U);
  EXPECT_EQ(summary.cycles.evidence, TraceSummary::Cycles::Evidence::none);
}

TEST(Summarise, CountsInitialBlocksInPeaks) {
  Trace trace;
  trace.initial_blocks = {{1, 10, 0, 0}, {2, 20, 0, 0}};
  EXPECT_EQ(summarise(trace).peak_live_bytes, 30U);
  EXPECT_EQ(summarise(trace).peak_live_blocks, 2U);
  EXPECT_EQ(summarise(trace).never_freed, 0U);
}

TEST(Summarise, SeesTheTurnsOfALoopInItsSizes) {
  Trace trace;
  std::uint64_t id = 0;
  for (const std::uint64_t bytes : {7U, 100U, 200U, 300U, 100U, 200U, 300U, 100U, 200U, 300U, 8U}) {
    trace.events.push_back({2 * id, 0, id, bytes, 0, 0, 0, Operation::allocate});
    trace.events.push_back({2 * id + 1, 0, id, bytes, 0, 0, 0, Operation::free});
    ++id;
  }
  const auto cycles = summarise(trace).cycles;
  EXPECT_EQ(cycles.evidence, TraceSummary::Cycles::Evidence::repeating_sizes);
  EXPECT_EQ(cycles.turns, 3U);
  EXPECT_EQ(cycles.allocations_per_turn, 3U);
  EXPECT_EQ(cycles.first_allocation, 1U);
}

TEST(Summarise, DoesNotOverflow) {
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  Trace trace;
  trace.events = {{0, most, 0, most, 0, 0, 0, Operation::allocate},
                  {1, 0, 0, most, 0, 0, 0, Operation::free},
                  {2, 5, 1, most, 0, 0, 0, Operation::allocate}};
  const TraceSummary summary = summarise(trace);
  EXPECT_EQ(summary.requested_bytes, most);
  EXPECT_EQ(summary.sizes[64].bytes, most);
  EXPECT_EQ(summary.streams.at(0).bytes, most);
  EXPECT_EQ(summary.peak_live_bytes, most);
  EXPECT_EQ(summary.duration_ns, most);
}

// A reset may not cost what the blocks of earlier rounds cost.
TEST(Summarise, TakesManyResetsAfterManyBlocks) {
  Trace trace;
  for (std::uint64_t index = 0; index < 200'000; ++index) {
    trace.events.push_back(
        {index, 0, index, 1, 0, 0, 0, index < 100'000 ? Operation::allocate : Operation::reset});
  }
  EXPECT_EQ(summarise(trace).resets, 100'000U);
}

}  // namespace
}  // namespace cistern
