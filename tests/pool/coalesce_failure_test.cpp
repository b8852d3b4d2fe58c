// Nothing is lost whichever device call fails, and whichever record the host has no memory for.
#include <algorithm>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "support/coalesces.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::FailingNew;
using testing::Ledger;

/// The same seeded run of requests and frees on any pool; returns how many requests failed.
std::size_t recorded_stream_run(Coalesce& pool, std::uint64_t seed) {
  testing::Random random(seed);
  Ledger ledger(pool);
  std::size_t failed = 0;
  for (int step = 0; step < 200; ++step) {
    const Stream stream{.id = random.below(3)};
    if (ledger.size() > 0 && random.chance(45)) {
      ledger.free(random.below(ledger.size()), stream);
    } else {
      const Stats before = pool.stats();
      if (!ledger.allocate({.bytes = random.size(20),
                            .alignment = std::size_t{1} << random.below(14),
                            .stream = stream})) {
        ++failed;
        const Stats after = pool.stats();
        EXPECT_EQ(after.failures, before.failures + 1);
        EXPECT_EQ(after.live_granted, before.live_granted);
        EXPECT_EQ(after.allocations, before.allocations);
      }
    }
    if (random.chance(3)) pool.trim(random.size(20));
    ledger.expect_in_order();
  }
  ledger.free_all();
  return failed;
}

struct SimulatedKind {
  const char* name;
  SimulatedDevice::Options options;
};
// NOLINTNEXTLINE(readability-identifier-naming): GoogleTest looks for this name
void PrintTo(const SimulatedKind& kind, std::ostream* out) {
  *out << kind.name;
}

class CoalesceFailure
    : public ::testing::TestWithParam<std::tuple<testing::NamedOptions, SimulatedKind>> {
 protected:
  [[nodiscard]] static Coalesce::Options options() { return std::get<0>(GetParam()).options; }
  [[nodiscard]] static SimulatedDevice::Options device() { return std::get<1>(GetParam()).options; }
};
INSTANTIATE_TEST_SUITE_P(
    All, CoalesceFailure,
    ::testing::Combine(::testing::ValuesIn(testing::coalesce_policies()),
                       ::testing::Values(SimulatedKind{"simulated", {}},
                                         SimulatedKind{"extensible", {.extensible = true}},
                                         SimulatedKind{"joining", {.joins_adjacent = true}})),
    [](const auto& each) {
      return std::string(std::get<0>(each.param).name) + "_" + std::get<1>(each.param).name;
    });

TEST_P(CoalesceFailure, WhicheverDeviceCallFailsNothingIsLost) {
  const std::uint64_t seed = testing::seed_or(5);
  SCOPED_TRACE(testing::replay_hint(seed));
  const auto healthy = make<SimulatedDevice>(device());
  EXPECT_EQ(recorded_stream_run(*make<Coalesce>(healthy, options()), seed), 0U);
  const std::uint64_t calls = healthy->allocation_calls();
  ASSERT_GT(calls, 1U);
  for (std::uint64_t n = 1; n <= std::min<std::uint64_t>(calls, 60); ++n) {
    SimulatedDevice::Options failing = device();
    failing.fail_at = n;
    const auto simulated = make<SimulatedDevice>(failing);
    const Ref<Coalesce> pool = make<Coalesce>(simulated, options());
    ASSERT_LE(recorded_stream_run(*pool, seed), 1U) << "call " << n;
    pool->deallocate(pool->allocate(12'345));  // the next request works
    testing::expect_all_accounted_for(*pool);
    ASSERT_EQ(simulated->used(), 0U);
  }
}

TEST_P(CoalesceFailure, ADeviceThatKeepsFailingLosesNothing) {
  const std::uint64_t seed = testing::seed_or(6);
  SCOPED_TRACE(testing::replay_hint(seed));
  for (int way = 0; way < 6; ++way) {
    SimulatedDevice::Options failing = device();
    if (way == 0) failing.fail_every = 1;
    if (way == 1) failing.fail_every = 2;
    if (way == 2) failing.fail_every = 3;
    if (way == 3) failing.fail_probability = 0.5;
    if (way == 4) failing.fail_beyond = 3_MiB;
    if (way == 5) failing.capacity = 2_MiB;
    const auto simulated = make<SimulatedDevice>(failing);
    const Ref<Coalesce> pool = make<Coalesce>(simulated, options());
    recorded_stream_run(*pool, seed);
    testing::expect_all_accounted_for(*pool);
    ASSERT_EQ(simulated->used(), 0U) << way;
  }
}

TEST_P(CoalesceFailure, AHostWithoutMemoryForRecordsLosesNothing) {
  for (int n = 1; n <= 60; ++n) {
    const auto simulated = make<SimulatedDevice>(device());
    const Ref<Coalesce> pool = make<Coalesce>(simulated, options());
    std::vector<Block> blocks;
    blocks.reserve(600);
    std::size_t failed = 0;
    bool has_failed = false;
    {
      const FailingNew failing(n);
      for (std::size_t i = 1; i <= 600; ++i) {
        const Expected<Block> block = pool->try_allocate({.bytes = (i * 7919) % 90'000 + 1,
                                                          .alignment = i % 5 == 0 ? 4_KiB : 0,
                                                          .stream = {.id = i % 3}});
        if (block) blocks.push_back(*block);
        if (!block) ++failed;
        if (i % 3 == 0 && !blocks.empty()) {
          std::swap(blocks[i * 31 % blocks.size()], blocks.back());
          EXPECT_TRUE(pool->deallocate(blocks.back(), {.id = i % 4}));
          blocks.pop_back();
        }
        if (i % 100 == 0) pool->trim(64_KiB);
      }
      has_failed = FailingNew::has_failed();
    }
    EXPECT_TRUE(has_failed || failed == 0);
    EXPECT_EQ(pool->stats().failures, failed);
    EXPECT_EQ(pool->validate(), "");
    for (const Block& block : blocks)
      EXPECT_TRUE(pool->deallocate(block));
    testing::expect_all_accounted_for(*pool);
    EXPECT_EQ(simulated->used(), 0U);
    if (!has_failed) return;  // n is beyond all uses
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_P(CoalesceFailure, WithoutMemoryForRecordsHolesAreStillGranted) {
  const Ref<Coalesce> pool = make<Coalesce>(make<SimulatedDevice>(device()), options());
  const Block block = pool->allocate(10'000);
  pool->deallocate(block);
  if (pool->largest_hole() == 0) return;
  const FailingNew failing(1);
  const Expected<Block> again = pool->try_allocate({.bytes = 10'000});
  ASSERT_TRUE(again);
  EXPECT_TRUE(pool->deallocate(*again));
}

TEST(CoalesceRecords, AFreeNeedsNone) {
  const auto pool =
      make<Coalesce>(make<SimulatedDevice>(SimulatedDevice::Options{.joins_adjacent = true}));
  std::vector<Block> blocks;
  for (std::size_t i = 0; i < 300; ++i)
    blocks.push_back(pool->allocate({.bytes = 100'000, .stream = {.id = i % 7}}));
  {
    const FailingNew failing(1);
    for (std::size_t i = 0; i < blocks.size(); ++i)
      EXPECT_TRUE(pool->deallocate(blocks[i * 7 % 300], {.id = i % 9}));
    EXPECT_FALSE(FailingNew::has_failed());
  }
  testing::expect_all_accounted_for(*pool);
}

}  // namespace
}  // namespace cistern
