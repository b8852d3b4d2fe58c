#include "cistern/trace/check.hpp"

#include <string>

#include <gtest/gtest.h>

#include "trace/samples.hpp"

namespace cistern {
namespace {

std::string broken_law(const Trace& trace) {
  const auto lawful = check_trace(trace);
  return lawful ? "" : lawful.error().text();
}

/// The law that one change to the small lawful trace breaks.
template <typename Change>
std::string after(Change change) {
  Trace trace = samples::small_trace();
  change(trace);
  return broken_law(trace);
}

TEST(CheckTrace, AcceptsLawfulTraces) {
  EXPECT_EQ(broken_law({}), "");
  EXPECT_EQ(broken_law(samples::small_trace()), "");
}

TEST(CheckTrace, WantsRisingSequences) {
  EXPECT_EQ(after([](Trace& trace) { trace.events[1].sequence = 10; }),
            "event 1: sequence 10 does not rise above 10, that of the event before");
  EXPECT_EQ(after([](Trace& trace) { trace.events[0].sequence = 0; }), "");
}

TEST(CheckTrace, WantsNewIds) {
  EXPECT_EQ(after([](Trace& trace) { trace.events[6].id = 20; }),
            "event 6: id 20 was used before: each block has an id of its own");
  EXPECT_EQ(after([](Trace& trace) { trace.events[6].id = 9; }),
            "event 6: id 9 was used before: each block has an id of its own");
  EXPECT_EQ(after([](Trace& trace) { trace.initial_blocks[1].id = 7; }),
            "initial block 1: id 7 was used before: each block has an id of its own");
}

TEST(CheckTrace, WantsFreesOfLiveBlocks) {
  EXPECT_EQ(after([](Trace& trace) { trace.events[2].id = 22; }),
            "event 2: frees block 22, which was never allocated");
  EXPECT_EQ(after([](Trace& trace) {
              trace.events[4].id = 7;
              trace.events[4].bytes = 4096;
            }),
            "event 4: frees block 7, which was freed before");
  EXPECT_EQ(after([](Trace& trace) {
              trace.events[6] = {23, 0, 21, 1U << 20, 0, 0, 0, Operation::free};
            }),
            "event 6: frees block 21, which a reset freed before");
  EXPECT_EQ(after([](Trace& trace) { trace.events[4].bytes = 511; }),
            "event 4: frees 511 bytes of block 20, which has 512");
}

TEST(CheckTrace, WantsAlignmentsThatArePowersOfTwo) {
  for (const std::size_t index : {0U, 2U, 3U, 5U}) {
    EXPECT_EQ(after([index](Trace& trace) { trace.events[index].alignment = 48; }),
              "event " + std::to_string(index) + ": alignment 48 is neither 0 nor a power of two");
  }
  EXPECT_EQ(after([](Trace& trace) { trace.initial_blocks[0].alignment = 3; }),
            "initial block 0: alignment 3 is neither 0 nor a power of two");
}

TEST(CheckTrace, WantsLiveBytesThatCanBeCounted) {
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  Trace trace;
  trace.initial_blocks = {{1, most, 0, 0}};
  trace.events = {{0, 0, 1, most, 0, 0, 0, Operation::free},
                  {1, 0, 2, most, 0, 0, 0, Operation::allocate},
                  {2, 0, 0, 0, 0, 0, 0, Operation::reset},
                  {3, 0, 3, most, 0, 0, 0, Operation::allocate}};
  EXPECT_EQ(broken_law(trace), "");
  trace.events.push_back({4, 0, 4, 1, 0, 0, 0, Operation::allocate});
  EXPECT_EQ(
      broken_law(trace),
      "event 4: 1 bytes beside 18446744073709551615 live ones are more than 64 bits can count");
}

TEST(CheckTrace, WantsKnownOperations) {
  EXPECT_EQ(after([](Trace& trace) { trace.events[3].operation = static_cast<Operation>(5); }),
            "event 3: operation 5 is none of allocate, free, reset and cycle");
}

}  // namespace
}  // namespace cistern
