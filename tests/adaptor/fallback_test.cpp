#include "cistern/adaptor/fallback.hpp"

#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/measure.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"
#include "support/spy.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;
using testing::Spy;

/// The `n`-th device has addresses of its own.
Ref<SimulatedDevice> nth_device(std::size_t capacity, std::size_t n) {
  return make<SimulatedDevice>(
      SimulatedDevice::Options{.capacity = capacity, .first_address = n << 40U});
}

TEST(Fallback, TheSecondTakesWhatTheFirstCannot) {
  const auto first = nth_device(1_MiB, 1);
  const auto second = nth_device(1_GiB, 2);
  const auto fallback = make<Fallback>(first, second);
  const Block one = fallback->allocate(1_MiB);
  const Block two = fallback->allocate(512_KiB);   // the first is full
  const Block three = fallback->allocate(16_MiB);  // and could never hold this
  EXPECT_EQ(first->used(), 1_MiB);
  EXPECT_EQ(second->used(), 16_MiB + 512_KiB);
  const Stats stats = fallback->stats();
  EXPECT_EQ(stats.live_granted.current, 17_MiB + 512_KiB);
  EXPECT_EQ(stats.reserved.current, 17_MiB + 512_KiB);
  EXPECT_EQ(stats.spilled.current, 16_MiB + 512_KiB);
  EXPECT_EQ(stats.device_allocations, 3U);
  EXPECT_EQ(stats.misses, 3U);
  EXPECT_EQ(stats.failures, 0U);
  EXPECT_EQ(fallback->validate(), "");

  EXPECT_TRUE(fallback->deallocate(one));  // the first has room again
  EXPECT_EQ(first->used(), 0U);
  const Block four = fallback->allocate(1_MiB);
  EXPECT_EQ(first->used(), 1_MiB);
  for (const Block& block : {two, three, four})
    EXPECT_TRUE(fallback->deallocate(block));
  EXPECT_EQ(fallback->stats().spilled, (Gauge{.current = 0, .peak = 16_MiB + 512_KiB}));
  testing::expect_all_accounted_for(*fallback);
}

TEST(Fallback, ABrokenFirstIsNoReasonToFail) {
  const auto spy = make<Spy>(make<SimulatedDevice>());
  spy->before_request = [](const Request&) { return Errc::device_failed; };
  const auto fallback = make<Fallback>(spy, make<SimulatedDevice>());
  Ledger ledger(*fallback);
  EXPECT_TRUE(ledger.allocate({.bytes = 1000}));
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_all_accounted_for(*fallback);
}

TEST(Fallback, WhereBothFailTheErrorIsTheOneThatHelps) {
  const auto one = make<Spy>(make<SimulatedDevice>());
  const auto other = make<Spy>(make<SimulatedDevice>());
  const auto fallback = make<Fallback>(one, other);
  Errc of_one{};
  Errc of_other{};
  one->before_request = [&](const Request&) { return of_one; };
  other->before_request = [&](const Request&) { return of_other; };
  const auto error = [&](Errc first, Errc second) {
    of_one = first;
    of_other = second;
    return fallback->try_allocate({.bytes = 1000}).error().code;
  };
  EXPECT_EQ(error(Errc::over_limit, Errc::out_of_memory), Errc::over_limit);
  EXPECT_EQ(error(Errc::out_of_memory, Errc::device_failed), Errc::out_of_memory);
  EXPECT_EQ(error(Errc::device_failed, Errc::too_large), Errc::device_failed);
  EXPECT_EQ(error(Errc::device_failed, Errc::out_of_memory), Errc::out_of_memory);
  EXPECT_EQ(fallback->stats().failures, 4U);
  EXPECT_EQ(fallback->stats().allocations, 0U);
  EXPECT_FALSE(fallback->try_allocate({.bytes = unbounded}));
}

