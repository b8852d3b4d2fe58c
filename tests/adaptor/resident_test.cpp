#include "cistern/adaptor/resident.hpp"

#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/registration.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/pmr.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/stack/stack.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"
#include "support/spy.hpp"

namespace cistern {
namespace {

using namespace literals;
using Options = SimulatedDevice::Options;
using testing::Ledger;

TEST(Resident, ABlockIsResidentAsLongAsItIsHandedOut) {
  const auto device = make<SimulatedDevice>();
  const auto resident = make<Resident>(device);
  Ledger ledger(*resident);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ASSERT_TRUE(ledger.allocate({.bytes = 5000}));
  EXPECT_TRUE(resident->allocate(0).empty());
  EXPECT_EQ(resident->stats().resident.current, 1024U + 5120U);
  EXPECT_EQ(resident->stats().residency_commits, 2U);
  ledger.free(0);
  EXPECT_EQ(resident->stats().resident.current, 5120U);
  ledger.expect_in_order();
  ledger.free_all();
  EXPECT_EQ(resident->stats().resident.current, 0U);
  testing::expect_all_accounted_for(*resident);
}

TEST(Resident, BelowAPoolABlockIsCommittedOnce) {
  const Stack stack = open("cache > resident > simulated");
  for (int i = 0; i < 100; ++i)
    stack->deallocate(stack->allocate(1_MiB));
  EXPECT_EQ(stack->stats().residency_commits, 1U);
  EXPECT_EQ(stack->stats().resident.current, 1_MiB);  // while it is idle too
  EXPECT_EQ(stack->trim(), 1_MiB);
  EXPECT_EQ(stack->stats().resident.current, 0U);
  EXPECT_EQ(stack->validate(), "");
}

TEST(Resident, ItEndsBeforeTheMemoryGoesBack) {
  const auto spy = make<testing::Spy>(make<SimulatedDevice>());
  const auto resident = make<Resident>(spy);
  std::size_t at_free = unbounded;
  spy->before_free = [&](const Block&) { at_free = spy->stats().resident.current; };
  resident->deallocate(resident->allocate(1000));
  EXPECT_EQ(at_free, 0U);
}

// A hint that is refused, at any commit, costs the block its residency and nothing else.
TEST(Resident, ARefusedHintIsNoFailureOfTheAllocation) {
  for (std::uint64_t n = 1; n <= 5; ++n) {
    const auto device = make<SimulatedDevice>(Options{.refuse_residency_at = n});
    const auto resident = make<Resident>(device);
    Ledger ledger(*resident);
    for (int i = 0; i < 4; ++i)
      ASSERT_TRUE(ledger.allocate({.bytes = 1024}));
    ASSERT_TRUE(ledger.allocate_batch(std::vector<Request>(3, {.bytes = 1024})));
    const std::size_t refused = n == 5 ? 3 : 1;
    EXPECT_EQ(resident->stats().resident.current, (7 - refused) * 1024);
    EXPECT_EQ(resident->stats().residency_refusals, 1U);
    EXPECT_EQ(resident->stats().residency_commits, 4U);
    EXPECT_EQ(resident->stats().failures, 0U);
    EXPECT_EQ(device->residency()->last_refusal()->code, Errc::device_failed);
    ledger.expect_in_order();
    ledger.free_all();
    EXPECT_EQ(resident->stats().resident.current, 0U);
    testing::expect_all_accounted_for(*resident);
  }
}

TEST(Resident, AGrownBlockIsResidentAsAWhole) {
  const auto device = make<SimulatedDevice>(Options{.extensible = true});
  const auto resident = make<Resident>(device);
  Ledger ledger(*resident);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  EXPECT_TRUE(ledger.grow(0, 1024));  // within its capacity: nothing new to commit
  EXPECT_EQ(device->residency_calls(), 1U);
  EXPECT_TRUE(ledger.grow(0, 10_KiB));
  EXPECT_EQ(resident->stats().resident, (Gauge{.current = 10_KiB, .peak = 10_KiB}));
  device->fail_next(1);
  EXPECT_FALSE(ledger.grow(0, 20_KiB));
  EXPECT_EQ(resident->stats().resident.current, 10_KiB);
  device->refuse_next_residency(1);
  EXPECT_TRUE(ledger.grow(0, 20_KiB));
  EXPECT_EQ(resident->stats().resident.current, 0U);
  EXPECT_TRUE(ledger.grow(0, 30_KiB));
  EXPECT_EQ(resident->stats().resident.current, 30_KiB);
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*resident);
}

TEST(Resident, AStaleOrForeignFreeEndsNothing) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  const auto resident = make<Resident>(device);
  const Block block = resident->allocate(1000);
  const Block direct = device->allocate(1000);
  EXPECT_FALSE(resident->deallocate(direct));
  EXPECT_EQ(resident->stats().refused_frees, 1U);
  EXPECT_EQ(resident->stats().resident.current, 1024U);
  EXPECT_EQ(resident->try_grow(direct, 1).error().code, Errc::invalid_block);
  EXPECT_EQ(resident->also_used_on(direct, {}).error().code, Errc::invalid_block);
  EXPECT_EQ(resident->try_grow({}, 1).error().code, Errc::cannot_grow);
  EXPECT_TRUE(resident->also_used_on(block, {.id = 2}));
  EXPECT_TRUE(resident->deallocate(block));
  EXPECT_FALSE(resident->deallocate(block));
  EXPECT_EQ(reports.all().size(), 2U);
  device->deallocate(direct);
  testing::expect_nothing_held(*resident);
}

