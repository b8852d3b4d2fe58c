// Nothing is lost whichever device call fails, and whenever the host has no memory for records.
#include <algorithm>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/planned.hpp"
#include "support/cycles.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::allocates;
using testing::frees;
using testing::frees_of_turn_before;
using testing::Turn;

// Learned, deviating, growing, double-buffered, learned anew.
std::vector<Turn> turns() {
  const Turn token = testing::token({1000, 5000, 300, 20'000});
  const Turn other = testing::token({700, 1000, 5000, 300, 20'000});
  const Turn late = {allocates(1000), allocates(5000), frees(1), frees(0)};
  const Turn buffered = {frees_of_turn_before(1), allocates(4000), allocates(9000), frees(0)};
  std::vector<Turn> all = {token, token, token, other, token, late, token, other, other, other};
  all.insert(all.end(), 4, buffered);
  for (std::size_t i = 0; i < 4; ++i)
    all.push_back(testing::token({1000, 5000 + 3000 * i}));
  return all;
}

/// The same turns on any pool, as far as its memory goes. Returns how many requests failed.
std::size_t run_turns(Planned& pool, bool with_resets, std::optional<int> without_heap = {}) {
  std::size_t failed = 0;
  std::vector<Block> before;
  std::vector<Block> now;
  now.reserve(16);
  before.reserve(16);
  const std::vector<Turn> all = turns();
  const std::optional<testing::FailingNew> failing =
      without_heap ? std::optional<testing::FailingNew>(std::in_place, *without_heap)
                   : std::nullopt;
  int number = 0;
  const auto give_back = [&](std::vector<Block>& blocks) {
    for (Block& block : blocks)
      pool.deallocate(std::exchange(block, {}));
    blocks.clear();
  };
  for (const Turn& turn : all) {
    give_back(before);
    std::swap(before, now);
    for (const testing::Event& event : turn) {
      if (event.kind == testing::Event::Kind::allocate) {
        const Stats stats = pool.stats();
        const Expected<Block> block = pool.try_allocate(event.request);
        now.push_back(block ? *block : Block{});
        if (block) continue;
        ++failed;
        EXPECT_EQ(pool.stats().failures, stats.failures + 1);
        EXPECT_EQ(pool.stats().live_granted, stats.live_granted);
      } else {
        std::vector<Block>& blocks = event.kind == testing::Event::Kind::free ? now : before;
        if (event.number < blocks.size()) pool.deallocate(std::exchange(blocks[event.number], {}));
      }
    }
    if (++number == 8) pool.trim();
    if (with_resets && number % 3 == 0) {
      before.clear();
      now.clear();
      pool.reset();
    } else {
      pool.cycle();
    }
  }
  give_back(before);
  give_back(now);
  return failed;
}

void expect_that_it_works(Planned& pool, const SimulatedDevice& device) {
  EXPECT_EQ(pool.validate(), "");
  {
    testing::Loop loop(pool);
    const Turn turn = testing::token({123, 45'678});
    loop.cycles(turn, 40);  // a slab that could not be had is asked for again
    const std::uint64_t served = pool.counts().served;
    loop.cycle(turn);
    EXPECT_EQ(pool.counts().served, served + 2);
  }
  testing::expect_all_accounted_for(pool);
  EXPECT_EQ(device.used(), 0U);
}

TEST(PlannedFailure, WhicheverDeviceCallFailsNothingIsLost) {
  for (const bool with_resets : {false, true}) {
    const auto healthy = make<SimulatedDevice>();
    EXPECT_EQ(run_turns(*make<Planned>(healthy), with_resets), 0U);
    const std::uint64_t calls = healthy->allocation_calls();
    ASSERT_GT(calls, 20U);
    for (std::uint64_t n = 1; n <= calls; ++n) {
      SCOPED_TRACE(n);
      const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.fail_at = n});
      const Ref<Planned> pool = make<Planned>(device);
      ASSERT_LE(run_turns(*pool, with_resets), 1U);
      expect_that_it_works(*pool, *device);
    }
  }
}

TEST(PlannedFailure, ADeviceThatKeepsFailingLosesNothing) {
  for (const std::uint64_t every : {1U, 2U, 3U, 5U, 7U}) {
    SCOPED_TRACE(every);
    const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.fail_every = every});
    const Ref<Planned> pool = make<Planned>(device);
    run_turns(*pool, every % 2 == 0);
    EXPECT_EQ(pool->validate(), "");
    testing::expect_all_accounted_for(*pool);
    EXPECT_EQ(device->used(), 0U);
  }
}

TEST(PlannedFailure, AHostWithoutMemoryLosesNothing) {
  for (const bool with_resets : {false, true}) {
    bool has_failed = true;
    for (int n = 1; has_failed && n < 2000; ++n) {
      SCOPED_TRACE(n);
      const auto device = make<SimulatedDevice>();
      const Ref<Planned> pool = make<Planned>(device);
      run_turns(*pool, with_resets, n);
      has_failed = testing::FailingNew::has_failed();
      expect_that_it_works(*pool, *device);
      if (HasFailure()) return;
    }
    EXPECT_FALSE(has_failed);
  }
}

// The records of a step outlive whatever became of their plan.
TEST(PlannedFailure, HandlesAreRefusedThoughAPlanCouldNotBeMade) {
  const auto device = make<SimulatedDevice>();
  for (int n = 1; n < 60; ++n) {
    const Ref<Planned> pool = make<Planned>(device);
    testing::Loop loop(*pool);
    loop.cycles(testing::token({1000, 2000, 3000}), 3);
    const Block first = pool->allocate(1000);
    EXPECT_TRUE(pool->deallocate(first));
    loop.cycles(testing::token({20'000, 30'000}), 3);
    const Block second = pool->allocate(20'000);
    EXPECT_TRUE(pool->deallocate(second));
    pool->cycle();
    loop.cycle(testing::token({500}));
    const std::vector<void*> places = loop.events_of(testing::token({500}));
    {
      const testing::FailingNew failing(n);
      pool->cycle();  // would make a plan in the records of the first
    }
    EXPECT_FALSE(pool->is_live(first));
    EXPECT_FALSE(pool->is_live(second));
    EXPECT_EQ(pool->validate(), "");
  }
}

TEST(PlannedFailure, ASlabThatCannotBeHadIsAskedForSeldom) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 64_KiB});
  const Ref<Planned> pool = make<Planned>(device);
  testing::Loop loop(*pool);
  const Block other = pool->allocate(32_KiB);
  pool->cycle();
  loop.cycle(testing::token({20'000}));
  const Turn turn = testing::token({30'000});  // with room to vary in there is none for the slab
  loop.cycle(turn);
  EXPECT_EQ(pool->counts().plans, 1U);
  const std::uint64_t calls = device->allocation_calls();
  loop.cycles(turn, 64);
  EXPECT_EQ(pool->counts().plans, 1U);
  EXPECT_EQ(pool->counts().served, 0U);
  EXPECT_EQ(device->allocation_calls() - calls, 64U + 4U);
  pool->deallocate(other);
  loop.cycles(turn, 17);
  EXPECT_TRUE(pool->is_served_from_plan());
}

TEST(PlannedFailure, AFullDeviceTakesTheIdleSlabBack) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 64_KiB});
  const Ref<Planned> pool = make<Planned>(device);
  testing::Loop loop(*pool);
  loop.cycles(testing::token({10'000, 30'000}), 3);
  const Block large = pool->allocate(60'000);
  EXPECT_EQ(pool->slab_bytes(), 0U);
  pool->deallocate(large);
  pool->cycle();
  loop.cycles(testing::token({10'000, 30'000}), 2);
  ASSERT_TRUE(pool->pin());
  EXPECT_FALSE(pool->try_allocate({.bytes = 60'000}));
  EXPECT_GT(pool->slab_bytes(), 0U);
  pool->unpin();
}

}  // namespace
}  // namespace cistern
