// What holds for every resource: lifetimes, errors at the edge, buffers, figures.
#include "cistern/core/resource.hpp"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/buffer.hpp"
#include "cistern/core/measure.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;

TEST(Error, SaysWhoRefusedHowMuchAndWhatWasLeft) {
  const Error error{
      .code = Errc::over_limit, .stage = "limit", .requested = 2000, .available = 500};
  EXPECT_EQ(describe(error), "limit refused 2000 bytes: over the limit (500 bytes available)");
  EXPECT_THAT(OutOfMemory(Shortage{.error = error}).what(), ::testing::StartsWith(describe(error)));
  EXPECT_EQ(OutOfMemory(Shortage{.error = error}).error().requested, 2000U);
  EXPECT_EQ(describe({.code = Errc::invalid_block, .stage = "cache"}),
            "cache refused: not a live block of this resource");
  for (const Errc code : {Errc::out_of_memory, Errc::too_large, Errc::bad_alignment,
                          Errc::wrong_device, Errc::unsupported, Errc::device_failed}) {
    EXPECT_STRNE(name(code), "unknown failure");
  }
}

TEST(Lifetime, AStackClosedWithLiveBlocksSaysSoAndStaysForTheLastOfThem) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  Resource* closed = nullptr;
  std::vector<Block> blocks;
  {
    const Ref<Resource> stack = make<Limit>(make<Cache>(device), 1_GiB);
    closed = stack.get();
    for (const std::size_t bytes : {1_MiB, 3_MiB, 2_MiB})
      blocks.push_back(stack->allocate(bytes));
    stack->deallocate(stack->allocate(64_KiB));
  }
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_EQ(
      reports.all()[0],
      "a stack on simulated was closed with blocks still out: 3, of 6291456 bytes in all, the "
      "largest of 3145728");
  EXPECT_TRUE(closed->deallocate(blocks[0]));
  EXPECT_TRUE(closed->deallocate(blocks[1]));
  EXPECT_TRUE(closed->deallocate(blocks[2]));  // the end of the stack
  EXPECT_EQ(device->used(), 0U);
  EXPECT_EQ(reports.all().size(), 1U);
}

TEST(Lifetime, AClosedCacheKeepsNothingIdle) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  Ref<Cache> cache = make<Cache>(device);
  Resource& closed = *cache;
  const Block a = cache->allocate(1_MiB);
  const Block b = cache->allocate(1_MiB);
  cache->deallocate(cache->allocate(1_MiB));
  cache = {};
  EXPECT_EQ(device->used(), 2_MiB);  // its idle block went back at once
  closed.deallocate(a);
  EXPECT_EQ(device->used(), 1_MiB);
  closed.deallocate(b);
  EXPECT_EQ(device->used(), 0U);
}

TEST(Lifetime, ACleanCloseReportsNothing) {
  const testing::CaughtReports reports;
  {
    const Ref<Resource> stack = make<Limit>(make<Cache>(make<HostDevice>()), 1_GiB);
    stack->deallocate(stack->allocate(1_MiB));
  }
  EXPECT_TRUE(reports.all().empty());
}

TEST(Lifetime, AnUpstreamServesSeveralStacksAndOutlivesThem) {
  const auto device = make<SimulatedDevice>();
  Ref<Cache> shared = make<Cache>(device);
  const Ref<Resource> one = make<Limit>(shared, 1_MiB);
  const Ref<Resource> other = make<Limit>(shared, 2_MiB);
  shared = {};
  const Block a = one->allocate(1_MiB);
  const Block b = other->allocate(1_MiB);
  EXPECT_EQ(one->stats().live_granted.current, 1_MiB);
  EXPECT_EQ(other->stats().live_granted.current, 1_MiB);
  EXPECT_EQ(one->stats().reserved.current, 2_MiB);
  one->deallocate(a);
  other->deallocate(b);
}

TEST(Buffer, FreesItselfAndOutlivesTheStack) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  {
    Buffer survivor;
    {
      const Ref<Resource> cache = make<Cache>(device);
      const Buffer first(*cache, 1_MiB);
      Buffer second(*cache, {.bytes = 2_MiB, .alignment = 4_KiB, .stream = {.id = 9}});
      EXPECT_EQ(second.bytes(), 2_MiB);
      EXPECT_EQ(second.stream().id, 9U);
      survivor = std::move(second);
      EXPECT_TRUE(second.empty());  // NOLINT(bugprone-use-after-move): that is the test
    }
    EXPECT_FALSE(survivor.empty());
    EXPECT_EQ(device->used(), 2_MiB);
  }
  EXPECT_EQ(device->used(), 0U);
  EXPECT_EQ(reports.all().size(), 1U);
}