TEST(Resident, TwoOfThemCountABlockOnce) {
  const Stack stack = open("resident > cache > resident > simulated");
  stack->deallocate(stack->allocate(1_MiB));
  EXPECT_EQ(stack->stats().resident, (Gauge{.current = 1_MiB, .peak = 1_MiB}));
  EXPECT_EQ(stack->stats().residency_commits, 1U);
  stack->trim();
  EXPECT_EQ(stack->stats().resident.current, 0U);
  EXPECT_EQ(stack->validate(), "");
}

TEST(Resident, NeedsOneDeviceThatHasResidency) {
  EXPECT_THROW(make<Resident>(make<PmrDevice>(std::pmr::get_default_resource())),
               std::invalid_argument);
  EXPECT_THROW(make<Resident>(Ref<Resource>()), std::invalid_argument);
  EXPECT_THROW(open("resident > fallback(simulated, host)"), std::invalid_argument);
  EXPECT_THROW(open("resident > host(memory=file)"), std::invalid_argument);
  const auto device = make<SimulatedDevice>();
  EXPECT_NO_THROW(open("resident > fallback(limit(1MiB) > mine, mine)", {{"mine", device}}));
  EXPECT_NO_THROW(open("resident > deferred(cache > simulated, otherwise=host)"));
}

TEST(Resident, ClosedWithLiveBlocksItStaysForTheLast) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  Buffer last;
  {
    const Ref<Resource> resident = make<Resident>(device);
    last = Buffer(*resident, 1000);
  }
  EXPECT_EQ(reports.all().size(), 1U);
  EXPECT_EQ(device->stats().resident.current, 1024U);
  last.reset();
  EXPECT_EQ(device->stats().resident.current, 0U);
  testing::expect_all_accounted_for(*device);
}

TEST(Resident, ItsPeaksCanBeReset) {
  const Ref<Resource> resident = make<Resident>(make<SimulatedDevice>());
  resident->deallocate(resident->allocate(1_MiB));
  resident->reset_peaks();
  EXPECT_EQ(resident->stats().resident.peak, 0U);
  EXPECT_EQ(resident->stats().live_granted.peak, 0U);
}

// Live memory is what is resident, whatever fails.
TEST(Resident, AnyOrderKeepsTheLaws) {
  for (const char* text :
       {"resident > simulated(4MiB, extensible=true, fail_probability=10%)",
        "cache > resident > simulated(4MiB, fail_every=5, refuse_residency_every=4)",
        "coalesce > resident > simulated(4MiB, extensible=true, fail_every=7)",
        "resident > virtual(page=4KiB) > simulated(4MiB, refuse_residency_every=3)"}) {
    SCOPED_TRACE(text);
    const std::uint64_t seed = testing::seed_or(31);
    SCOPED_TRACE(testing::replay_hint(seed));
    testing::Random random(seed);
    const Stack stack = open(text);
    const bool refuses = std::string(text).find("refuse") != std::string::npos;
    Ledger ledger(*stack);
    for (int step = 0; step < 2000; ++step) {
      const std::uint64_t what = random.below(10);
      if (what < 3 || ledger.size() == 0) {
        ledger.allocate({.bytes = random.size(17)});
      } else if (what == 3) {
        ledger.allocate_batch(std::vector<Request>(random.below(5), {.bytes = random.size(14)}));
      } else if (what < 6) {
        ledger.grow(random.below(ledger.size()), random.size(17));
      } else if (what == 6 && random.chance(10)) {
        stack->trim(random.size(20));
      } else {
        ledger.free(random.below(ledger.size()));
      }
      ledger.expect_in_order();
      const Stats stats = stack->stats();
      const std::string outermost(text, 8);
      const std::size_t obtained =
          outermost == "resident" ? stats.live_granted.current : stats.reserved.current;
      if (refuses) {
        EXPECT_LE(stats.resident.current, obtained);
      } else {
        EXPECT_EQ(stats.resident.current, obtained);
      }
      if (::testing::Test::HasFailure()) return;
    }
    ledger.free_all();
    testing::expect_nothing_held(*stack);
    EXPECT_EQ(stack->stats().resident.current, 0U);
  }
}

}  // namespace
}  // namespace cistern
