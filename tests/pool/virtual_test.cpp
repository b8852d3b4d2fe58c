#include "cistern/pool/virtual.hpp"

#include <cmath>
#include <initializer_list>
#include <memory_resource>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/buffer.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/pmr.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/stack/stack.hpp"
#include "support/errors.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::code_of;
using testing::Ledger;

constexpr std::size_t page_bytes = 64_KiB;

Ref<SimulatedDevice> small_device(std::size_t pages) {
  return make<SimulatedDevice>(SimulatedDevice::Options{.capacity = pages * page_bytes});
}

Ref<Virtual> pool_on(const Ref<SimulatedDevice>& device, Virtual::Options options = {}) {
  options.page = page_bytes;
  return make<Virtual>(device, options);
}

TEST(Virtual, HolesCostAddressesAndNotMemory) {
  const auto device = small_device(64);
  const auto pool = pool_on(device);
  Ledger ledger(*pool);
  for (int i = 0; i < 32; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = 2 * page_bytes}));
  EXPECT_EQ(device->used(), 64 * page_bytes);
  for (std::size_t i = 16; i-- > 0;)
    ledger.free(2 * i);  // every other one, so that no two holes touch
  EXPECT_TRUE(ledger.allocate({.bytes = 32 * page_bytes}));  // all pages that are free
  EXPECT_EQ(pool->stats().cached.current, 0U);
  EXPECT_EQ(pool->stats().reserved.peak, 64 * page_bytes);
  EXPECT_FALSE(ledger.allocate({.bytes = 1}));
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, BlocksShareThePagesTheyBeginAndEndIn) {
  const auto device = small_device(64);
  const auto pool = pool_on(device);
  Ledger ledger(*pool);
  for (std::size_t i = 0; i < page_bytes / 512; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = 500}));
  EXPECT_EQ(device->used(), page_bytes);
  ASSERT_TRUE(ledger.allocate({.bytes = 2 * page_bytes + page_bytes / 2}));
  ASSERT_TRUE(ledger.allocate({.bytes = 3 * page_bytes + page_bytes / 2}));
  EXPECT_EQ(device->used(), 7 * page_bytes);
  EXPECT_EQ(pool->stats().device_allocations, 3U);  // one for every run of pages
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, AHitCallsNoDevice) {
  const auto device = small_device(64);
  const auto pool = pool_on(device);
  for (int turn = 0; turn < 3; ++turn) {
    Ledger ledger(*pool);
    for (std::size_t i = 1; i < 10; ++i)
      ASSERT_TRUE(ledger.allocate({.bytes = i * 10'000}));
    ledger.free_all();
  }
  EXPECT_EQ(device->allocation_calls(), pool->stats().misses);
  EXPECT_EQ(device->free_calls(), 0U);
  EXPECT_GE(pool->stats().hits, 18U);
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, IdlePagesServeOtherPlacesBeforeTheDeviceIsAskedForMore) {
  const auto device = small_device(64);
  const auto pool = pool_on(device);
  Ledger ledger(*pool);
  ASSERT_TRUE(ledger.allocate({.bytes = 8 * page_bytes}));
  ASSERT_TRUE(ledger.allocate({.bytes = page_bytes}));
  ledger.free(0);
  EXPECT_EQ(pool->stats().cached.current, 8 * page_bytes);
  ASSERT_TRUE(ledger.allocate({.bytes = 9 * page_bytes}));  // does not fit there
  EXPECT_EQ(pool->stats().reserved.peak, 10 * page_bytes);
  EXPECT_EQ(pool->stats().cached.current, 0U);
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, TheIdleRatioSparesCallsForPages) {
  const auto run = [](double ratio) {
    const auto device = small_device(4096);
    const auto pool = pool_on(device, {.idle_ratio = ratio});
    testing::Random random(9);
    Ledger ledger(*pool);
    for (int i = 0; i < 3000; ++i) {
      while (ledger.size() > 30)
        ledger.free(random.below(ledger.size()));
      EXPECT_TRUE(ledger.allocate({.bytes = random.size(20)}));
    }
    ledger.expect_in_order();
    ledger.free_all();
    return device->allocation_calls();
  };
  EXPECT_LT(2 * run(1.0), run(0));
}

TEST(Virtual, ItsPagesAreBounded) {
  const auto device = small_device(64);
  const auto pool = pool_on(device, {.max_bytes = 10 * page_bytes});
  Ledger ledger(*pool);
  ASSERT_TRUE(ledger.allocate({.bytes = 6 * page_bytes}));
  const Expected<Block> refused = pool->try_allocate({.bytes = 5 * page_bytes});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::over_limit);
  EXPECT_EQ(refused.error().available, 4 * page_bytes);
  EXPECT_TRUE(ledger.allocate({.bytes = 4 * page_bytes}));
  EXPECT_EQ(device->used(), 10 * page_bytes);
  ledger.free(0);
  EXPECT_EQ(pool->set_max_bytes(7 * page_bytes), 10 * page_bytes);
  EXPECT_EQ(device->used(), 7 * page_bytes);
  EXPECT_EQ(pool->max_bytes(), 7 * page_bytes);
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, TrimsDownToWhatIsToBeKept) {
  const auto device = small_device(64);
  const auto pool = pool_on(device);
  Ledger ledger(*pool);
  for (int i = 0; i < 8; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = page_bytes}));
  ledger.free_all();
  EXPECT_EQ(pool->trimmable(), 8 * page_bytes);
  EXPECT_EQ(pool->buckets().at(0).cached_blocks, 8U);
  EXPECT_EQ(pool->trim(3 * page_bytes + 1), 5 * page_bytes);
  EXPECT_EQ(pool->stats().cached.current, 3 * page_bytes);
  EXPECT_EQ(pool->validate(), "");
  ASSERT_TRUE(ledger.allocate({.bytes = 5 * page_bytes}));
  EXPECT_EQ(device->used(), 5 * page_bytes);
  ledger.free_all();
  testing::expect_nothing_held(*pool);
  EXPECT_TRUE(pool->buckets().empty());
}

