// Lifetimes of a run: what is live at once is what the run's summary says.
#include "cistern/trace/lifetimes.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/trace/check.hpp"
#include "cistern/trace/read.hpp"
#include "cistern/trace/summary.hpp"
#include "cistern/trace/turn.hpp"
#include "support/seed.hpp"
#include "trace/samples.hpp"

namespace cistern {
namespace {

/// The most bytes that live at one time.
std::uint64_t largest_live_sum(const std::vector<Lifetime>& buffers) {
  std::vector<std::tuple<std::uint64_t, bool, std::uint64_t>> changes;  // what ends comes first
  for (const Lifetime& buffer : buffers) {
    EXPECT_LT(buffer.lower, buffer.upper);
    EXPECT_GT(buffer.bytes, 0U);
    changes.emplace_back(buffer.lower, true, buffer.bytes);
    changes.emplace_back(buffer.upper, false, buffer.bytes);
  }
  std::sort(changes.begin(), changes.end());
  std::uint64_t live = 0;
  std::uint64_t most = 0;
  for (const auto& [time, begins, bytes] : changes) {
    live = begins ? live + bytes : live - bytes;
    most = std::max(most, live);
  }
  return most;
}

TEST(LifetimesOf, CountsEventsFromOne) {
  const Lifetimes lifetimes = lifetimes_of(samples::small_trace());
  EXPECT_EQ(lifetimes.ids, (std::vector<std::string>{"7", "9", "20", "21"}));
  EXPECT_EQ(lifetimes.buffers, (std::vector<Lifetime>{{0, 3, 4096, 256},  // freed by event 3
                                                      {0, 6, 100, 1},     // by the reset
                                                      {1, 5, 512, 64},
                                                      {2, 6, 1U << 20, 64}}));
}

TEST(LifetimesOf, KeepsWhatIsNeverFreedToTheEnd) {
  Trace trace;
  trace.name = "a";
  trace.source = "b";
  trace.initial_blocks = {{1, 10, 0, 0}};
  EXPECT_EQ(lifetimes_of(trace).buffers, (std::vector<Lifetime>{{0, 1, 10, 1}}));
  trace.events = {{.sequence = 1, .id = 2, .bytes = 20}};
  EXPECT_EQ(lifetimes_of(trace).buffers, (std::vector<Lifetime>{{0, 2, 10, 1}, {1, 2, 20, 1}}));
  EXPECT_EQ(lifetimes_of(trace).name, "a");
  EXPECT_EQ(lifetimes_of(trace).source, "b");
  EXPECT_TRUE(lifetimes_of({}).buffers.empty());
}

TEST(TurnOf, BeginsWithWhatWasLive) {
  Trace trace;
  trace.name = "a";
  trace.source = "b";
  trace.initial_blocks = {{1, 10, 64, 3}, {2, 20, 0, 0}};
  trace.events = {{.sequence = 1, .id = 1, .bytes = 10, .operation = Operation::free},
                  {.sequence = 2, .id = 1, .operation = Operation::cycle},
                  {.sequence = 3, .id = 3, .bytes = 30, .alignment = 8, .stream = 5},
                  {.sequence = 4, .id = 2, .operation = Operation::cycle},
                  {.sequence = 5, .id = 2, .bytes = 20, .operation = Operation::free},
                  {.sequence = 6, .operation = Operation::reset},
                  {.sequence = 7, .id = 4, .bytes = 40},
                  {.sequence = 8, .id = 3, .operation = Operation::cycle}};
  const auto first = turn_of(trace, 1);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->name, "a");
  EXPECT_EQ(first->source, "b");
  EXPECT_EQ(first->initial_blocks, (std::vector<InitialBlock>{{2, 20, 0, 0}}));
  EXPECT_EQ(first->events, (std::vector<Event>{trace.events[1], trace.events[2]}));
  const auto second = turn_of(trace, 2);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->initial_blocks, (std::vector<InitialBlock>{{2, 20, 0, 0}, {3, 30, 8, 5}}));
  EXPECT_EQ(second->events.size(), 4U);
  const auto third = turn_of(trace, 3);
  ASSERT_TRUE(third);
  EXPECT_EQ(third->initial_blocks, (std::vector<InitialBlock>{{4, 40, 0, 0}}));
  EXPECT_EQ(third->events.size(), 1U);
  EXPECT_FALSE(turn_of(trace, 0));
  EXPECT_FALSE(turn_of(trace, 4));
  EXPECT_FALSE(turn_of({}, 1));
}

TEST(LifetimesOf, TogetherNeedThePeakOfAnyTrace) {
  const std::uint64_t seed = testing::seed_or(20261);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  for (int round = 0; round < 300; ++round) {
    const Trace trace = samples::random_trace(random, 1 + random.below(200));
    ASSERT_EQ(largest_live_sum(lifetimes_of(trace).buffers), summarise(trace).peak_live_bytes);
    const TraceSummary::Cycles cycles = summarise(trace).cycles;
    if (cycles.evidence != TraceSummary::Cycles::Evidence::events) continue;
    std::size_t events = 0;
    for (std::uint64_t number = 1; number <= cycles.turns; ++number) {
      const auto turn = turn_of(trace, number);
      ASSERT_TRUE(turn);
      ASSERT_TRUE(check_trace(*turn)) << check_trace(*turn).error().text();
      ASSERT_EQ(largest_live_sum(lifetimes_of(*turn).buffers), summarise(*turn).peak_live_bytes);
      events += turn->events.size();
    }
    const auto first_mark =
        std::find_if(trace.events.begin(), trace.events.end(),
                     [](const Event& event) { return event.operation == Operation::cycle; });
    ASSERT_EQ(events, static_cast<std::size_t>(trace.events.end() - first_mark));
    ASSERT_FALSE(turn_of(trace, cycles.turns + 1));
  }
}

// A reset may not cost what the blocks of earlier rounds cost.
TEST(LifetimesOf, TakesManyResetsAfterManyBlocks) {
  Trace trace;
  for (std::uint64_t index = 0; index < 200'000; ++index) {
    trace.events.push_back(
        {index, 0, index, 1, 0, 0, 0, index < 100'000 ? Operation::allocate : Operation::reset});
  }
  EXPECT_EQ(lifetimes_of(trace).buffers.size(), 100'000U);
}

TEST(LifetimesOf, TogetherNeedThePeakOfRecordedRuns) {
  const auto folder = std::filesystem::path(CISTERN_SOURCE_DIR) / "../shared/traces/pytorch";
  if (!std::filesystem::exists(folder)) {
    GTEST_SKIP() << "the recorded traces are not beside the project";
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const auto trace = read_trace(entry.path());
    ASSERT_TRUE(trace) << trace.error().text();
    EXPECT_EQ(largest_live_sum(lifetimes_of(*trace).buffers), summarise(*trace).peak_live_bytes)
        << entry.path();
  }
}

}  // namespace
}  // namespace cistern
