// What a cache does when its upstream refuses, and that nothing is lost whichever device call
// fails.
#include <algorithm>
#include <cstdlib>
#include <optional>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/caches.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"
#include "support/spy.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;
using testing::Spy;

Ref<Cache> cache_above(Ref<Resource> upstream) {
  return make<Cache>(std::move(upstream),
                     Cache::Options{.buckets = Geometric{1}, .idle_ratio = Cache::no_ratio});
}
Ref<Cache> cache_on(SimulatedDevice::Options device) {
  return cache_above(make<SimulatedDevice>(device));
}

TEST(CacheUpstream, GivesBackOnlyAsMuchOfItsHoardAsTheRequestNeeds) {
  const Ref<Cache> cache = cache_on({.capacity = 10_MiB});
  std::vector<Block> blocks;
  for (int i = 0; i < 10; ++i)
    blocks.push_back(cache->allocate(1_MiB));
  for (const Block& block : blocks)
    cache->deallocate(block);
  const Block large = cache->allocate(4_MiB);
  EXPECT_EQ(cache->stats().device_frees, 4U);  // not the whole cache
  EXPECT_EQ(cache->stats().cached.current, 6_MiB);
  EXPECT_EQ(cache->stats().failures, 0U);
  const Block last = cache->allocate(1_MiB);
  EXPECT_EQ(last.memory, blocks[9].memory);  // the most recently used stayed
  cache->deallocate(last);
  cache->deallocate(large);
}

TEST(CacheUpstream, GivesBackAllOfItBeforeItFails) {
  const auto spy = make<Spy>(make<SimulatedDevice>());
  const Ref<Cache> cache = cache_above(spy);
  std::vector<Block> blocks;
  for (int i = 0; i < 10; ++i)
    blocks.push_back(cache->allocate(1_MiB));
  for (const Block& block : blocks)
    cache->deallocate(block);
  spy->requests.clear();
  // Memory in pieces: as much as is asked for is not enough.
  spy->before_request = [&](const Request&) {
    return cache->stats().cached.current > 0 ? std::optional(Errc::out_of_memory) : std::nullopt;
  };
  const Expected<Block> block = cache->try_allocate({.bytes = 5_MiB});
  ASSERT_TRUE(block);
  EXPECT_EQ(block->bytes, 8_MiB);
  EXPECT_EQ(spy->requests.size(), 3U);  // at once, after 8 MiB went back, after all did
  cache->deallocate(*block);
  testing::expect_all_accounted_for(*cache);
}

TEST(CacheUpstream, AsksForNoMoreThanIsRequestedOnceAllElseFailed) {
  const auto spy = make<Spy>(make<SimulatedDevice>());
  const Ref<Cache> cache = cache_above(spy);
  Errc refusal = Errc::out_of_memory;
  spy->before_request = [&](const Request& request) {
    return request.bytes > 5_MiB ? std::optional(refusal) : std::nullopt;
  };
  cache->deallocate(cache->allocate(1_MiB));
  const Block exact = cache->allocate(5_MiB);  // its bucket of 8 MiB cannot be had
  EXPECT_EQ(exact.bytes, 5_MiB);
  EXPECT_EQ(cache->stats().cached.current, 0U);
  cache->deallocate(exact);
  cache->trim();
  cache->deallocate(cache->allocate(1_MiB));
  refusal = Errc::device_failed;
  spy->requests.clear();
  EXPECT_FALSE(cache->try_allocate({.bytes = 5_MiB}));
  EXPECT_EQ(spy->requests.size(), 1U);  // memory is not what is missing
  EXPECT_EQ(cache->stats().cached.current, 1_MiB);
}

/// Gives less in one piece than it has in all, as OpenCL's devices do.
class PieceWiseDevice final : public Device {
 public:
  PieceWiseDevice()
      : Device({.kind = "piecewise",
                .name = "",
                .total_memory = 16_MiB,
                .max_allocation = 5_MiB,
                .alignment = 64,
                .max_alignment = 4_KiB,
                .granularity = 64,
                .memory_is_address = true,
                .host_addressable = true}) {}