TEST(Fallback, AlignmentAndStreamsReachBoth) {
  const auto one = make<Spy>(
      make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB, .alignment = 4_KiB}));
  const auto other = make<Spy>(nth_device(1_GiB, 2));
  const auto fallback = make<Fallback>(one, other);
  const Request request{.bytes = 1_MiB, .alignment = 64_KiB, .stream = {.id = 5}};
  const Block first = fallback->allocate(request);
  const Block second = fallback->allocate(request);
  for (const auto& spy : {one, other}) {
    EXPECT_EQ(spy->requests.back().alignment, 64_KiB);
    EXPECT_EQ(spy->requests.back().stream.id, 5U);
  }
  EXPECT_TRUE(fallback->also_used_on(first, {.id = 6}));
  EXPECT_TRUE(fallback->also_used_on(second, {.id = 7}));
  EXPECT_TRUE(fallback->deallocate(first, {.id = 8}));
  EXPECT_TRUE(fallback->deallocate(second, {.id = 9}));
  EXPECT_EQ(one->also_used.at(0).stream.id, 6U);
  EXPECT_EQ(other->also_used.at(0).stream.id, 7U);
  EXPECT_EQ(one->freed.at(0).stream.id, 8U);
  EXPECT_EQ(other->freed.at(0).stream.id, 9U);
  EXPECT_FALSE(fallback->also_used_on(second, {.id = 7}));

  // Without a wish, a block of the second is as aligned as the first's device promises.
  Ledger ledger(*fallback);
  ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
  ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
  EXPECT_EQ(other->requests.back().alignment, 4_KiB);
  EXPECT_FALSE(fallback->try_allocate({.bytes = 1000, .alignment = 3}));
  ledger.free_all();
  fallback->cycle();
  EXPECT_EQ(one->cycles + other->cycles, 2U);
}

TEST(Fallback, StaleAndForeignFreesAreRefused) {
  const testing::CaughtReports reports;
  const auto first = nth_device(1_MiB, 1);
  const auto second = make<SimulatedDevice>();
  const auto fallback = make<Fallback>(first, second);
  const Block one = fallback->allocate(1_MiB);
  const Block two = fallback->allocate(1_MiB);
  const Block foreign = second->allocate(1_MiB);
  EXPECT_FALSE(fallback->deallocate(foreign));
  EXPECT_FALSE(first->deallocate(one));
  EXPECT_FALSE(second->deallocate(two));
  EXPECT_TRUE(fallback->deallocate(two));
  EXPECT_FALSE(fallback->deallocate(two));
  EXPECT_TRUE(fallback->deallocate(one));
  EXPECT_EQ(fallback->stats().refused_frees, 2U);
  EXPECT_TRUE(second->deallocate(foreign));
  testing::expect_all_accounted_for(*fallback);
}

TEST(Fallback, AnEmptyBlockIsNobodys) {
  const auto fallback = make<Fallback>(make<SimulatedDevice>(), make<SimulatedDevice>());
  const Block empty = fallback->allocate(std::size_t{0});
  EXPECT_TRUE(empty.empty());
  EXPECT_TRUE(fallback->deallocate(empty));
  EXPECT_TRUE(fallback->also_used_on(empty, {.id = 1}));
  EXPECT_EQ(fallback->stats(), Stats{});
}

Ref<Cache> cache_of(std::size_t capacity, std::size_t n) {
  return make<Cache>(nth_device(capacity, n), Cache::Options{.idle_ratio = Cache::no_ratio});
}

