#include "cistern/adaptor/limit.hpp"

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;

TEST(Limit, IsFullyUsedAndNotExceededByAByte) {
  const auto limit = make<Limit>(make<SimulatedDevice>(), std::size_t{1000});
  Ledger ledger(*limit);
  EXPECT_TRUE(ledger.allocate({.bytes = 600}));
  const Expected<Block> refused = limit->try_allocate({.bytes = 401});
  ASSERT_FALSE(refused);
  EXPECT_EQ(describe(refused.error()),
            "limit refused 401 bytes: over the limit (400 bytes available)");
  EXPECT_TRUE(ledger.allocate({.bytes = 400}));
  EXPECT_FALSE(limit->try_allocate({.bytes = 1}));
  ledger.free(0);
  EXPECT_TRUE(ledger.allocate({.bytes = 600}));  // freeing restores the budget
  ledger.expect_in_order();
  EXPECT_EQ(limit->stats().failures, 2U);
  EXPECT_EQ(limit->stats().live_requested.peak, 1000U);
  ledger.free_all();
  testing::expect_all_accounted_for(*limit);
}

TEST(Limit, AFailingUpstreamLeavesTheBudgetAsItWas) {
  const auto limit =
      make<Limit>(make<SimulatedDevice>(SimulatedDevice::Options{.fail_every = 1}), 1_MiB);
  for (int i = 0; i < 3; ++i)
    EXPECT_FALSE(limit->try_allocate({.bytes = 1_MiB}));
  EXPECT_EQ(limit->charged(), 0U);
  EXPECT_EQ(limit->stats().failures, 3U);
}

TEST(Limit, HugeRequestsDoNotOverflowIt) {
  const auto limit = make<Limit>(make<SimulatedDevice>(), 1_MiB);
  Ledger ledger(*limit);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  for (const std::size_t bytes : {unbounded, unbounded - 500}) {
    const Expected<Block> block = limit->try_allocate({.bytes = bytes});
    ASSERT_FALSE(block);
    EXPECT_EQ(block.error().code, Errc::over_limit);  // its own answer: the device is not asked
  }
  ledger.expect_in_order();
  ledger.free_all();
  const auto open = make<Limit>(make<SimulatedDevice>(), unbounded);
  EXPECT_EQ(open->try_allocate({.bytes = unbounded}).error().code,
            Errc::too_large);  // the device's answer
  EXPECT_EQ(open->charged(), 0U);
}

TEST(Limit, LoweredBelowWhatIsLiveRefusesUntilEnoughIsFree) {
  const auto limit = make<Limit>(make<SimulatedDevice>(), std::size_t{1000});
  Ledger ledger(*limit);
  ASSERT_TRUE(ledger.allocate({.bytes = 500}));
  ASSERT_TRUE(ledger.allocate({.bytes = 500}));
  EXPECT_EQ(limit->set_max_bytes(600), 1000U);
  EXPECT_FALSE(limit->try_allocate({.bytes = 1}));
  ledger.free(0);
  EXPECT_FALSE(limit->try_allocate({.bytes = 101}));
  EXPECT_TRUE(ledger.allocate({.bytes = 100}));
  ledger.free_all();
}

TEST(Limit, AForeignOrRepeatedFreeNeverUnderflows) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  const auto limit = make<Limit>(make<Cache>(device), 1_MiB);
  const Block block = limit->allocate(1000);
  const Block foreign = device->allocate(1000);
  EXPECT_FALSE(limit->deallocate(foreign));
  EXPECT_EQ(limit->charged(), 1000U);
  EXPECT_TRUE(limit->deallocate(block));
  EXPECT_FALSE(limit->deallocate(block));
  EXPECT_EQ(limit->charged(), 0U);
  EXPECT_EQ(limit->stats().live_requested.current, 0U);
  EXPECT_EQ(limit->stats().refused_frees, 2U);
  device->deallocate(foreign);
}

TEST(Limit, ABlockOfAnotherStageOnTheSameUpstreamIsRefused) {
  const testing::CaughtReports reports;
  const Ref<Resource> shared = make<Cache>(make<SimulatedDevice>());
  const auto one = make<Limit>(shared, 1_MiB);
  const auto other = make<Limit>(shared, 1_MiB);
  const Block block = one->allocate(1000);
  const Block direct = shared->allocate(1000);
  EXPECT_FALSE(other->deallocate(block));
  EXPECT_FALSE(other->deallocate(direct));
  EXPECT_FALSE(shared->deallocate(block));
  EXPECT_FALSE(other->also_used_on(block, {.id = 1}));
  EXPECT_TRUE(one->also_used_on(block, {.id = 1}));
  EXPECT_EQ(one->charged(), 1000U);
  EXPECT_EQ(other->charged(), 0U);
  EXPECT_TRUE(one->deallocate(block));
  EXPECT_TRUE(shared->deallocate(direct));
  testing::expect_all_accounted_for(*one);
  testing::expect_all_accounted_for(*other);
}

TEST(Limit, BelowAPoolBoundsWhatIsReserved) {
  const auto device = make<SimulatedDevice>();
  const Ref<Cache> cache =
      make<Cache>(make<Limit>(device, 8_MiB), Cache::Options{.idle_ratio = Cache::no_ratio});
  const std::uint64_t seed = testing::seed_or(3);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  Ledger ledger(*cache);
  for (int i = 0; i < 2000; ++i) {
    if (ledger.size() > 0 && random.chance(50)) {
      ledger.free(random.below(ledger.size()));
    } else {
      ledger.allocate({.bytes = random.size(21)});
    }
    ASSERT_LE(device->used(), 8_MiB);
  }
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_all_accounted_for(*cache);
}

}  // namespace
}  // namespace cistern
