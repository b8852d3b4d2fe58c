// Growing a block where it lies, through every stage there is.
#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/buffer.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/errors.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using Options = SimulatedDevice::Options;
using testing::code_of;
using testing::Ledger;

TEST(Grow, AnExtensibleDeviceGrowsABlockWhereItLies) {
  const auto device = make<SimulatedDevice>(Options{.capacity = 1_MiB, .extensible = true});
  Ledger ledger(*device);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  EXPECT_TRUE(ledger.grow(0, 1_MiB - 1024));  // all that is left
  EXPECT_FALSE(ledger.grow(1, 1025));
  ledger.expect_in_order();
  const Stats stats = device->stats();
  EXPECT_EQ(stats.live_requested.peak, 1_MiB - 1024 + 1000);
  EXPECT_EQ(stats.reserved.current, 1_MiB);
  EXPECT_EQ(stats.allocations, 2U);
  EXPECT_EQ(stats.device_allocations, 3U);
  ledger.free_all();
  testing::expect_nothing_held(*device);
  EXPECT_EQ(device->used(), 0U);
}

TEST(Grow, WithinItsCapacityABlockGrowsOnEveryDevice) {
  for (const Ref<Resource>& device :
       {Ref<Resource>(make<SimulatedDevice>()), Ref<Resource>(make<HostDevice>())}) {
    const Block block = device->allocate(10);
    const Expected<Block> grown = device->try_grow(block, block.bytes);
    ASSERT_TRUE(grown);
    EXPECT_EQ(grown->bytes, block.bytes);
    EXPECT_EQ(device->stats().live_requested.current, block.bytes);
    EXPECT_EQ(device->stats().device_allocations, 1U);
    EXPECT_EQ(code_of(device->try_grow(*grown, block.bytes + 1)), Errc::cannot_grow);
    const Expected<Block> same = device->try_grow(*grown, 1);  // never makes it smaller
    ASSERT_TRUE(same);
    EXPECT_EQ(same->requested, block.bytes);
    EXPECT_TRUE(device->deallocate(*same));
    testing::expect_all_accounted_for(*device);
  }
}

TEST(Grow, TheFormerHandleIsStale) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>(Options{.extensible = true});
  const auto other = make<SimulatedDevice>(Options{.extensible = true});
  const Block block = device->allocate(1000);
  EXPECT_EQ(code_of(other->try_grow(block, 2000)), Errc::invalid_block);
  const Block grown = device->try_grow(block, 2000).value();
  EXPECT_EQ(code_of(device->try_grow(block, 3000)), Errc::invalid_block);
  EXPECT_FALSE(device->deallocate(block));
  EXPECT_EQ(code_of(device->try_grow(Block{}, 1)), Errc::cannot_grow);
  EXPECT_TRUE(device->deallocate(grown));
  EXPECT_EQ(code_of(device->try_grow(grown, 3000)), Errc::invalid_block);
  EXPECT_EQ(reports.all().size(), 1U);
}

TEST(Grow, SizesBeyondMeasureFail) {
  const auto device = make<SimulatedDevice>(Options{.extensible = true});
  const Block block = device->allocate(1000);
  for (const std::size_t bytes : {unbounded, unbounded - 600, std::size_t{1} << 62}) {
    EXPECT_EQ(code_of(device->try_grow(block, bytes)), Errc::too_large);
    EXPECT_EQ(code_of(make<Limit>(device, unbounded)->try_grow(Block{}, bytes)), Errc::cannot_grow);
  }
  EXPECT_TRUE(device->deallocate(block));
}

TEST(Grow, AFailedCallLeavesTheBlockAsItWas) {
  const auto device = make<SimulatedDevice>(Options{.extensible = true});
  const auto stack = make<Limit>(device, 1_MiB);
  Ledger ledger(*stack);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  device->fail_next(1);
  EXPECT_FALSE(ledger.grow(0, 5000));
  ledger.expect_in_order();
  EXPECT_EQ(stack->charged(), 1000U);
  EXPECT_EQ(device->used(), 1024U);
  EXPECT_TRUE(ledger.grow(0, 5000));
  ledger.expect_in_order();
  EXPECT_EQ(stack->charged(), 5000U);
  ledger.free_all();
  testing::expect_nothing_held(*stack);
}

TEST(Grow, ALimitIsChargedTheDifference) {
  const auto limit =
      make<Limit>(make<SimulatedDevice>(Options{.extensible = true}), std::size_t{10'000});
  Ledger ledger(*limit);
  ASSERT_TRUE(ledger.allocate({.bytes = 6000}));
  const Expected<Block> refused = limit->try_grow(ledger.blocks()[0], 10'001);
  ASSERT_FALSE(refused);
  EXPECT_EQ(describe(refused.error()),
            "limit refused 4001 bytes: over the limit (4000 bytes available)");
  EXPECT_TRUE(ledger.grow(0, 10'000));
  EXPECT_EQ(limit->charged(), 10'000U);
  ledger.expect_in_order();
  ledger.free_all();
  EXPECT_EQ(limit->charged(), 0U);
  testing::expect_nothing_held(*limit);
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  const Block foreign = device->allocate(1000);
  EXPECT_EQ(code_of(limit->try_grow(foreign, 2000)), Errc::invalid_block);
  device->deallocate(foreign);
}

TEST(Grow, ACachedBlockGrowsWithinItsCapacity) {
  const auto cache = make<Cache>(make<SimulatedDevice>(Options{.extensible = true}));
  Ledger ledger(*cache);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  EXPECT_TRUE(ledger.grow(0, 1024));
  EXPECT_EQ(code_of(cache->try_grow(ledger.blocks()[0], 1025)), Errc::cannot_grow);
  ledger.expect_in_order();
  EXPECT_EQ(cache->stats().live_requested.current, 1024U);
  ledger.free_all();
  EXPECT_EQ(code_of(cache->try_grow(Block{}, 1)), Errc::cannot_grow);
  testing::expect_all_accounted_for(*cache);
}

TEST(Grow, ABufferKeepsItsPlace) {
  const auto device = make<SimulatedDevice>(Options{.capacity = 1_MiB, .extensible = true});
  Buffer buffer(*device, 1000);
  void* const place = buffer.data();
  EXPECT_TRUE(buffer.try_grow(100'000));
  EXPECT_EQ(buffer.data(), place);
  EXPECT_EQ(buffer.bytes(), 100'000U);
  EXPECT_FALSE(buffer.try_grow(2_MiB));
  EXPECT_EQ(buffer.bytes(), 100'000U);
  Buffer empty;
  EXPECT_EQ(empty.try_grow(1).error().code, Errc::cannot_grow);
  buffer.reset();
  testing::expect_nothing_held(*device);
}

TEST(Grow, AnyOrderOfGrowingKeepsTheLaws) {
  const std::uint64_t seed = testing::seed_or(11);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  const auto stack =
      make<Limit>(make<SimulatedDevice>(
                      Options{.capacity = 4_MiB, .extensible = true, .fail_probability = 0.1}),
                  3_MiB);
  Ledger ledger(*stack);
  for (int step = 0; step < 3000; ++step) {
    const std::uint64_t what = random.below(3);
    if (what == 0 || ledger.size() == 0) {
      ledger.allocate({.bytes = random.size(18)});
    } else if (what == 1) {
      ledger.grow(random.below(ledger.size()), random.size(19));
    } else {
      ledger.free(random.below(ledger.size()));
    }
    ledger.expect_in_order();
  }
  ledger.free_all();
  testing::expect_nothing_held(*stack);
}

}  // namespace
}  // namespace cistern
