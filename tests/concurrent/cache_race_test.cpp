// Four threads on one cache: blocks freed by other threads than took them, trims and bounds that
// change meanwhile. For ThreadSanitizer, and for the accounts afterwards.
#include <atomic>
#include <optional>
#include <thread>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/caches.hpp"
#include "support/exchange.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/returns.hpp"
#include "support/seed.hpp"
#include "support/spy.hpp"
#include "support/threads.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Exchange;
using testing::on_threads;

constexpr unsigned cache_threads = 4;
constexpr int cache_steps = 4000;

class CacheRace : public testing::EveryCache {};
CISTERN_INSTANTIATE_EVERY_CACHE(CacheRace);

TEST_P(CacheRace, AllocationsFreesElsewhereTrimsAndBounds) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  const Ref<Cache> cache = make_cache({.max_bytes = 2_MiB});
  const bool writable = cache->device().limits().host_addressable;
  Exchange exchange;
  on_threads(cache_threads, [&](unsigned index) {
    testing::Random random(seed * 100 + index);
    for (int step = 0; step < cache_steps; ++step) {
      std::optional<Block> mine;
      if (random.chance(70)) {
        mine = cache->allocate({.bytes = random.size(16), .stream = {.id = index}});
        if (writable)
          *static_cast<unsigned char*>(mine->memory) = static_cast<unsigned char>(mine->generation);
      }
      const std::optional<Block> other = exchange.swap(random.below(64), mine);
      if (other) {
        if (writable) {
          EXPECT_EQ(*static_cast<unsigned char*>(other->memory),
                    static_cast<unsigned char>(other->generation));
        }
        EXPECT_TRUE(cache->deallocate(*other, {.id = index}));
      }
      if (random.chance(1)) cache->trim(random.size(20));
      if (random.chance(1)) cache->set_max_bytes(random.size(22));
      if (random.chance(1)) cache->set_idle_ratio(static_cast<double>(random.below(100)) / 100);
      if (random.chance(1)) {
        EXPECT_EQ(cache->outstanding().largest > 0, cache->outstanding().blocks > 0);
      }
    }
  });
  EXPECT_EQ(cache->validate(), "");
  for (std::size_t slot = 0; slot < exchange.size(); ++slot) {
    if (const std::optional<Block> block = exchange.swap(slot, {})) cache->deallocate(*block);
  }
  testing::expect_all_accounted_for(*cache);
}

TEST(CacheRaceWithReturns, ARequestWaitsForMemoryThatIsOnItsWayBack) {
  const auto limit = make<Limit>(make<SimulatedDevice>(), 4_MiB);
  const auto spy = make<testing::Spy>(limit);
  const Ref<Cache> cache = make<Cache>(spy, Cache::Options{.idle_ratio = Cache::no_ratio});
  std::vector<Block> blocks;
  for (int i = 0; i < 4; ++i)
    blocks.push_back(cache->allocate(1_MiB));
  for (const Block& block : blocks)
    cache->deallocate(block);
  std::atomic<bool> leaving{false};
  spy->before_free = [&](const Block&) {
    leaving = true;
    while (limit->stats().failures == 0)  // until the request below was refused once
      std::this_thread::yield();
  };
  std::thread trimming([&] { cache->trim(); });
  while (!leaving)
    std::this_thread::yield();
  const Expected<Block> block = cache->try_allocate({.bytes = 2_MiB});
  EXPECT_TRUE(block) << "nothing is live, and all of 4 MiB is on its way back";
  trimming.join();
  if (block) cache->deallocate(*block);
  EXPECT_EQ(cache->stats().failures, 0U);
  testing::expect_all_accounted_for(*cache);
}

TEST(CacheRaceWithReturns, ARequestMissesNothingThatHasComeBackMeanwhile) {
  const auto spy = make<testing::Spy>(make<SimulatedDevice>());
  const auto pool = make<Cache>(spy);
  testing::expect_nothing_missed(*spy, *pool, 64_KiB);
}

TEST(LimitRace, ReservedNeverExceedsTheBoundBelowAPool) {
  const auto device = make<SimulatedDevice>();
  const Ref<Cache> cache =
      make<Cache>(make<Limit>(device, 4_MiB), Cache::Options{.buckets = Geometric{1}});
  std::atomic<bool> done{false};
  std::thread watcher([&] {
    while (!done)
      ASSERT_LE(device->used(), 4_MiB);
  });
  on_threads(cache_threads, [&](unsigned index) {
    testing::Random random(index);
    for (int step = 0; step < cache_steps; ++step) {
      const Expected<Block> block = cache->try_allocate({.bytes = random.size(20)});
      if (block) cache->deallocate(*block);
    }
  });
  done = true;
  watcher.join();
  EXPECT_LE(device->stats().reserved.peak, 4_MiB);
  testing::expect_all_accounted_for(*cache);
}

TEST(LimitRace, WhatFitsIsNeverRejectedBecauseOfWhatDoesNot) {
  const auto limit = make<Limit>(make<SimulatedDevice>(), cache_threads * 1_MiB);
  std::atomic<int> rejected{0};
  std::atomic<bool> done{false};
  std::thread greedy([&] {
    while (!done) {
      const Expected<Block> block = limit->try_allocate({.bytes = cache_threads * 1_MiB + 1});
      if (block) limit->deallocate(*block);
    }
  });
  on_threads(cache_threads, [&](unsigned) {
    for (int step = 0; step < cache_steps; ++step) {
      const Expected<Block> block = limit->try_allocate({.bytes = 1_MiB});
      if (block) limit->deallocate(*block);
      if (!block) ++rejected;
    }
  });
  done = true;
  greedy.join();
  EXPECT_EQ(rejected, 0);
  EXPECT_LE(limit->stats().live_requested.peak, limit->max_bytes());
  EXPECT_EQ(limit->charged(), 0U);
}

TEST(LifetimeRace, TheLastBlocksOfAClosedStackMayBeFreedByAnyThread) {
  const testing::CaughtReports reports;
  for (int round = 0; round < 200; ++round) {
    const auto device = make<SimulatedDevice>();
    std::vector<Block> blocks;
    Resource* closed = nullptr;
    Ref<Resource> stack = make<Limit>(make<Cache>(device), 1_GiB);
    closed = stack.get();
    for (unsigned i = 0; i < cache_threads; ++i)
      blocks.push_back(stack->allocate(1_MiB));
    stack->deallocate(stack->allocate(1_KiB));
    on_threads(cache_threads, [&](unsigned index) {
      if (index == 0) stack = {};  // closed while the others free
      closed->deallocate(blocks[index]);
    });
    EXPECT_EQ(device->used(), 0U);
  }
}

}  // namespace
}  // namespace cistern