TEST(Virtual, AnyAlignmentIsGiven) {
  const auto pool = pool_on(small_device(256));
  Ledger ledger(*pool);
  for (std::size_t alignment = 1; alignment <= 16 * page_bytes; alignment *= 2) {
    ASSERT_TRUE(ledger.allocate({.bytes = 3000, .alignment = alignment}));
    ASSERT_TRUE(ledger.allocate({.bytes = page_bytes + 1, .alignment = alignment}));
    ledger.expect_in_order();
  }
  EXPECT_EQ(code_of(pool->try_allocate({.bytes = 1, .alignment = 3})), Errc::bad_alignment);
  EXPECT_EQ(code_of(pool->try_allocate({.bytes = 1, .alignment = 4_GiB})), Errc::bad_alignment);
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, WhatCanNeverBeHadCostsNoIdlePage) {
  const auto device = small_device(64);
  const auto pool = pool_on(device);
  pool->deallocate(pool->allocate(4 * page_bytes));
  for (const std::size_t bytes :
       {unbounded, unbounded - 100, std::size_t{1} << 50, 65 * page_bytes})
    EXPECT_EQ(code_of(pool->try_allocate({.bytes = bytes})), Errc::too_large);
  EXPECT_EQ(pool->stats().cached.current, 4 * page_bytes);
  EXPECT_TRUE(pool->try_allocate({.bytes = 0})->empty());
  EXPECT_EQ(pool->stats().failures, 4U);
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, FurtherAddressesAreReservedWhenTheyRunOut) {
  const auto pool = pool_on(small_device(64), {.addresses = 4 * page_bytes});
  Ledger ledger(*pool);
  for (int i = 0; i < 10; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = 2 * page_bytes + 1}));
  ASSERT_TRUE(ledger.allocate({.bytes = 20 * page_bytes}));  // more than is reserved at a time
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, GrowsInPlacePageByPage) {
  const auto device = small_device(64);
  const auto pool = pool_on(device);
  Ledger ledger(*pool);
  ASSERT_TRUE(ledger.allocate({.bytes = 100}));
  for (std::size_t bytes = 1000; bytes <= 64 * page_bytes; bytes += 30'000) {
    ASSERT_TRUE(ledger.grow(0, bytes));
    EXPECT_EQ(device->used(), (bytes + page_bytes - 1) / page_bytes * page_bytes);
  }
  EXPECT_FALSE(ledger.grow(0, 64 * page_bytes + 1));
  ledger.expect_in_order();
  EXPECT_EQ(pool->stats().allocations, 1U);
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, ABlockInTheWayStopsGrowing) {
  const testing::CaughtReports reports;
  const auto pool = pool_on(small_device(64));
  Ledger ledger(*pool);
  ASSERT_TRUE(ledger.allocate({.bytes = 2 * page_bytes}));
  ASSERT_TRUE(ledger.allocate({.bytes = 2 * page_bytes}));
  EXPECT_EQ(code_of(pool->try_grow(ledger.blocks()[0], 2 * page_bytes + 1)), Errc::cannot_grow);
  EXPECT_TRUE(ledger.grow(1, 3 * page_bytes));
  ledger.free(1);
  EXPECT_TRUE(ledger.grow(0, 40 * page_bytes));
  EXPECT_EQ(code_of(pool->try_grow(ledger.blocks()[0], unbounded)), Errc::too_large);
  EXPECT_EQ(code_of(pool->try_grow(Block{}, 1)), Errc::cannot_grow);
  const Block stale = ledger.blocks()[0];
  ledger.free_all();
  EXPECT_EQ(code_of(pool->try_grow(stale, 41 * page_bytes)), Errc::invalid_block);
  EXPECT_FALSE(pool->deallocate(stale));
  EXPECT_EQ(pool->stats().refused_frees, 1U);
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, RoomBehindABlockIsKeptForIt) {
  const auto device = small_device(64);
  const auto pool = pool_on(device, {.room = 10 * page_bytes});
  Ledger ledger(*pool);
  ASSERT_TRUE(ledger.allocate({.bytes = page_bytes + 100}));
  ASSERT_TRUE(ledger.allocate({.bytes = page_bytes}));
  ASSERT_TRUE(ledger.allocate({.bytes = 100}));  // a small one has no room
  EXPECT_LE(device->used(), 4 * page_bytes);
  EXPECT_TRUE(ledger.grow(0, 5 * page_bytes));
  EXPECT_TRUE(ledger.grow(0, 10 * page_bytes));
  ledger.expect_in_order();
  EXPECT_EQ(code_of(pool->try_grow(ledger.blocks()[0], 20 * page_bytes)), Errc::cannot_grow);
  ledger.free(2);
  EXPECT_TRUE(ledger.grow(1, 40 * page_bytes));  // beyond its room, since nothing is there
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, WithoutPlaceForItsRoomABlockDoesWithout) {
  const auto pool =
      make<Virtual>(make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 128_KiB}),
                    Virtual::Options{.page = 64_KiB, .room = 64_KiB});
  Ledger ledger(*pool);
  for (const std::size_t bytes : {32_KiB, 40_KiB, 40_KiB, 16_KiB})
    ASSERT_TRUE(ledger.allocate({.bytes = bytes}));
  ledger.free(1);
  ledger.free(2);  // the other of 40 KiB
  EXPECT_EQ(pool->largest_allocatable(), 80_KiB);
  EXPECT_TRUE(ledger.allocate({.bytes = 80_KiB}));
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, WhatIsFreedBehindARoomIsNoPartOfIt) {
  const auto pool = pool_on(small_device(64), {.room = 4 * page_bytes});
  const Block first = pool->allocate(page_bytes);
  const Block second = pool->allocate(page_bytes);
  pool->deallocate(second);
  const Block again = pool->allocate(page_bytes);
  EXPECT_EQ(again.memory, second.memory);
  pool->deallocate(again);
  pool->deallocate(first);
  testing::expect_nothing_held(*pool);
}

