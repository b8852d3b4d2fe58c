// An arena has an owner, and other threads free what it has granted: one thread after the other
// here, so that every figure is exact.
#include <optional>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/core/buffer.hpp"
#include "support/arenas.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/spy.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::CaughtReports;
using testing::EveryArena;
using ::testing::HasSubstr;
using testing::Ledger;
using testing::on_another_thread;

class ArenaThread : public EveryArena {};
CISTERN_INSTANTIATE_EVERY_ARENA(ArenaThread);

// --- Frees on other threads. ---

TEST_P(ArenaThread, WhatAnotherThreadFreesIsFreeAtOnceInTheFigures) {
  const Ref<Arena> arena = make_arena({.chunk = 8_KiB});
  const std::size_t step = granule(*arena);
  const Block taken = arena->allocate(step);
  const Block passed = arena->allocate(100_KiB);
  const Block kept = arena->allocate(step);
  on_another_thread([&] {
    EXPECT_TRUE(arena->deallocate(taken));
    EXPECT_TRUE(arena->deallocate(passed));
  });
  const auto expect_free = [&] {
    const Stats stats = arena->stats();
    EXPECT_EQ(stats.live_blocks.current, 1U);
    EXPECT_EQ(stats.live_requested.current, step);
    EXPECT_EQ(stats.live_granted.current, step);
    EXPECT_EQ(stats.live_blocks.peak, 3U);
    EXPECT_EQ(stats.live_granted.peak, 100_KiB + 2 * step);
    EXPECT_EQ(stats.allocations, 3U);
    EXPECT_EQ(stats.frees, 2U);
    EXPECT_EQ(stats.cached.current + stats.live_granted.current, stats.reserved.current);
    EXPECT_EQ(arena->outstanding().blocks, 1U);
    EXPECT_EQ(arena->outstanding().bytes, step);
    EXPECT_FALSE(arena->is_live(taken));
    EXPECT_FALSE(arena->is_live(passed));
    EXPECT_EQ(arena->validate(), "");
  };
  expect_free();
  EXPECT_EQ(arena->stats().device_frees, 0U);
  EXPECT_EQ(arena->in_use_count(), 3U);  // as far as the owner knows
  EXPECT_EQ(arena->trim(), 100_KiB);     // more than a hit: the owner sees to it
  EXPECT_EQ(arena->stats().device_frees, 1U);
  EXPECT_EQ(arena->in_use_count(), 1U);
  expect_free();
  EXPECT_TRUE(arena->deallocate(kept));
  testing::expect_all_accounted_for(*arena);
}