 private:
  Expected<Piece> obtain(std::size_t bytes, std::size_t alignment,
                         Stream /*stream*/) noexcept override {
    return Piece{
        .memory = std::aligned_alloc(alignment, bytes), .bytes = bytes, .alignment = alignment};
  }
  void give_back(Piece piece, Stream /*stream*/) noexcept override { std::free(piece.memory); }
};

TEST(CacheUpstream, ABucketBeyondTheLargestPieceIsNotAskedFor) {
  const auto spy = make<Spy>(make<PieceWiseDevice>());
  const Ref<Cache> cache = cache_above(spy);
  const Expected<Block> block = cache->try_allocate({.bytes = 4_MiB + 4_KiB});
  ASSERT_TRUE(block);
  EXPECT_EQ(block->bytes, 4_MiB + 4_KiB);
  EXPECT_EQ(spy->requests.size(), 1U);
  cache->deallocate(*block);
  testing::expect_all_accounted_for(*cache);
}

TEST(CacheUpstream, WhatTheDeviceCanNeverGiveCostsNoIdleBlock) {
  const auto spy = make<Spy>(make<PieceWiseDevice>());
  const Ref<Cache> cache = make<Cache>(spy);  // whose bound on idle bytes a larger request meets
  cache->deallocate(cache->allocate(1_MiB));
  const auto error = [&](Request request) {
    spy->requests.clear();
    const Expected<Block> block = cache->try_allocate(request);
    EXPECT_EQ(spy->requests.size(), 1U);  // to hear why not
    EXPECT_EQ(spy->freed.size(), 0U);
    EXPECT_EQ(cache->stats().cached.current, 1_MiB);
    return block ? Errc{} : block.error().code;
  };
  EXPECT_EQ(error({.bytes = 2_MiB, .alignment = 3}), Errc::bad_alignment);
  EXPECT_EQ(error({.bytes = 2_MiB, .alignment = 8_KiB}), Errc::bad_alignment);
  EXPECT_EQ(error({.bytes = 6_MiB}), Errc::too_large);
  EXPECT_EQ(cache->stats().failures, 3U);
}

TEST(CacheUpstream, TheIdleRatioHoldsWhenARequestThatWouldHaveRaisedItFails) {
  const auto spy = make<Spy>(make<SimulatedDevice>());
  const Ref<Cache> cache = make<Cache>(spy);
  spy->before_request = [&](const Request& request) -> std::optional<Errc> {
    if (request.bytes < 64_MiB) return std::nullopt;
    for (std::size_t i = 8; i < 16; ++i)  // other callers, meanwhile
      cache->deallocate(cache->allocate(i * 128_KiB));
    EXPECT_EQ(cache->stats().cached.current, 8 * 1_MiB + 28 * 128_KiB);
    return Errc::device_failed;
  };
  EXPECT_FALSE(cache->try_allocate({.bytes = 100_MiB}));
  EXPECT_EQ(cache->validate(), "");
  EXPECT_LE(cache->stats().cached.current, scale(cache->stats().live_granted.peak, 1.15));
}

TEST(CacheUpstream, TrimLowersWhatTheIdleRatioIsMeasuredBy) {
  const Ref<Cache> cache = make<Cache>(make<SimulatedDevice>(), Cache::Options{.idle_ratio = 0.25});
  cache->deallocate(cache->allocate(8_MiB));
  cache->trim(8_MiB);
  cache->deallocate(cache->allocate(1_MiB));
  EXPECT_EQ(cache->stats().cached.current, 9_MiB);  // what is held at a trim counts as work
  cache->trim();
  cache->deallocate(cache->allocate(1_MiB));
  cache->deallocate(cache->allocate(2_MiB));
  EXPECT_EQ(cache->stats().cached.current, 2_MiB);  // what was held before it does not
}