// Every map call of a run fails once: what is asked for again is had, and nothing is lost.
TEST(Virtual, EveryFailedCallLeavesAllInOrder) {
  for (std::uint64_t n = 1;; ++n) {
    const auto device =
        make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 64 * page_bytes, .fail_at = n});
    const auto pool = pool_on(device);
    testing::Random random(4);
    Ledger ledger(*pool);
    for (int step = 0; step < 60; ++step) {
      if (ledger.size() > 0 && random.chance(40)) {
        ledger.free(random.below(ledger.size()));
      } else if (ledger.size() > 0 && random.chance(30)) {
        ledger.grow(random.below(ledger.size()), random.size(19));
      } else {
        ledger.allocate({.bytes = random.size(19)});
      }
      ledger.expect_in_order();
      ASSERT_EQ(device->used(), pool->stats().reserved.current);
    }
    ledger.free_all();
    testing::expect_nothing_held(*pool);
    if (device->allocation_calls() < n) break;
  }
}

TEST(Virtual, AFullDeviceGivesUpIdlePagesFirst) {
  const auto device = small_device(10);
  const auto pool = pool_on(device, {.idle_ratio = 10});
  Ledger ledger(*pool);
  ASSERT_TRUE(ledger.allocate({.bytes = 5 * page_bytes}));
  ASSERT_TRUE(ledger.allocate({.bytes = page_bytes}));
  ledger.free(0);
  ASSERT_TRUE(ledger.allocate({.bytes = 9 * page_bytes}));
  ledger.expect_in_order();
  EXPECT_EQ(device->used(), 10 * page_bytes);
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, AFullDeviceGetsNoMoreIdlePagesBackThanAreAskedFor) {
  const auto pool = pool_on(small_device(10), {.idle_ratio = 10});
  Ledger ledger(*pool);
  for (const std::size_t pages : std::initializer_list<std::size_t>{3, 1, 3, 1})
    ASSERT_TRUE(ledger.allocate({.bytes = pages * page_bytes}));
  ledger.free(2);
  ledger.free(0);
  ASSERT_TRUE(ledger.allocate({.bytes = 4 * page_bytes}));
  EXPECT_EQ(pool->stats().cached.current, 2 * page_bytes);
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, PagesMappedForARequestThatFailsAreNotKeptBeyondTheBound) {
  const auto device = small_device(10);
  const auto pool = pool_on(device);
  Ledger ledger(*pool);
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = page_bytes}));
  ledger.free(2);
  ledger.free(0);
  pool->trim();  // the middle page alone is mapped
  ledger.free(0);
  device->fail_next(2);
  EXPECT_FALSE(ledger.allocate({.bytes = 3 * page_bytes}));
  EXPECT_EQ(device->used(), page_bytes);
  ledger.expect_in_order();
  EXPECT_TRUE(ledger.allocate({.bytes = 3 * page_bytes}));
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, WithoutMemoryForRecordsRequestsFailAndNothingIsLost) {
  for (int n = 1;; ++n) {
    const auto pool = pool_on(small_device(64), {.addresses = 8 * page_bytes});
    std::vector<Block> blocks;
    bool failed = false;
    {
      blocks.reserve(100);
      const testing::FailingNew failing(n);
      for (int i = 0; i < 100; ++i) {
        const Expected<Block> block = pool->try_allocate({.bytes = 20'000, .alignment = 4096});
        if (block) blocks.push_back(*block);
      }
      failed = testing::FailingNew::has_failed();
    }
    EXPECT_EQ(pool->validate(), "");
    for (const Block& block : blocks)
      EXPECT_TRUE(pool->deallocate(block));
    testing::expect_nothing_held(*pool);
    if (!failed) break;
  }
}

TEST(Virtual, ClosedWithBlocksOutItStaysForTheLast) {
  const testing::CaughtReports reports;
  const auto device = small_device(64);
  Buffer kept;
  {
    const auto pool = pool_on(device);
    kept = Buffer(*pool, 3 * page_bytes);
    Ledger(*pool).allocate({.bytes = 0});
    pool->deallocate(pool->allocate(2 * page_bytes));
    EXPECT_EQ(device->used(), 5 * page_bytes);
  }
  EXPECT_EQ(device->used(), 3 * page_bytes);  // a closed pool keeps nothing idle
  kept.reset();
  EXPECT_EQ(device->used(), 0U);
  EXPECT_EQ(reports.all().size(), 1U);
  EXPECT_EQ(device->validate(), "");
}

TEST(Virtual, StandsDirectlyOnADeviceThatHasVirtualMemory) {
  const auto message = [](auto&& make_it) -> std::string {
    try {
      make_it();
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message([] { make<Virtual>(make<PmrDevice>(std::pmr::new_delete_resource())); }),
            "virtual: the device pmr has no virtual memory");
  EXPECT_EQ(message([] { make<Virtual>(make<Limit>(small_device(1), 1_GiB)); }),
            "virtual: it stands directly on a device, to map pages of its own");
  EXPECT_THROW(make<Virtual>(Ref<Resource>{}), std::invalid_argument);
  EXPECT_THROW(make<Virtual>(small_device(1), Virtual::Options{.page = 3}), std::invalid_argument);
  EXPECT_THROW(make<Virtual>(small_device(1), Virtual::Options{.page = 2_KiB}),
               std::invalid_argument);
  EXPECT_THROW(make<Virtual>(small_device(1), Virtual::Options{.idle_ratio = std::nan("")}),
               std::invalid_argument);
}

TEST(Virtual, IsAStageOfTheLanguage) {
  const auto stack =
      open("limit(1MiB) > virtual(page=64KiB, max_bytes=10%, room=1MiB) > simulated");
  const Block block = stack->allocate(100'000);
  EXPECT_EQ(stack->stats().reserved.current, 128_KiB);
  EXPECT_TRUE(stack->deallocate(block));
  testing::expect_nothing_held(*stack);
}

TEST(Virtual, KnowsHowLargeARequestCouldBe) {
  const auto device = small_device(64);
  const auto pool = pool_on(device);
  Ledger ledger(*pool);
  for (int i = 0; i < 30; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = 2 * page_bytes}));
  for (std::size_t i = 15; i-- > 0;)
    ledger.free(2 * i);
  const std::size_t largest = pool->largest_allocatable();
  EXPECT_EQ(largest, 34 * page_bytes);
  EXPECT_FALSE(ledger.allocate({.bytes = largest + 1}));
  EXPECT_TRUE(ledger.allocate({.bytes = largest}));
  try {
    (void)pool->allocate(page_bytes);
    FAIL() << "there is no page left";
  } catch (const OutOfMemory& error) {
    EXPECT_EQ(error.shortage().live_granted, 64 * page_bytes);
    EXPECT_EQ(error.shortage().holes, 0U);
    EXPECT_EQ(error.shortage().device_free, 0U);
  }
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

TEST(Virtual, APoolAboveItIsServed) {
  const auto pool = make<Cache>(pool_on(small_device(64)));
  Ledger ledger(*pool);
  for (std::size_t i = 1; i < 20; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = i * 7000}));
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_nothing_held(*pool);
}

void random_run(Virtual& pool, std::uint64_t seed, unsigned bits) {
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  Ledger ledger(pool);
  for (int step = 0; step < 1500; ++step) {
    const std::uint64_t what = random.below(100);
    if (what < 45 || ledger.size() == 0) {
      ledger.allocate({.bytes = random.size(bits), .stream = {.id = random.below(3)}});
    } else if (what < 80) {
      ledger.free(random.below(ledger.size()), {.id = random.below(3)});
    } else if (what < 92) {
      ledger.grow(random.below(ledger.size()), random.size(bits + 1));
    } else if (what < 95) {
      pool.trim(random.size(bits + 2));
    } else if (what < 97) {
      pool.set_max_bytes(random.chance(20) ? unbounded : random.size(bits + 4));
    } else {
      ledger.allocate(
          {.bytes = random.size(bits), .alignment = std::size_t{1} << random.below(18)});
    }
    ledger.expect_in_order();
    if (::testing::Test::HasFailure()) return;
  }
  ledger.free_all();
  testing::expect_nothing_held(pool);
}

TEST(VirtualProperty, OnMemoryThatCanBeWritten) {
  for (std::uint64_t seed = testing::seed_or(300), end = seed + 3; seed < end; ++seed) {
    random_run(
        *make<Virtual>(make<HostDevice>(), Virtual::Options{.page = 4_KiB, .addresses = 64_MiB}),
        seed, 16);
    random_run(
        *make<Virtual>(make<HostDevice>(),
                       Virtual::Options{.page = 64_KiB, .addresses = 64_MiB, .room = 200_KiB}),
        seed, 18);
  }
}

TEST(VirtualProperty, OnADeviceThatIsFullAndFails) {
  for (std::uint64_t seed = testing::seed_or(400), end = seed + 3; seed < end; ++seed) {
    const auto device = make<SimulatedDevice>(SimulatedDevice::Options{
        .capacity = 100 * page_bytes, .fail_probability = 0.1, .seed = seed});
    random_run(*pool_on(device, {.idle_ratio = 0.1}), seed, 20);
    EXPECT_EQ(device->used(), 0U);
    random_run(*pool_on(device, {.addresses = 32 * page_bytes, .room = 3 * page_bytes}), seed, 20);
    EXPECT_EQ(device->used(), 0U);
  }
}

}  // namespace
}  // namespace cistern