TEST_P(ArenaThread, NobodyFreesABlockTwice) {
  const CaughtReports reports;
  for (const std::size_t bytes : {1000UL, 100'000UL}) {
    const Ref<Arena> arena = make_arena({.chunk = 8_KiB});
    const Block block = arena->allocate(bytes);
    on_another_thread([&] { EXPECT_TRUE(arena->deallocate(block)); });
    const auto refuse = [&] {
      EXPECT_FALSE(arena->deallocate(block));
      EXPECT_EQ(arena->also_used_on(block, {}).error().code, Errc::invalid_block);
    };
    refuse();
    on_another_thread(refuse);
    EXPECT_EQ(arena->try_grow(block, 1).error().code, Errc::invalid_block);  // sees to it
    EXPECT_EQ(arena->in_use_count(), 0U);
    refuse();
    on_another_thread(refuse);
    const Block again = arena->allocate(bytes);
    refuse();
    on_another_thread(refuse);
    EXPECT_TRUE(arena->is_live(again));
    on_another_thread([&] { EXPECT_TRUE(arena->deallocate(again)); });
    EXPECT_EQ(arena->stats().refused_frees, 6U);
    EXPECT_EQ(arena->stats().frees, 2U);
    testing::expect_all_accounted_for(*arena);
  }
}

TEST_P(ArenaThread, AResetSeesToWhatOthersFreedBeforeAndRefusesItAfter) {
  const CaughtReports reports;
  const Ref<Arena> arena = make_arena({.chunk = 8_KiB});
  for (int cycle = 0; cycle < 3; ++cycle) {
    Ledger ledger(*arena);
    for (const std::size_t bytes : {1000U, 100'000U, 1000U, 100'000U, 1000U})
      ASSERT_TRUE(ledger.allocate({.bytes = bytes}));
    const std::vector<Block> stale = ledger.blocks();
    on_another_thread([&] {
      ledger.free(0);
      ledger.free(1);
    });
    ledger.expect_in_order();
    ledger.reset();  // three came back with it
    ledger.expect_in_order();
    for (int i = 0; i < 5; ++i)
      ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
    on_another_thread([&] {
      for (const Block& block : stale)
        EXPECT_FALSE(arena->deallocate(block));
    });
    ledger.expect_in_order();
    on_another_thread([&] { ledger.free_all(); });
    ledger.expect_in_order();
    EXPECT_EQ(arena->reset(), 0U);
    ledger.expect_in_order();
  }
  testing::expect_all_accounted_for(*arena);
}

TEST_P(ArenaThread, ABufferMayEndOnAnyThread) {
  const Ref<Arena> arena = make_arena({.chunk = 8_KiB});
  std::optional<Buffer> buffer(std::in_place, *arena, 1000);
  arena->reset();
  on_another_thread([&] { buffer = {}; });
  EXPECT_EQ(arena->stats().live_blocks.current, 0U);
  EXPECT_EQ(arena->stats().refused_frees, 0U);
  testing::expect_all_accounted_for(*arena);
}

TEST(ArenaThreadOrder, AFreeIsPassedOnInTheOrderOfItsStream) {
  const auto spy = make<testing::Spy>(make<SimulatedDevice>());
  const auto arena = make<Arena>(spy);
  const std::vector<Block> blocks = {arena->allocate(1000), arena->allocate(1000)};
  static_cast<void>(arena->allocate(Request{.bytes = 1000, .stream = {.id = 7}}));
  ASSERT_TRUE(arena->also_used_on(blocks[0], {.id = 3}));
  on_another_thread([&] { arena->deallocate(blocks[0], {.id = 4}); });
  arena->deallocate(blocks[1], {.id = 5});
  arena->reset();
  ASSERT_EQ(spy->freed.size(), 3U);
  EXPECT_EQ(spy->freed[0].stream.id, 5U);
  EXPECT_EQ(spy->freed[1].stream.id, 4U);
  EXPECT_EQ(spy->freed[2].stream.id, 7U);  // of its request, where a reset ends it
}

// --- Trims on other threads. ---

TEST_P(ArenaThread, ATrimOfAnotherThreadWaitsForTheOwner) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  static_cast<void>(arena->allocate(1000));
  arena->reset();
  on_another_thread([&] { EXPECT_EQ(arena->trim(), 0U); });
  EXPECT_EQ(arena->stats().reserved.current, 64_KiB);
  EXPECT_TRUE(arena->allocate(0).empty());  // more than a hit
  EXPECT_EQ(arena->stats().reserved.current, 0U);
  arena->reset();
  EXPECT_TRUE(arena->allocate(0).empty());
  EXPECT_EQ(arena->stats().reserved.current, 64_KiB);  // it was asked for once
  on_another_thread([&] { EXPECT_EQ(arena->trim(64_KiB), 0U); });
  EXPECT_TRUE(arena->allocate(0).empty());
  EXPECT_EQ(arena->stats().reserved.current, 64_KiB);
}

// --- The owner. ---

TEST_P(ArenaThread, OnlyTheOwnerAllocatesWhereThatIsChecked) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  arena->check_owner(true);
  Ledger ledger(*arena);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ledger.expect_in_order();
  EXPECT_EQ(arena->stats().misses, 0U);
  const Block live = ledger.blocks()[1];
  on_another_thread([&] {
    const CaughtReports reports;
    const std::vector<Request> batch = {{.bytes = 10}, {.bytes = 20}};
    std::vector<Block> blocks(2, live);
    EXPECT_EQ(arena->try_allocate({.bytes = 1000}).error().code, Errc::wrong_thread);
    EXPECT_EQ(arena->try_allocate_held({.bytes = 1000}).error().code, Errc::wrong_thread);
    EXPECT_EQ(arena->try_allocate_batch(batch, blocks).error().code, Errc::wrong_thread);
    EXPECT_TRUE(blocks[0].empty() && blocks[1].empty());
    EXPECT_EQ(arena->try_grow(live, 2000).error().code, Errc::wrong_thread);
    EXPECT_THROW(static_cast<void>(arena->allocate(1000)), OutOfMemory);
    EXPECT_TRUE(reports.all().empty());
    arena->cycle();
    EXPECT_EQ(arena->reset(), 0U);
    arena->hand_over();  // not its to give
    ASSERT_EQ(reports.all().size(), 2U);
    EXPECT_THAT(reports.all()[0], HasSubstr("arena: only its owner"));
  });
  EXPECT_EQ(arena->cycles(), 1U);
  EXPECT_EQ(arena->stats().failures, 4U);
  EXPECT_TRUE(arena->is_live(live));
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ledger.expect_in_order();
  arena->check_owner(false);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  arena->check_owner(true);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ledger.expect_in_order();
  EXPECT_EQ(arena->stats().misses, 0U);
  EXPECT_TRUE(ledger.grow(4, 2000));
  ledger.free(4);
  ledger.expect_in_order();
  ledger.reset();
}