TEST(CacheUpstream, WhatIsEvictedGoesBackOnTheStreamOfItsLastUse) {
  const auto spy = make<Spy>(make<SimulatedDevice>());
  const Ref<Cache> cache = make<Cache>(spy, Cache::Options{.max_bytes = 2_MiB, .idle_ratio = 0});
  const Block a = cache->allocate({.bytes = 1_MiB, .alignment = 0, .stream = {.id = 1}});
  const Block b = cache->allocate({.bytes = 1_MiB, .alignment = 0, .stream = {.id = 1}});
  const Block c = cache->allocate({.bytes = 2_MiB, .alignment = 0, .stream = {.id = 1}});
  cache->deallocate(a, {.id = 2});
  cache->deallocate(b, {.id = 3});
  cache->deallocate(c, {.id = 4});  // crowds out a and b
  cache->deallocate(cache->allocate({.bytes = 4_MiB, .alignment = 0, .stream = {.id = 5}}),
                    {.id = 6});  // crowds out c, and is too large to stay
  const Block d = cache->allocate(1_MiB);
  cache->deallocate(d, {.id = 7});
  cache->trim();
  std::vector<std::uint64_t> streams;
  for (const Spy::Use& use : spy->freed)
    streams.push_back(use.stream.id);
  std::sort(streams.begin(), streams.end());
  EXPECT_EQ(streams, (std::vector<std::uint64_t>{2, 3, 4, 6, 7}));
}

TEST(CacheUpstream, ARequestThatFitsOnlyExactlyIsGivenAndReused) {
  const Ref<Cache> cache = cache_on({.capacity = 12_GiB});
  for (int i = 0; i < 3; ++i) {
    const Block block = cache->allocate(9_GiB);  // its bucket would be 16 GiB
    EXPECT_EQ(block.bytes, 9_GiB);
    cache->deallocate(block);
    EXPECT_EQ(cache->validate(), "");
  }
  EXPECT_EQ(cache->stats().device_allocations, 1U);
  EXPECT_EQ(cache->stats().hits, 2U);
  testing::expect_all_accounted_for(*cache);
}

TEST(CacheUpstream, ABlockThatFitsOnlyExactlyIsFoundAfterAnotherHasLeft) {
  const auto spy = make<Spy>(make<SimulatedDevice>());
  const Ref<Cache> cache = cache_above(spy);
  spy->before_request = [](const Request& request) {
    return request.bytes > 5_MiB ? std::optional(Errc::out_of_memory) : std::nullopt;
  };
  const Block first = cache->allocate(5_MiB);
  const Block second = cache->allocate(5_MiB);
  cache->deallocate(first);
  cache->deallocate(second);
  cache->trim(5_MiB);
  const Block again = cache->allocate(5_MiB);
  EXPECT_EQ(again.memory, second.memory);
  cache->deallocate(again);
}

TEST(CacheUpstream, UnderALimitEverythingThatFitsIsGiven) {
  const Ref<Resource> device =
      make<SimulatedDevice>(SimulatedDevice::Options{.granularity = 1, .alignment = 1});
  const Ref<Cache> cache =
      make<Cache>(make<Limit>(device, std::size_t{6000}), Cache::Options{.buckets = Geometric{1}});
  Ledger ledger(*cache);
  EXPECT_TRUE(ledger.allocate({.bytes = 1000}));
  EXPECT_TRUE(ledger.allocate({.bytes = 4000}));
  EXPECT_TRUE(ledger.allocate({.bytes = 500}));
  EXPECT_FALSE(ledger.allocate({.bytes = 2000}));
  ledger.expect_in_order();
  ledger.free_all();
  EXPECT_TRUE(ledger.allocate({.bytes = 6000}));
  ledger.free_all();
  testing::expect_all_accounted_for(*cache);
}

