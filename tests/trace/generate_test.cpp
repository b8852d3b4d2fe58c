#include "cistern/trace/generate.hpp"

#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/trace/check.hpp"
#include "cistern/trace/summary.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

constexpr ProgramKind all_kinds[] = {ProgramKind::pipeline, ProgramKind::prefetch,
                                     ProgramKind::side};

class Generate : public ::testing::TestWithParam<ProgramKind> {
 protected:
  static Trace make(std::uint64_t streams, std::uint64_t seed = 1, std::uint64_t turns = 3) {
    return generate({.kind = GetParam(), .streams = streams, .seed = seed, .turns = turns});
  }
};

INSTANTIATE_TEST_SUITE_P(Trace, Generate, ::testing::ValuesIn(all_kinds),
                         [](const auto& kind) { return std::string(name_of(kind.param)); });

/// What an event does, whichever block it does it to.
struct Deed {
  Operation operation;
  std::uint64_t bytes;
  std::uint64_t stream;
  friend bool operator==(const Deed&, const Deed&) = default;
};

std::vector<std::vector<Deed>> turns_of(const Trace& trace) {
  std::vector<std::vector<Deed>> turns;
  for (const Event& event : trace.events) {
    if (event.operation == Operation::cycle) turns.emplace_back();
    if (!turns.empty()) turns.back().push_back({event.operation, event.bytes, event.stream});
  }
  return turns;
}

TEST_P(Generate, IsLawfulAndFreesEverything) {
  for (std::uint64_t seed = 0; seed < testing::seeds_at_a_time(200); ++seed) {
    for (const std::uint64_t streams : {1U, 2U, 4U, 8U}) {
      const Trace trace = make(streams, seed, 1 + seed % 2);
      const auto checked = check_trace(trace);
      ASSERT_TRUE(checked) << checked.error().text() << ", seed " << seed;
      const TraceSummary summary = summarise(trace);
      ASSERT_EQ(summary.final_live_blocks, 0U) << seed;
      ASSERT_EQ(summary.cycles.turns, 1 + seed % 2);
      // It is to be replayed on one device, with pools that need up to twice what is live.
      ASSERT_GT(summary.peak_live_bytes, std::uint64_t{100} << 20U) << seed;
      ASSERT_LT(summary.peak_live_bytes, std::uint64_t{40} << 30U) << seed;
    }
  }
}

TEST_P(Generate, IsTheSameFromTheSameSeed) {
  EXPECT_EQ(make(4, 7).events, make(4, 7).events);
  EXPECT_NE(make(4, 7).events, make(4, 8).events);
}

// On every machine and by every compiler: what was measured of one can be measured again.
TEST(GenerateFigures, AreKnown) {
  const auto figures = [](ProgramKind kind) {
    const TraceSummary summary = summarise(generate({.kind = kind, .streams = 4, .seed = 1}));
    return std::pair(summary.events, summary.peak_live_bytes);
  };
  EXPECT_EQ(figures(ProgramKind::pipeline),
            std::pair(std::size_t{121578}, std::uint64_t{1991564733}));
  EXPECT_EQ(figures(ProgramKind::prefetch),
            std::pair(std::size_t{23610}, std::uint64_t{639374841}));
  EXPECT_EQ(figures(ProgramKind::side), std::pair(std::size_t{22186}, std::uint64_t{2379305095}));
}

TEST_P(Generate, IsTheSameProgramOnAnyNumberOfStreams) {
  const Trace one = make(1);
  for (const std::uint64_t streams : {2U, 3U, 4U, 8U}) {
    Trace many = make(streams);
    EXPECT_NE(many.events, one.events);
    for (Event& event : many.events)
      event.stream = 0;
    EXPECT_EQ(many.events, one.events) << streams;
  }
}

TEST_P(Generate, UsesEveryStreamAndFreesOnOthers) {
  for (std::uint64_t streams = 1; streams <= GenerateOptions::most_streams; ++streams) {
    const Trace trace = make(streams);
    std::set<std::uint64_t> used;
    std::map<std::uint64_t, std::uint64_t> stream_of;
    std::set<std::pair<std::uint64_t, std::uint64_t>> passed;  // from stream to stream
    for (const Event& event : trace.events) {
      if (event.operation == Operation::allocate) {
        used.insert(event.stream);
        stream_of[event.id] = event.stream;
      }
      if (event.operation == Operation::free && stream_of.at(event.id) != event.stream)
        passed.emplace(stream_of.at(event.id), event.stream);
    }
    EXPECT_EQ(used.size(), streams);
    EXPECT_EQ(*used.rbegin(), streams - 1);

    std::set<std::pair<std::uint64_t, std::uint64_t>> expected;
    for (std::uint64_t stream = 1; stream < streams; ++stream) {
      switch (GetParam()) {
        case ProgramKind::pipeline:
          expected.emplace(stream - 1, stream);  // activations
          expected.emplace(stream, stream - 1);  // gradients
          break;
        case ProgramKind::prefetch:
          expected.emplace(stream, 0);
          break;
        case ProgramKind::side:
          if (stream <= 12) expected.emplace(0, stream);  // there are as many buckets
          break;
      }
    }
    EXPECT_EQ(passed, expected) << streams;
  }
}

TEST_P(Generate, DoesTheSameInEveryTurn) {
  auto turns = turns_of(make(4, 3, 5));
  ASSERT_EQ(turns.size(), 5U);
  EXPECT_EQ(turns[1], turns[0]);
  EXPECT_EQ(turns[2], turns[0]);
  EXPECT_EQ(turns[3], turns[0]);
  // The last ends with what lived all along, and fetches no batch.
  if (GetParam() == ProgramKind::prefetch) {
    EXPECT_EQ(turns[4].size() + 4, turns[0].size());
  } else {
    ASSERT_GT(turns[4].size(), turns[0].size());
    turns[4].resize(turns[0].size());
    EXPECT_EQ(turns[4], turns[0]);
  }
}

TEST_P(Generate, RefusesWhatIsNoneOrTooMuch) {
  EXPECT_THROW(make(0), std::invalid_argument);
  EXPECT_THROW(make(GenerateOptions::most_streams + 1), std::invalid_argument);
  EXPECT_THROW(make(2, 1, 0), std::invalid_argument);
  EXPECT_THROW(make(2, 1, GenerateOptions::most_turns + 1), std::invalid_argument);
  try {
    (void)make(0);
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "a generated program has 1 to 16 streams, not 0");
  }
}

TEST_P(Generate, IsFoundByItsName) {
  EXPECT_EQ(program_kind(name_of(GetParam())), GetParam());
  EXPECT_EQ(program_kind("pipe"), std::nullopt);
  EXPECT_EQ(program_kind(""), std::nullopt);
}

TEST(GeneratePipeline, DrainsInEveryTurn) {
  const Trace trace = generate({.kind = ProgramKind::pipeline, .streams = 8, .turns = 2});
  std::uint64_t live = 0;
  std::vector<std::uint64_t> at_turns;
  for (const Event& event : trace.events) {
    if (event.operation == Operation::cycle) at_turns.push_back(live);
    if (event.operation == Operation::allocate) ++live;
    if (event.operation == Operation::free) --live;
  }
  ASSERT_EQ(at_turns.size(), 2U);
  EXPECT_GT(at_turns[0], 0U);  // the weights
  EXPECT_EQ(at_turns[1], at_turns[0]);
}

}  // namespace
}  // namespace cistern