TEST(Fallback, TrimsTheFirstBeforeTheSecondAndKeepsWhatItMay) {
  const auto first = cache_of(4_MiB, 1);
  const auto second = cache_of(16_MiB, 2);
  const auto fallback = make<Fallback>(first, second);
  Ledger ledger(*fallback);
  for (int i = 0; i < 8; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
  ledger.free_all();
  EXPECT_EQ(fallback->stats().cached.current, 8_MiB);
  EXPECT_EQ(fallback->stats().pools, 2U);
  EXPECT_EQ(fallback->buckets().size(), first->buckets().size() + second->buckets().size());
  EXPECT_EQ(fallback->trim(6_MiB), 2_MiB);
  EXPECT_EQ(first->stats().cached.current, 2_MiB);
  EXPECT_EQ(second->stats().cached.current, 4_MiB);
  EXPECT_EQ(fallback->trim(3_MiB), 3_MiB);
  EXPECT_EQ(first->stats().cached.current, 0U);
  EXPECT_EQ(second->stats().cached.current, 3_MiB);
  EXPECT_EQ(fallback->trim(3_MiB), 0U);
  testing::expect_all_accounted_for(*fallback);
}

TEST(Fallback, HitsAndMissesAreThoseOfBoth) {
  const auto fallback = make<Fallback>(cache_of(1_MiB, 1), cache_of(16_MiB, 2));
  const Ref<Resource> top = make<Cache>(fallback, Cache::Options{.max_bytes = 0});
  Ledger ledger(*top);
  for (int turn = 0; turn < 3; ++turn) {
    ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
    ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
    ledger.free_all();
  }
  for (const Resource* stage : {top.get(), static_cast<Resource*>(fallback.get())}) {
    EXPECT_EQ(stage->stats().hits, 4U);
    EXPECT_EQ(stage->stats().misses, 2U);
    EXPECT_EQ(stage->stats().device_allocations, 2U);
    EXPECT_EQ(stage->stats().spilled, (Gauge{.current = 0, .peak = 1_MiB}));
  }
  testing::expect_all_accounted_for(*top);
}

TEST(Fallback, WhatIsSpilledIsCountedOnceHoweverTheyAreNested) {
  const auto device = [](std::size_t n) { return nth_device(1_MiB, n); };
  const auto left = make<Fallback>(make<Fallback>(device(1), device(2)), device(3));
  const auto right = make<Fallback>(device(1), make<Fallback>(device(2), device(3)));
  for (const auto& fallback : {left, right}) {
    Ledger ledger(*fallback);
    for (int i = 0; i < 3; ++i)
      ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
    EXPECT_FALSE(fallback->try_allocate({.bytes = 1_MiB}));
    EXPECT_EQ(fallback->stats().spilled.current, 2_MiB);
    EXPECT_EQ(fallback->stats().reserved.current, 3_MiB);
    ledger.expect_in_order();
    ledger.free_all();
    testing::expect_all_accounted_for(*fallback);
  }
}

TEST(Fallback, AScopePutsThePeaksOfBothBack) {
  const auto fallback = make<Fallback>(cache_of(4_MiB, 1), cache_of(16_MiB, 2));
  const Ref<Resource> top = make<Limit>(fallback, 1_GiB);
  Ledger ledger(*top);
  for (int i = 0; i < 8; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
  ledger.free_all();
  top->trim();
  const Stats before = top->stats();
  EXPECT_EQ(before.reserved.peak, 8_MiB);
  EXPECT_EQ(before.cached.peak, 8_MiB);
  EXPECT_EQ(before.spilled.peak, 4_MiB);
  {
    Measure scope(*top);
    EXPECT_EQ(top->stats().reserved.peak, 0U);
    ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
    ledger.free_all();
    EXPECT_EQ(scope.stop().reserved.peak, 1_MiB);
  }
  EXPECT_EQ(top->stats().reserved.peak, before.reserved.peak);
  EXPECT_EQ(top->stats().cached.peak, before.cached.peak);
  EXPECT_EQ(top->stats().spilled.peak, before.spilled.peak);
}

TEST(Fallback, StaysForItsLastBlockAndReportsOnce) {
  const testing::CaughtReports reports;
  const auto second = make<SimulatedDevice>();
  Ref<Resource> fallback = make<Fallback>(nth_device(1_MiB, 1), second);
  Resource& resource = *fallback;
  const Block one = resource.allocate(1_MiB);
  const Block two = resource.allocate(2_MiB);
  fallback = {};
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_NE(reports.all()[0].find("blocks still out: 2, of 3145728 bytes"), std::string::npos);
  EXPECT_TRUE(resource.deallocate(one));
  EXPECT_TRUE(resource.deallocate(two));
  EXPECT_EQ(second->used(), 0U);
  EXPECT_EQ(reports.all().size(), 1U);
}

TEST(Fallback, WithoutMemoryForARecordNothingIsLost) {
  const auto fallback = make<Fallback>(nth_device(1_MiB, 1), cache_of(1_GiB, 2));
  std::vector<Block> blocks;
  blocks.reserve(10'000);
  int refused = 0;
  for (int i = 0; i < 500; ++i) {
    const Expected<Block> block = [&] {
      const testing::FailingNew failing(1 + i % 3);
      return fallback->try_allocate({.bytes = 4_KiB});
    }();
    if (block) {
      blocks.push_back(*block);
    } else {
      ++refused;
      EXPECT_EQ(block.error().code, Errc::out_of_memory);
    }
    ASSERT_EQ(fallback->validate(), "");
  }
  EXPECT_GT(refused, 0);
  EXPECT_EQ(fallback->stats().failures, static_cast<std::uint64_t>(refused));
  for (const Block& block : blocks)
    EXPECT_TRUE(fallback->deallocate(block));
  testing::expect_all_accounted_for(*fallback);
}

TEST(Fallback, RandomRunsUnderFailuresLoseNothing) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  const auto failing = [&](std::size_t capacity, std::size_t n) {
    return make<SimulatedDevice>(SimulatedDevice::Options{.capacity = capacity,
                                                          .first_address = n << 40U,
                                                          .extensible = n == 2,
                                                          .fail_probability = 0.2,
                                                          .seed = seed});
  };
  const auto fallback = make<Fallback>(make<Cache>(failing(2_MiB, 1)),
                                       make<Fallback>(failing(2_MiB, 2), failing(64_MiB, 3)));
  Ledger ledger(*fallback);
  for (int i = 0; i < 3000; ++i) {
    if (ledger.size() > 0 && random.chance(48)) {
      ledger.free(random.below(ledger.size()));
    } else {
      ledger.allocate({.bytes = random.size(20), .alignment = std::size_t{1} << random.below(16)});
    }
    if (random.chance(2)) fallback->trim(random.size(22));
    if (random.chance(10) && ledger.size() > 0)
      ledger.grow(random.below(ledger.size()), random.size(16));
    if (i % 100 == 0) ledger.expect_in_order();
  }
  ledger.free_all();
  testing::expect_nothing_held(*fallback);
}

TEST(Fallback, GrowsABlockWhereItIs) {
  const auto extensible = [](std::size_t capacity, std::size_t n) {
    return make<SimulatedDevice>(SimulatedDevice::Options{
        .capacity = capacity, .first_address = n << 40U, .extensible = true});
  };
  const auto first = extensible(1_MiB, 1);
  const auto second = extensible(16_MiB, 2);
  const auto fallback = make<Fallback>(first, second);
  Ledger ledger(*fallback);
  ASSERT_TRUE(ledger.allocate({.bytes = 512_KiB}));
  ASSERT_TRUE(ledger.allocate({.bytes = 2_MiB}));
  EXPECT_TRUE(ledger.grow(0, 1_MiB));
  EXPECT_TRUE(ledger.grow(1, 4_MiB));
  EXPECT_EQ(first->used(), 1_MiB);
  EXPECT_EQ(second->used(), 4_MiB);
  EXPECT_EQ(fallback->stats().spilled.current, 4_MiB);
  EXPECT_FALSE(ledger.grow(0, 2_MiB)) << "it does not move to the second";
  EXPECT_EQ(fallback->largest_allocatable(), 12_MiB);
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*fallback);
}

TEST(Fallback, WhatRanOutIsReportedOfTheFirstDevice) {
  const auto fallback =
      make<Fallback>(make<Limit>(nth_device(1_MiB, 1), 512_KiB), nth_device(2_MiB, 2));
  const Block block = fallback->allocate(2_MiB);
  try {
    (void)fallback->allocate(1_MiB);
    FAIL();
  } catch (const OutOfMemory& error) {
    EXPECT_EQ(error.error().code, Errc::over_limit);
    EXPECT_EQ(error.shortage().limit, 512_KiB);
    EXPECT_EQ(error.shortage().device_total, 1_MiB);
    EXPECT_EQ(error.shortage().reserved, 2_MiB);
  }
  fallback->deallocate(block);
}

TEST(Fallback, HasTwoUpstreams) {
  EXPECT_THROW(make<Fallback>(make<HostDevice>(), Ref<Resource>()), std::invalid_argument);
  EXPECT_THROW(make<Fallback>(Ref<Resource>(), make<HostDevice>()), std::invalid_argument);
}

}  // namespace
}  // namespace cistern