TEST(CacheUpstream, AnotherKindOfFailureDoesNotEmptyTheCache) {
  const Ref<Cache> cache = cache_on({});
  cache->deallocate(cache->allocate(1_MiB));
  EXPECT_FALSE(cache->try_allocate({.bytes = 2_MiB, .alignment = 3}));
  EXPECT_FALSE(cache->try_allocate({.bytes = 1_GiB * 1024}));
  EXPECT_EQ(cache->stats().cached.current, 1_MiB);
}

TEST(CacheUpstream, PoolOnPoolCountsEachByteOnce) {
  const Ref<Cache> inner = cache_on({});
  const Ref<Cache> outer =
      make<Cache>(inner, Cache::Options{.max_bytes = 1_MiB, .idle_ratio = Cache::no_ratio});
  const Block a = outer->allocate(1_MiB);
  const Block b = outer->allocate(1_MiB);
  outer->deallocate(a);
  outer->deallocate(b);  // pushes a out of the outer cache into the inner one
  Stats stats = outer->stats();
  EXPECT_EQ(stats.cached.current, 2_MiB);
  EXPECT_EQ(stats.reserved.current, 2_MiB);
  EXPECT_EQ(stats.pools, 2U);
  const Block c = outer->allocate(1_MiB);
  const Block d = outer->allocate(1_MiB);
  stats = outer->stats();
  EXPECT_EQ(stats.hits, 2U);
  EXPECT_EQ(stats.misses, 2U);
  EXPECT_EQ(stats.hits + stats.misses, stats.allocations);
  outer->deallocate(c);
  outer->deallocate(d);
  EXPECT_EQ(outer->trim(1_MiB), 1_MiB);
  EXPECT_EQ(outer->stats().cached.current, 1_MiB);
  testing::expect_all_accounted_for(*outer);
}

TEST(CacheUpstream, PoolOnPoolIsTrimmedFromAboveToWhatIsKeptInAll) {
  const Ref<Cache> inner = cache_on({});
  const Ref<Cache> outer = cache_above(inner);
  const Block a = outer->allocate(1_MiB);
  const Block b = outer->allocate(1_MiB);
  inner->deallocate(inner->allocate(1_MiB));
  outer->deallocate(a);
  outer->deallocate(b);
  EXPECT_EQ(outer->trim(2_MiB), 1_MiB);
  EXPECT_EQ(outer->stats().cached.current, 2_MiB);
  EXPECT_EQ(inner->stats().cached.current, 1_MiB);
}

/// The same seeded run of requests and frees on any resource; returns how many requests failed.
std::size_t recorded_cache_run(Resource& resource, std::uint64_t seed) {
  testing::Random random(seed);
  Ledger ledger(resource);
  std::size_t failed = 0;
  for (int step = 0; step < 250; ++step) {
    if (ledger.size() > 0 && random.chance(45)) {
      ledger.free(random.below(ledger.size()), {.id = random.below(3)});
    } else {
      const Stats before = resource.stats();
      if (!ledger.allocate(
              {.bytes = random.size(20), .alignment = std::size_t{1} << random.below(14)})) {
        ++failed;
        EXPECT_EQ(resource.stats().failures, before.failures + 1);
        EXPECT_EQ(resource.stats().live_granted, before.live_granted);
        EXPECT_EQ(resource.stats().allocations, before.allocations);
      }
    }
    if (random.chance(3)) resource.trim(random.size(20));
    ledger.expect_in_order();
  }
  ledger.free_all();
  return failed;
}

class FailureInjection : public ::testing::TestWithParam<testing::NamedPolicy> {};
INSTANTIATE_TEST_SUITE_P(All, FailureInjection, ::testing::ValuesIn(testing::bucket_policies),
                         [](const auto& policy) { return std::string(policy.param.name); });

