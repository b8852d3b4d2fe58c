// The replay must count what the trace says, survive stacks that refuse, and catch stacks that are
// wrong.
#include "cistern/trace/replay.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/core/stage.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/trace/summary.hpp"
#include "support/addresses.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"
#include "trace/samples.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::address;
using testing::CaughtReports;
using ::testing::HasSubstr;

/// Writes a trace down event by event.
class Script {
 public:
  Script& initial(std::uint64_t id, std::uint64_t bytes) {
    trace_.initial_blocks.push_back({.id = id, .bytes = bytes});
    return *this;
  }
  Script& allocate(std::uint64_t id, std::uint64_t bytes, std::uint64_t alignment = 0,
                   std::uint64_t stream = 0) {
    return add({.id = id,
                .bytes = bytes,
                .alignment = alignment,
                .stream = stream,
                .operation = Operation::allocate});
  }
  Script& free(std::uint64_t id, std::uint64_t bytes) {
    return add({.id = id, .bytes = bytes, .operation = Operation::free});
  }
  Script& reset() { return add({.operation = Operation::reset}); }
  Script& cycle() { return add({.operation = Operation::cycle}); }

  [[nodiscard]] const Trace& trace() const { return trace_; }

 private:
  Script& add(Event event) {
    event.sequence = trace_.events.size() + 1;
    trace_.events.push_back(event);
    return *this;
  }

  Trace trace_;
};

std::function<Stack()> opener(const std::string& text) {
  return [text] { return open(text); };
}

constexpr const char* bare = "simulated(granularity=1, alignment=1)";

TEST(Replay, CountsWhatTheTraceSays) {
  const Script script =
      Script().allocate(1, 1000).allocate(2, 500).free(1, 1000).allocate(3, 700).free(2, 500).free(
          3, 700);
  const ReplayResult result = replay(script.trace(), opener(bare), {.check = true});
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.allocations, 3U);
  EXPECT_EQ(result.frees, 3U);
  EXPECT_EQ(result.failed, 0U);
  EXPECT_EQ(result.operations(), 6U);
  EXPECT_EQ(result.peak_live_bytes, 1500U);
  EXPECT_EQ(result.stats.reserved.peak, 1500U);
  EXPECT_EQ(result.stats.live_granted.peak, 1500U);
  EXPECT_EQ(result.stats.device_allocations, 3U);
  EXPECT_EQ(result.stats.device_frees, 3U);
  EXPECT_DOUBLE_EQ(result.utilisation(), 1.0);
}

TEST(Replay, TellsHitsFromMisses) {
  Script script;
  for (std::uint64_t id = 1; id <= 10; ++id)
    script.allocate(id, 4096).free(id, 4096);
  const ReplayResult result = replay(script.trace(), opener("cache > simulated"), {.check = true});
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.stats.hits, 9U);
  EXPECT_EQ(result.stats.misses, 1U);
  EXPECT_EQ(result.stats.device_allocations, 1U);
  EXPECT_EQ(result.stats.device_frees, 0U);  // what is trimmed in the end is not of the trace
  EXPECT_EQ(result.stats.cached.peak, 4096U);
}

TEST(Replay, CountsInitialBlocksInTheLevelsAlone) {
  const Script script =
      Script().initial(1, 3000).initial(2, 1000).allocate(3, 500).free(1, 3000).free(3, 500);
  const ReplayResult result = replay(script.trace(), opener(bare), {.check = true});
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.allocations, 1U);
  EXPECT_EQ(result.frees, 2U);
  EXPECT_EQ(result.peak_live_bytes, 4500U);
  EXPECT_EQ(result.stats.reserved.peak, 4500U);
  EXPECT_EQ(result.stats.device_allocations, 1U);
  EXPECT_EQ(result.stats.misses, 1U);
}

TEST(Replay, FreesEveryLiveBlockAtAReset) {
  const Script script =
      Script().initial(1, 100).allocate(2, 200).reset().allocate(3, 150).cycle().reset().reset();
  const ReplayResult result = replay(script.trace(), opener(bare), {.check = true});
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.allocations, 2U);
  EXPECT_EQ(result.frees, 3U);
  EXPECT_EQ(result.peak_live_bytes, 300U);
}

