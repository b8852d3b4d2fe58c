// What a cache does when its upstream refuses, and that nothing is lost whichever device call
// fails.
#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/caches.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;

Ref<Cache> cache_on(SimulatedDevice::Options device, BucketPolicy policy = Geometric{1}) {
  return make<Cache>(make<SimulatedDevice>(device),
                     Cache::Options{.buckets = policy, .idle_ratio = Cache::no_ratio});
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
  // Each call that would go beyond 8 MiB fails, so two steps are needed: what 3 MiB need, rounded,
  // and all the rest.
  const Ref<Cache> cache = cache_on({.capacity = 10_MiB, .fail_beyond = 5_MiB});
  std::vector<Block> blocks;
  for (int i = 0; i < 5; ++i)
    blocks.push_back(cache->allocate(1_MiB));
  for (const Block& block : blocks)
    cache->deallocate(block);
  const Block block = cache->allocate(5_MiB);  // its bucket of 8 MiB cannot be had, itself can
  EXPECT_EQ(block.bytes, 5_MiB);
  EXPECT_EQ(cache->stats().cached.current, 0U);
  cache->deallocate(block);
  testing::expect_all_accounted_for(*cache);
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

/// The same seeded run of requests and frees on any resource; returns how many requests failed.
std::size_t recorded_run(Resource& resource, std::uint64_t seed) {
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
INSTANTIATE_TEST_SUITE_P(All, FailureInjection, ::testing::ValuesIn(testing::policies),
                         [](const auto& policy) { return std::string(policy.param.name); });

TEST_P(FailureInjection, WhicheverDeviceCallFailsNothingIsLost) {
  const std::uint64_t seed = testing::seed_or(5);
  SCOPED_TRACE(testing::replay_hint(seed));
  const Cache::Options options{.buckets = GetParam().policy, .max_bytes = 256_KiB};
  const auto healthy = make<SimulatedDevice>();
  EXPECT_EQ(recorded_run(*make<Cache>(healthy, options), seed), 0U);
  const std::uint64_t calls = healthy->allocation_calls();
  ASSERT_GT(calls, 50U);
  for (std::uint64_t n = 1; n <= calls; ++n) {
    const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.fail_at = n});
    const Ref<Cache> cache = make<Cache>(device, options);
    ASSERT_LE(recorded_run(*cache, seed), 1U) << "call " << n;
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
    recorded_run(*cache, seed);
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