TEST(Buffer, MovesReleasesAndThrows) {
  const Ref<Resource> host = make<HostDevice>();
  Buffer a(*host, 1000);
  EXPECT_EQ(a.as<float>().size(), 250U);
  EXPECT_GE(a.capacity(), 1000U);
  Buffer b(*host, 500);
  b = std::move(a);
  EXPECT_EQ(b.bytes(), 1000U);
  EXPECT_EQ(host->stats().live_blocks.current, 1U);
  const Block block = b.release();
  EXPECT_TRUE(b.empty());
  EXPECT_TRUE(host->deallocate(block));
  EXPECT_THROW(Buffer(*host, unbounded), OutOfMemory);
  const Buffer empty(*host, std::size_t{0});
  EXPECT_TRUE(empty.empty());
  EXPECT_EQ(empty.data(), nullptr);
}

TEST(Measure, ScopesNestAndPutThePeaksBack) {
  const Ref<Resource> cache = make<Cache>(make<SimulatedDevice>());
  const Buffer before(*cache, 10_MiB);
  cache->deallocate(cache->allocate(90_MiB));
  EXPECT_EQ(cache->stats().live_requested.peak, 100_MiB);
  const std::size_t reserved_peak = cache->stats().reserved.peak;
  cache->trim();
  {
    Measure outer(*cache);
    EXPECT_EQ(cache->stats().live_requested.peak, 10_MiB);
    const Buffer held(*cache, 10_MiB);
    {
      Measure inner(*cache);
      cache->deallocate(cache->allocate(20_MiB));
      const Stats stats = inner.stop();
      EXPECT_EQ(stats.allocations, 1U);
      EXPECT_EQ(stats.frees, 1U);
      EXPECT_EQ(stats.live_requested.peak, 40_MiB);
      EXPECT_EQ(stats.live_requested.current, 20_MiB);
      EXPECT_EQ(inner.stop(), stats);
    }
    cache->deallocate(cache->allocate(5_MiB));
    const Stats stats = outer.stop();
    EXPECT_EQ(stats.allocations, 3U);
    EXPECT_EQ(stats.live_requested.peak, 40_MiB);  // raised by the inner scope
  }
  EXPECT_EQ(cache->stats().live_requested.peak, 100_MiB);
  EXPECT_EQ(cache->stats().reserved.peak, reserved_peak);
  cache->reset_peaks();
  EXPECT_EQ(cache->stats().live_requested.peak, 10_MiB);
  EXPECT_EQ(cache->stats().cached.peak, cache->stats().cached.current);
}

TEST(Measure, PutsThePeakOfAStackOfPoolsBackOnce) {
  const Ref<Resource> inner = make<Cache>(make<SimulatedDevice>());
  const Ref<Resource> outer = make<Cache>(inner, Cache::Options{.max_bytes = 1_MiB});
  std::vector<Block> blocks;
  for (int i = 0; i < 4; ++i)
    blocks.push_back(outer->allocate(1_MiB));
  for (const Block& block : blocks)
    outer->deallocate(block);
  { const Measure scope(*outer); }
  EXPECT_EQ(outer->stats().cached.peak, 4_MiB);  // idle now, in both pools
  outer->trim();
  const std::size_t peak = outer->stats().cached.peak;
  EXPECT_GE(peak, 4_MiB);
  { const Measure scope(*outer); }
  EXPECT_EQ(outer->stats().cached.peak, peak);
}

TEST(Stats, EveryStackHasTheSameKeys) {
  std::vector<std::string_view> keys;
  const Stats stats;
  Stats::each_gauge([&](std::string_view key, const Gauge&) { keys.push_back(key); }, stats);
  Stats::each_counter([&](std::string_view key, const std::uint64_t&) { keys.push_back(key); },
                      stats);
  const std::vector<std::string_view> expected = {"live_requested",
                                                  "live_granted",
                                                  "live_blocks",
                                                  "cached",
                                                  "reserved",
                                                  "spilled",
                                                  "resident",
                                                  "allocations",
                                                  "frees",
                                                  "failures",
                                                  "refused_frees",
                                                  "hits",
                                                  "misses",
                                                  "device_allocations",
                                                  "device_frees",
                                                  "residency_commits",
                                                  "residency_refusals"};
  EXPECT_EQ(keys, expected);
  EXPECT_EQ(stats.hit_rate(), 0);
  EXPECT_EQ(stats.utilisation(), 0);
}

}  // namespace
}  // namespace cistern