TEST_P(ArenaThread, WhatIsNotAHitIsRefusedToOtherThreadsWithoutACheckToo) {
  const Ref<Arena> arena = make_arena();
  arena->check_owner(false);
  static_cast<void>(arena->allocate(1000));
  on_another_thread(
      [&] { EXPECT_EQ(arena->try_allocate({.bytes = 1000}).error().code, Errc::wrong_thread); });
  EXPECT_EQ(arena->reset(), 1U);
}

TEST_P(ArenaThread, AnArenaMayBeHandedOverWithWhatIsLive) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  arena->check_owner(true);
  Ledger ledger(*arena);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ASSERT_TRUE(ledger.allocate({.bytes = 2000}));
  on_another_thread([&] { ledger.free(0); });
  arena->hand_over();
  EXPECT_EQ(arena->in_use_count(), 1U);  // what waited was seen to
  ledger.free(0);                        // while nobody owns it
  ledger.expect_in_order();
  on_another_thread([&] {
    ASSERT_TRUE(ledger.allocate({.bytes = 3000}));
    ledger.expect_in_order();
    ledger.reset();
    ASSERT_TRUE(ledger.allocate({.bytes = 3000}));
    ledger.expect_in_order();
  });
  EXPECT_EQ(arena->try_allocate({.bytes = 1}).error().code, Errc::wrong_thread);
  ledger.free_all();
  ledger.expect_in_order();
  on_another_thread([&] { arena->hand_over(); });  // of whatever thread has its name now
}

// --- Closing. ---

TEST(ArenaClosing, WhatOtherThreadsHoldKeepsTheArenaUntilTheLastIsFreed) {
  const CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  Ref<Arena> arena = make<Arena>(device, Arena::Options{.chunk = 8_KiB});
  Arena& closed = *arena;
  std::vector<Block> blocks = {arena->allocate(1000), arena->allocate(100_KiB),
                               arena->allocate(2000), arena->allocate_held(Request{.bytes = 3000}),
                               arena->allocate(100)};
  on_another_thread([&] { closed.deallocate(blocks[2]); });
  arena = {};
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_THAT(reports.all()[0], HasSubstr("4, of"));
  on_another_thread([&] {
    EXPECT_FALSE(closed.deallocate(blocks[2]));
    EXPECT_TRUE(closed.deallocate(blocks[1]));
    EXPECT_FALSE(closed.deallocate(blocks[1]));
    EXPECT_EQ(device->used(), 8_KiB + 3072);
    EXPECT_TRUE(closed.deallocate(blocks[4]));
    EXPECT_TRUE(closed.deallocate(blocks[0]));
    EXPECT_EQ(device->used(), 3072U);  // nothing of the chunk is live
    EXPECT_EQ(closed.validate(), "");
  });
  EXPECT_EQ(closed.stats().live_blocks.current, 1U);
  EXPECT_TRUE(closed.deallocate(blocks[3]));
  EXPECT_EQ(device->used(), 0U);
  EXPECT_EQ(device->registry().size(), 0U);
}

TEST(ArenaClosing, AnIdleChunkGoesAtOnceThoughSomethingIsHeld) {
  const CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  Ref<Arena> arena = make<Arena>(device, Arena::Options{.chunk = 8_KiB});
  Arena& closed = *arena;
  static_cast<void>(arena->allocate(1000));
  const Block held = arena->allocate_held(Request{.bytes = 3000});
  arena->reset();
  arena = {};
  EXPECT_EQ(device->used(), 3072U);
  EXPECT_TRUE(closed.deallocate(held));
  EXPECT_EQ(device->used(), 0U);
}

TEST(ArenaClosing, AnArenaWithoutLiveBlocksEndsAtOnce) {
  const CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  Ref<Arena> arena = make<Arena>(device, Arena::Options{.chunk = 8_KiB});
  const Block taken = arena->allocate(1000);
  const Block passed = arena->allocate(100_KiB);
  on_another_thread([&] {
    arena->deallocate(taken);
    arena->deallocate(passed);
  });
  arena = {};
  EXPECT_EQ(device->used(), 0U);
  EXPECT_TRUE(reports.all().empty());
}

}  // namespace
}  // namespace cistern