TEST(Replay, SkipsTheFreesOfWhatWasRefused) {
  const Script script =
      Script().allocate(1, 100).allocate(2, 100).free(1, 100).free(2, 100).allocate(3, 100);
  const ReplayResult result =
      replay(script.trace(), opener("simulated(fail_at=2)"), {.check = true});
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.allocations, 2U);
  EXPECT_EQ(result.failed, 1U);
  EXPECT_EQ(result.frees, 1U);
  EXPECT_EQ(result.peak_live_bytes, 100U);
  EXPECT_EQ(result.stats.failures, 1U);
}

TEST(Replay, TellsInitialBlocksThatWereRefused) {
  const Script script = Script().initial(1, 100).initial(2, 100).free(1, 100).free(2, 100);
  const ReplayResult result = replay(script.trace(), opener("simulated(fail_at=1)"));
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.initial_failed, 1U);
  EXPECT_EQ(result.failed, 0U);
  EXPECT_EQ(result.frees, 1U);
  EXPECT_EQ(result.peak_live_bytes, 100U);
}

TEST(Replay, SurvivesAStackThatRefusesEverything) {
  const Script script = Script().initial(1, 100).allocate(2, 100).free(2, 100).free(1, 100);
  const ReplayResult result =
      replay(script.trace(), opener("limit(0) > simulated"), {.check = true});
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.allocations, 0U);
  EXPECT_EQ(result.frees, 0U);
  EXPECT_EQ(result.failed, 1U);
  EXPECT_EQ(result.peak_live_bytes, 0U);
  EXPECT_DOUBLE_EQ(result.utilisation(), 0.0);
}

TEST(Replay, TakesAnEmptyTrace) {
  const ReplayResult result = replay(Trace{}, opener("cache > host"), {.check = true});
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.operations(), 0U);
  EXPECT_EQ(result.ns_per_op.mean, 0.0);
  EXPECT_EQ(result.ns_per_op.max, 0.0);
  EXPECT_EQ(result.replay_overhead_ns, 0.0);
}

TEST(Replay, CountsAllocationsOfNothing) {
  const Script script = Script().allocate(1, 0).free(1, 0).allocate(2, 0);
  const ReplayResult result = replay(script.trace(), opener("cache > simulated"), {.check = true});
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.allocations, 2U);
  EXPECT_EQ(result.frees, 1U);
}

TEST(Replay, AsksForTheAlignmentAndOnTheStream) {
  struct Seen {
    std::vector<Request> requests;
    std::vector<Stream> frees;
  };
  class Witness final : public Stage {
   public:
    Witness(Ref<Resource> upstream, Seen& seen) : Stage(std::move(upstream)), seen_(seen) {}
    Expected<Block> try_allocate(const Request& request) noexcept override {
      seen_.requests.push_back(request);
      return upstream().try_allocate(request);
    }
    bool deallocate(const Block& block, Stream stream) noexcept override {
      seen_.frees.push_back(stream);
      return upstream().deallocate(block, stream);
    }
    [[nodiscard]] Outstanding outstanding() const noexcept override {
      return upstream().outstanding();
    }

   private:
    Seen& seen_;
  };
  const Script script =
      Script().allocate(1, 10, 4096, 7).allocate(2, 10, 1).allocate(3, 10).reset();
  Seen seen;
  const ReplayResult result = replay(script.trace(), [&] {
    seen = {};
    return Stack(make<Witness>(make<SimulatedDevice>(), seen), "witness");
  });
  EXPECT_EQ(result.error, "");
  ASSERT_EQ(seen.requests.size(), 3U);
  EXPECT_EQ(seen.requests[0].alignment, 4096U);
  EXPECT_EQ(seen.requests[0].stream.id, 7U);
  EXPECT_EQ(seen.requests[1].alignment, 1U);
  EXPECT_EQ(seen.requests[2].alignment, 0U);
  ASSERT_EQ(seen.frees.size(), 3U);
  EXPECT_EQ(seen.frees[0].id, 7U);  // a reset frees a block on its own stream
  EXPECT_EQ(seen.frees[1].id, 0U);
}

TEST(Replay, AsksForTheLargestAlignmentAndNotForNone) {
  const Script script = Script().allocate(1, 64, std::uint64_t{1} << 63);
  EXPECT_EQ(replay(script.trace(), opener(bare)).failed, 1U);
}