TEST(CacheUpstream, ARequestThatCannotBeRecordedUsesUpNoRecord) {
  const Ref<Cache> cache = make<Cache>(make<SimulatedDevice>(), Cache::Options{.buckets = Fit{}});
  const Block first = cache->allocate(1_MiB);
  for (int i = 0; i < 100; ++i) {
    const testing::FailingNew failing(1);
    EXPECT_FALSE(cache->try_allocate({.bytes = 1_MiB}));
  }
  const testing::FailingNew failing(2);  // one use is all that a record asks of the heap
  const Expected<Block> second = cache->try_allocate({.bytes = 1_MiB});
  ASSERT_TRUE(second);
  cache->deallocate(*second);
  cache->deallocate(first);
}

TEST_P(FailureInjection, WhicheverDeviceCallFailsNothingIsLost) {
  const std::uint64_t seed = testing::seed_or(5);
  SCOPED_TRACE(testing::replay_hint(seed));
  const Cache::Options options{.buckets = GetParam().policy, .max_bytes = 256_KiB};
  const auto healthy = make<SimulatedDevice>();
  EXPECT_EQ(recorded_cache_run(*make<Cache>(healthy, options), seed), 0U);
  const std::uint64_t calls = healthy->allocation_calls();
  ASSERT_GT(calls, 50U);
  for (std::uint64_t n = 1; n <= calls; ++n) {
    const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.fail_at = n});
    const Ref<Cache> cache = make<Cache>(device, options);
    ASSERT_LE(recorded_cache_run(*cache, seed), 1U) << "call " << n;
    cache->deallocate(cache->allocate(12'345));  // the next request works
    testing::expect_all_accounted_for(*cache);
    ASSERT_EQ(device->used(), 0U);
  }
}

TEST_P(FailureInjection, ADeviceThatKeepsFailingLosesNothing) {
  const std::uint64_t seed = testing::seed_or(6);
  SCOPED_TRACE(testing::replay_hint(seed));
  for (const SimulatedDevice::Options& device :
       {SimulatedDevice::Options{.fail_every = 2}, SimulatedDevice::Options{.fail_every = 3},
        SimulatedDevice::Options{.fail_probability = 0.5, .seed = seed},
        SimulatedDevice::Options{.fail_beyond = 1_MiB}, SimulatedDevice::Options{.capacity = 2_MiB},
        SimulatedDevice::Options{.fail_every = 1}}) {
    const Ref<Cache> cache =
        make<Cache>(make<SimulatedDevice>(device),
                    Cache::Options{.buckets = GetParam().policy, .max_bytes = 256_KiB});
    recorded_cache_run(*cache, seed);
    testing::expect_all_accounted_for(*cache);
  }
}

TEST_P(FailureInjection, AHostWithoutMemoryForRecordsFailsTheRequestAndLosesNothing) {
  for (int n = 1; n <= 40; ++n) {
    const auto device = make<SimulatedDevice>();
    const Ref<Cache> cache = make<Cache>(device, Cache::Options{.buckets = GetParam().policy});
    std::vector<Block> blocks;
    blocks.reserve(400);
    std::size_t failed = 0;
    bool has_failed = false;
    {
      const testing::FailingNew failing(n);
      for (std::size_t i = 1; i <= 400; ++i) {
        const Expected<Block> block = cache->try_allocate({.bytes = i * 1000});
        if (block) blocks.push_back(*block);
        if (!block) ++failed;
        if (i % 50 == 0 && !blocks.empty()) {
          cache->deallocate(blocks.back());
          blocks.pop_back();
        }
      }
      has_failed = testing::FailingNew::has_failed();
    }
    EXPECT_EQ(failed > 0, has_failed);
    EXPECT_EQ(cache->stats().failures, failed);
    EXPECT_EQ(cache->validate(), "");
    for (const Block& block : blocks)
      EXPECT_TRUE(cache->deallocate(block));
    testing::expect_all_accounted_for(*cache);
    EXPECT_EQ(device->used(), 0U);
    if (!has_failed) return;  // n is beyond all uses
  }
}

}  // namespace
}  // namespace cistern
