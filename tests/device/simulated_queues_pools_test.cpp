// That pools hand memory from stream to stream in order, whatever a program does that keeps the
// rules itself; and that a pool that did not would be caught.
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/device/simulated.hpp"
#include "cistern/device/simulated_queues.hpp"
#include "cistern/stack/stack.hpp"
#include "support/seed.hpp"
#include "support/stream_program.hpp"

namespace cistern {
namespace {

using testing::StreamProgram;

struct QueuedStack {
  const char* name;
  const char* pools;
  bool resets = false;
};
// NOLINTNEXTLINE(readability-identifier-naming): GoogleTest looks for this name
void PrintTo(const QueuedStack& stack, std::ostream* out) {
  *out << stack.pools;
}

struct QueuedFindings {
  std::vector<std::string> reports;
  std::uint64_t works = 0;
  std::uint64_t waits = 0;
  std::uint64_t corruptions = 0;
};

class QueuedPools : public ::testing::TestWithParam<QueuedStack> {
 protected:
  /// One program on one stack; half of them on a device so small that idle memory goes back.
  static QueuedFindings run(std::uint64_t seed, bool ignores_waits) {
    testing::Random random(seed);
    const bool is_small = random.chance(50);
    const Stack stack = open(std::string(GetParam().pools) +
                             " > simulated(queues=true, capacity=" + (is_small ? "8MiB" : "1GiB") +
                             (random.chance(50) ? ", joins_adjacent=true" : "") +
                             (random.chance(20) ? ", extensible=true" : "") + ")");
    auto& device = dynamic_cast<SimulatedDevice&>(stack->device());
    SimulatedQueues& queues = *device.queues();
    queues.ignore_waits(ignores_waits);
    StreamProgram program(*stack, queues,
                          {.streams = 1 + random.below(4),
                           .out_of_order = random.chance(30),
                           .retires = random.chance(30),
                           .outlives = !GetParam().resets,
                           .resets = GetParam().resets && random.chance(50),
                           .most_live = 4 + random.below(20),
                           .largest_bits = 12 + static_cast<unsigned>(random.below(9)),
                           .run_seed = seed});
    const std::uint64_t turn = random.below(1000);
    const std::size_t steps = 10 + random.below(60);
    for (int i = 0; i < 5; ++i)
      program.turn(random.chance(80) ? turn : turn + 1, steps);
    if (random.chance(20)) stack->trim();
    queues.run(seed);
    if (!ignores_waits) {
      EXPECT_EQ(stack->validate(), "");
    }
    return {.reports = queues.reports(),
            .works = queues.works_run(),
            .waits = queues.waits(),
            .corruptions = queues.corruptions()};
  }
};

TEST_P(QueuedPools, HandMemoryOnInOrder) {
  const std::uint64_t first = testing::seed_or(1);
  constexpr std::uint64_t seeds = testing::seeds_at_a_time(2000);
  std::uint64_t works = 0;
  std::uint64_t waits = 0;
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    const QueuedFindings found = run(seed, false);
    ASSERT_EQ(found.reports, std::vector<std::string>());
    ASSERT_EQ(found.corruptions, 0U);
    works += found.works;
    waits += found.waits;
  }
  EXPECT_GT(works, seeds);
  EXPECT_GT(waits, seeds);
}

TEST_P(QueuedPools, AreCaughtWithoutTheirWaits) {
  const std::uint64_t first = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(first));
  std::size_t caught = 0;
  std::size_t corrupted = 0;
  for (std::uint64_t seed = first; seed < first + 200; ++seed) {
    const QueuedFindings found = run(seed, true);
    if (!found.reports.empty()) ++caught;
    if (found.corruptions > 0) ++corrupted;
  }
  EXPECT_GE(caught, 100U);
  EXPECT_GE(corrupted, 50U);
}

INSTANTIATE_TEST_SUITE_P(
    All, QueuedPools,
    ::testing::Values(
        QueuedStack{.name = "cache", .pools = "cache"},
        QueuedStack{.name = "fit", .pools = "cache(buckets=fit, slack=2)"},
        QueuedStack{.name = "coalesce", .pools = "coalesce"},
        QueuedStack{.name = "separate", .pools = "coalesce(streams=separate)"},
        QueuedStack{.name = "pytorch", .pools = "pytorch"},
        QueuedStack{.name = "virtual", .pools = "virtual"},
        QueuedStack{.name = "arena", .pools = "arena(warn_bytes=1GiB)", .resets = true},
        QueuedStack{
            .name = "arena_cache", .pools = "arena(warn_bytes=1GiB) > cache", .resets = true},
        QueuedStack{.name = "planned", .pools = "planned > coalesce", .resets = true}),
    [](const auto& stack) { return std::string(stack.param.name); });

}  // namespace
}  // namespace cistern