TEST(Replay, IsLinearInTheResets) {
  // Were every reset to look at all the slots there ever were, this would take minutes.
  Script script;
  std::uint64_t id = 0;
  for (int i = 0; i < 200'000; ++i)
    script.allocate(++id, 64);
  script.reset();
  for (int i = 0; i < 200'000; ++i)
    script.allocate(++id, 64).reset();
  EXPECT_EQ(replay(script.trace(), opener(bare)).allocations, 400'000U);
}

TEST(Replay, MeasuresTimes) {
  Script script;
  for (std::uint64_t id = 1; id <= 1000; ++id)
    script.allocate(id, id).free(id, id);
  const ReplayResult result = replay(script.trace(), opener("cache > host"));
  EXPECT_GT(result.ns_per_op.mean, 0.0);
  EXPECT_GE(result.ns_per_op.p50, 0.0);
  EXPECT_GE(result.ns_per_op.p99, result.ns_per_op.p50);
  EXPECT_GE(result.ns_per_op.max, result.ns_per_op.p99);
  EXPECT_GT(result.replay_overhead_ns, 0.0);
}

TEST(Replay, TellsTheVirtualTimeOfASimulatedDevice) {
  const Script script = Script().initial(1, 100).allocate(2, 100).free(1, 100).allocate(3, 100);
  const ReplayResult slow =
      replay(script.trace(), opener("cache > simulated(allocate_latency=10us, free_latency=3us)"));
  ASSERT_TRUE(slow.device_time_ns.has_value());
  EXPECT_EQ(*slow.device_time_ns, 10'000U);  // one miss; the third block is the first's
  EXPECT_FALSE(replay(script.trace(), opener("host")).device_time_ns.has_value());
}

TEST(Replay, SaysHowFarItIs) {
  Script script;
  for (std::uint64_t id = 1; id <= 200'000; ++id)
    script.allocate(id, 8).free(id, 8);
  std::vector<double> parts;
  replay(script.trace(), opener(bare),
         {.check = true, .progress = [&](double part) { parts.push_back(part); }});
  ASSERT_GT(parts.size(), 10U);
  for (const double part : parts) {
    EXPECT_GE(part, 0.0);
    EXPECT_LE(part, 1.0);
  }
  EXPECT_GT(parts.back(), 0.9);
}

TEST(Replay, AgreesWithTheSummaryOnAnyTrace) {
  const std::uint64_t seed = testing::seed_or(20);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  for (int round = 0; round < 20; ++round) {
    Trace trace = samples::random_trace(random, 300);
    // Any width of bytes is lawful, but not every device has so much.
    const auto shrink = [](auto& each) {
      each.bytes &= 0xfffffU;
      each.alignment = each.alignment > 4096 ? 4096 : each.alignment;
    };
    for (InitialBlock& block : trace.initial_blocks)
      shrink(block);
    for (Event& event : trace.events) {
      if (event.operation == Operation::allocate || event.operation == Operation::free)
        shrink(event);
    }
    const TraceSummary summary = summarise(trace);
    for (const char* stack :
         {"simulated", "cache > simulated", "cache(buckets=fit) > simulated", "mlx > host"}) {
      const ReplayResult result = replay(trace, opener(stack), {.check = true});
      EXPECT_EQ(result.error, "") << stack;
      EXPECT_EQ(result.allocations, summary.allocations);
      EXPECT_EQ(result.peak_live_bytes, summary.peak_live_bytes);
      EXPECT_EQ(result.failed, 0U);
    }
  }
}

// --- stacks that are wrong ---

/// Hands out what the test says, and thinks that all is well.
class WrongDevice final : public Device {
 public:
  using Make = std::function<void*(std::size_t& bytes)>;

  explicit WrongDevice(Make make) : Device(limits()), make_(std::move(make)) {}

 private:
  static DeviceLimits limits() {
    return {.kind = "wrong",
            .name = "a device that is wrong",
            .total_memory = 1_GiB,
            .max_allocation = 1_GiB,
            .alignment = 64,
            .max_alignment = 4096};
  }
  Expected<Piece> obtain(std::size_t bytes, std::size_t /*alignment*/,
                         Stream /*stream*/) noexcept override {
    void* memory = make_(bytes);
    return Piece{.memory = memory, .bytes = bytes};
  }
  void give_back(Piece /*piece*/, Stream /*stream*/) noexcept override {}

  Make make_;
};

std::string error_of_check(const WrongDevice::Make& make_piece) {
  const Script script = Script().allocate(1, 100).allocate(2, 100, 256).free(1, 100).free(2, 100);
  const auto open_wrong = [&] { return Stack(make<WrongDevice>(make_piece), "wrong"); };
  EXPECT_EQ(replay(script.trace(), open_wrong).error, "") << "only a check looks at the blocks";
  return replay(script.trace(), open_wrong, {.check = true}).error;
}

TEST(ReplayCheck, FindsNothingWhereNothingIsWrong) {
  EXPECT_EQ(error_of_check([next = std::uintptr_t{4096}](std::size_t&) mutable {
              return address(next += 4096);
            }),
            "");
}

TEST(ReplayCheck, CatchesBlocksThatOverlap) {
  EXPECT_THAT(error_of_check([](std::size_t&) { return address(4096); }), HasSubstr("overlaps"));
  EXPECT_THAT(error_of_check([next = std::uintptr_t{8192}](std::size_t& bytes) mutable {
                bytes = 512;
                return address(next -= 256);
              }),
              HasSubstr("overlaps"));
}

TEST(ReplayCheck, CatchesBlocksThatAreTooSmall) {
  EXPECT_THAT(error_of_check([next = std::uintptr_t{0}](std::size_t& bytes) mutable {
                --bytes;
                return address(next += 4096);
              }),
              HasSubstr("smaller"));
}

TEST(ReplayCheck, CatchesBlocksThatAreNotAligned) {
  EXPECT_THAT(error_of_check([next = std::uintptr_t{128}](std::size_t&) mutable {
                return address(next += 4096);
              }),
              HasSubstr("aligned"));
}

/// Forgets every second free until it is gone itself.
class Forgetful final : public Stage {
 public:
  explicit Forgetful(Ref<Resource> upstream, bool says_so)
      : Stage(std::move(upstream)), says_so_(says_so) {}

  Expected<Block> try_allocate(const Request& request) noexcept override {
    return upstream().try_allocate(request);
  }
  bool deallocate(const Block& block, Stream stream) noexcept override {
    if (++frees_ % 2 == 0) {
      forgotten_.push_back(block);
      return !says_so_;
    }
    return upstream().deallocate(block, stream);
  }
  [[nodiscard]] Outstanding outstanding() const noexcept override {
    return upstream().outstanding();
  }

 private:
  ~Forgetful() override {
    for (const Block& block : forgotten_)
      upstream().deallocate(block);
  }

  bool says_so_;
  int frees_ = 0;
  std::vector<Block> forgotten_;
};

std::string error_of_forgetful(bool says_so) {
  const CaughtReports reports;  // what stays live is reported as well
  const Script script = Script().allocate(1, 100).allocate(2, 100).free(1, 100);
  return replay(
             script.trace(),
             [&] { return Stack(make<Forgetful>(make<SimulatedDevice>(), says_so), "forgetful"); })
      .error;
}

TEST(Replay, SaysIfAStackIsNotEmptyInTheEnd) {
  EXPECT_THAT(error_of_forgetful(false), HasSubstr("live"));
}

TEST(Replay, SaysIfAStackRefusesAFree) {
  EXPECT_THAT(error_of_forgetful(true), HasSubstr("refused"));
}

TEST(Replay, TellsThePeakOfEachTurn) {
  // Something is freed in between, and something else, from before the first event too, in the end.
  const Script script =
      Script().initial(9, 2_MiB).allocate(1, 1_MiB).allocate(2, 3_MiB).free(1, 1_MiB).free(9,
                                                                                           2_MiB);
  const auto peaks = [&](const char* stack, std::size_t turns) {
    return replay(script.trace(), opener(stack), {.turns = turns}).peak_reserved_per_turn;
  };
  EXPECT_EQ(peaks("simulated", 1), (std::vector<std::uint64_t>{6_MiB}));
  EXPECT_EQ(peaks("cache > simulated", 3), (std::vector<std::uint64_t>{6_MiB, 6_MiB, 6_MiB}));
  // A first turn that is refused a request does not spoil the next.
  EXPECT_EQ(peaks("simulated(fail_at=3)", 2), (std::vector<std::uint64_t>{3_MiB, 6_MiB}));
  EXPECT_EQ(peaks("simulated(fail_at=6)", 2), (std::vector<std::uint64_t>{6_MiB, 3_MiB}));
  EXPECT_EQ(replay(script.trace(), opener("cache > simulated"), {.turns = 3}).allocations, 2U);
}

}  // namespace
}  // namespace cistern
