// What every arena does, whatever its device: the statements of its header, and the faults of the
// arenas of this field that it must not have.
#include "cistern/pool/arena.hpp"

#include <array>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/core/buffer.hpp"
#include "cistern/core/measure.hpp"
#include "support/arenas.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::CaughtReports;
using testing::EveryArena;
using ::testing::HasSubstr;
using testing::Ledger;

class ArenaTest : public EveryArena {};
CISTERN_INSTANTIATE_EVERY_ARENA(ArenaTest);

bool is_same_place(const Block& a, const Block& b) {
  return a.memory == b.memory && a.offset == b.offset;
}

/// As many blocks of a size, in order.
std::vector<Block> take(Arena& arena, std::size_t count, std::size_t bytes) {
  std::vector<Block> blocks;
  for (std::size_t i = 0; i < count; ++i)
    blocks.push_back(arena.allocate(bytes));
  return blocks;
}

void turn(Arena& arena, std::size_t count, std::size_t bytes) {
  take(arena, count, bytes);
  arena.reset();
}

// --- Cycles. ---

TEST_P(ArenaTest, ResetReturnsTheSameMemoryAgainFromTheSecondCycleOn) {
  const Ref<Arena> arena = make_arena();
  const std::vector<std::size_t> sizes = {1, 1000, 64, 70'000, 3};
  std::vector<Block> before;
  for (int cycle = 0; cycle < 5; ++cycle) {
    std::vector<Block> now;
    for (const std::size_t bytes : sizes)
      now.push_back(arena->allocate(bytes));
    EXPECT_EQ(arena->in_use_count(), sizes.size());
    if (cycle >= 2) {
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        EXPECT_TRUE(is_same_place(now[i], before[i])) << "block " << i << " in cycle " << cycle;
        EXPECT_NE(now[i].generation, before[i].generation);
      }
    }
    EXPECT_EQ(arena->validate(), "");
    EXPECT_EQ(arena->reset(), sizes.size());
    EXPECT_EQ(arena->validate(), "");
    EXPECT_EQ(arena->in_use_count(), 0U);
    before = now;
  }
  EXPECT_EQ(arena->cycles(), 6U);
  const Stats stats = arena->stats();
  EXPECT_EQ(stats.misses, 5U);  // of the first cycle
  EXPECT_EQ(stats.hits, 20U);
  EXPECT_EQ(stats.device_allocations, 6U);  // and one chunk
  testing::expect_all_accounted_for(*arena);
}

TEST_P(ArenaTest, WithAChunkFromTheStartItIsTheSameMemoryFromTheFirstCycleOn) {
  const Ref<Arena> arena = make_arena({.chunk = 1_MiB});
  EXPECT_EQ(arena->stats().reserved.current, 0U);  // until it is needed
  const std::vector<Block> first = take(*arena, 100, 1000);
  EXPECT_EQ(arena->stats().misses, 0U);
  EXPECT_EQ(arena->stats().device_allocations, 1U);
  arena->reset();
  const std::vector<Block> second = take(*arena, 100, 1000);
  for (std::size_t i = 0; i < first.size(); ++i)
    EXPECT_TRUE(is_same_place(first[i], second[i]));
  EXPECT_EQ(arena->stats().device_allocations, 1U);
  arena->reset();
  EXPECT_EQ(arena->stats().reserved.current, 1_MiB);  // no less, though no more was needed
  testing::expect_all_accounted_for(*arena);
}

TEST_P(ArenaTest, BlocksOfTheChunkLieSideBySideInTheOrderOfTheirRequests) {
  const Ref<Arena> arena = make_arena({.chunk = 1_MiB});
  Ledger ledger(*arena);
  for (int i = 0; i < 100; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  const std::size_t granted = *round_up(1000, granule(*arena));
  for (std::size_t i = 0; i < 100; ++i) {
    const Block& block = ledger.blocks()[i];
    EXPECT_EQ(block.bytes, granted);
    const Block& first = ledger.blocks()[0];
    EXPECT_EQ(static_cast<std::byte*>(block.memory) + block.offset,
              static_cast<std::byte*>(first.memory) + first.offset + i * granted);
  }
  ledger.expect_in_order();
  ledger.reset();
  ledger.expect_in_order();
}

TEST_P(ArenaTest, AnEmptyResetIsHarmless) {
  for (const std::size_t chunk : {std::size_t{0}, 1_MiB}) {
    const Ref<Arena> arena = make_arena({.chunk = chunk});
    EXPECT_EQ(arena->reset(), 0U);
    EXPECT_EQ(arena->reset(), 0U);
    EXPECT_EQ(arena->validate(), "");
    Ledger ledger(*arena);
    ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
    ledger.expect_in_order();
    EXPECT_LE(arena->stats().reserved.current, chunk != 0 ? chunk : granule(*arena) + 1000);
    ledger.reset();
    EXPECT_EQ(arena->reset(), 0U);
    ledger.expect_in_order();
    EXPECT_EQ(arena->cycles(), 5U);
    testing::expect_all_accounted_for(*arena);
  }
}

TEST_P(ArenaTest, TheChunkHoldsWhatEitherOfTheLastTwoCyclesNeededAndNoMore) {
  const Ref<Arena> arena = make_arena();
  const auto held_after = [&](std::size_t bytes) {
    turn(*arena, bytes > 0 ? 1 : 0, bytes);
    EXPECT_EQ(arena->validate(), "");
    EXPECT_EQ(arena->stats().cached.current, arena->stats().reserved.current);
    EXPECT_EQ(arena->free_bytes(), arena->stats().reserved.current);
    return arena->stats().reserved.current;
  };
  EXPECT_EQ(held_after(64_KiB), 64_KiB);
  EXPECT_EQ(held_after(256_KiB), 256_KiB);
  EXPECT_EQ(held_after(32_KiB), 256_KiB);
  EXPECT_EQ(held_after(16_KiB), 32_KiB);
  EXPECT_EQ(held_after(16_KiB), 16_KiB);
  const std::uint64_t calls = arena->stats().device_allocations;
  EXPECT_EQ(held_after(15_KiB), 16_KiB);
  EXPECT_EQ(held_after(14_KiB), 16_KiB);
  EXPECT_EQ(held_after(14_KiB), 16_KiB);  // an eighth more is not worth a call
  EXPECT_EQ(arena->stats().device_allocations, calls);
  EXPECT_EQ(held_after(12_KiB), 16_KiB);
  EXPECT_EQ(held_after(12_KiB), 12_KiB);
  EXPECT_EQ(held_after(0), 12_KiB);
  EXPECT_EQ(held_after(0), 0U);
}

TEST_P(ArenaTest, WhatCountsIsTheLargestSumThatWasLive) {
  const Ref<Arena> arena = make_arena();
  for (int i = 0; i < 100; ++i)
    arena->deallocate(arena->allocate(64_KiB));
  take(*arena, 2, 16_KiB);
  arena->deallocate(arena->allocate(64_KiB));
  arena->reset();
  EXPECT_EQ(arena->stats().reserved.current, 96_KiB);
  // In the chunk and beside it.
  take(*arena, 5, 32_KiB);
  arena->reset();
  EXPECT_EQ(arena->stats().reserved.current, 160_KiB);
}

TEST_P(ArenaTest, ACycleWithoutAResetTakesNothingBack) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  Ledger ledger(*arena);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ASSERT_TRUE(ledger.allocate({.bytes = 100_KiB}));
  arena->cycle();
  EXPECT_EQ(arena->cycles(), 2U);
  ledger.expect_in_order();
  EXPECT_TRUE(arena->is_live(ledger.blocks()[0]));
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ledger.reset();
  ledger.expect_in_order();
}

TEST_P(ArenaTest, ManyMoreBlocksThanEverBeforeAreServedAndTheirHandlesStayReadable) {
  const Ref<Arena> arena = make_arena({.chunk = 4_MiB});
  const CaughtReports reports;
  std::vector<Block> stale;
  for (const std::size_t count : {500U, 3'000U, 3'000U, 10'000U, 10'000U}) {
    Ledger ledger(*arena);
    for (std::size_t i = 0; i < count; ++i)
      ASSERT_TRUE(ledger.allocate({.bytes = 100}));
    ledger.expect_in_order();
    for (const Block& block : stale) {
      ASSERT_FALSE(arena->is_live(block));
      ASSERT_FALSE(arena->deallocate(block));
    }
    ledger.expect_in_order();
    stale = {ledger.blocks()[0], ledger.blocks()[count / 2], ledger.blocks().back()};
    ledger.reset();
    ledger.expect_in_order();
  }
  const std::uint64_t misses = arena->stats().misses;
  turn(*arena, 10'000, 100);
  EXPECT_EQ(arena->stats().misses, misses);
  testing::expect_all_accounted_for(*arena);
}

// --- Frees one by one. ---

TEST_P(ArenaTest, NeverResetItHoldsWhatIsLiveAndNoMore) {
  const Ref<Arena> arena = make_arena();
  Ledger ledger(*arena);
  for (std::size_t i = 1; i <= 50; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = i * 777}));
  const auto expect_exact = [&] {
    ledger.expect_in_order();
    EXPECT_EQ(arena->in_use_count(), ledger.size());
    EXPECT_EQ(arena->stats().reserved.current, arena->stats().live_granted.current);
    EXPECT_EQ(arena->free_count(), 0U);
    EXPECT_EQ(arena->free_bytes(), 0U);
    EXPECT_EQ(arena->outstanding().blocks, ledger.size());
    EXPECT_EQ(arena->outstanding().bytes, arena->stats().live_granted.current);
  };
  expect_exact();
  for (int i = 0; i < 200; ++i) {
    ledger.free(static_cast<std::size_t>(i) % ledger.size());
    expect_exact();
    ASSERT_TRUE(ledger.allocate({.bytes = 5'000}));
    expect_exact();
  }
  ledger.free_all();
  expect_exact();
  EXPECT_EQ(arena->stats().cached.peak, 0U);
  EXPECT_EQ(arena->stats().frees, 250U);
}

TEST_P(ArenaTest, ReleasedAndThenResetNoBlockIsGrantedTwice) {
  for (const std::size_t chunk : {std::size_t{0}, 8_KiB, 1_MiB}) {
    const Ref<Arena> arena = make_arena({.chunk = chunk});
    for (int cycle = 0; cycle < 4; ++cycle) {
      Ledger ledger(*arena);
      for (int i = 0; i < 20; ++i)
        ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
      for (const std::size_t each : {3U, 19U - 1, 0U})
        ledger.free(each);
      ledger.expect_in_order();
      EXPECT_EQ(arena->in_use_count(), 17U);
      ledger.reset();
      for (int i = 0; i < 40; ++i)
        ASSERT_TRUE(ledger.allocate({.bytes = 1000}));  // and none overlaps another
      ledger.expect_in_order();
      ledger.reset();
    }
    testing::expect_all_accounted_for(*arena);
  }
}

TEST_P(ArenaTest, WhatIsFreedOfTheChunkIsUsedAgainIfItWasTheLast) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  const std::vector<Block> blocks = take(*arena, 3, 1000);
  arena->deallocate(blocks[2]);
  const Block again = arena->allocate(2000);
  EXPECT_TRUE(is_same_place(again, blocks[2]));
  EXPECT_NE(again.generation, blocks[2].generation);
  EXPECT_EQ(arena->validate(), "");
  arena->deallocate(blocks[1]);  // in the middle: not before the others are gone
  const Block behind = arena->allocate(100);
  EXPECT_FALSE(is_same_place(behind, blocks[1]));
  EXPECT_EQ(arena->validate(), "");
  EXPECT_EQ(arena->in_use_count(), 3U);
  const CaughtReports reports;
  EXPECT_FALSE(arena->deallocate(blocks[1]));
  EXPECT_FALSE(arena->deallocate(blocks[2]));
  EXPECT_EQ(reports.all().size(), 2U);
  for (const Block& block : {blocks[0], again, behind})
    EXPECT_TRUE(arena->deallocate(block));
  EXPECT_EQ(arena->validate(), "");
  const Block first = arena->allocate(64_KiB);  // nothing was live, so all of it is there
  EXPECT_TRUE(is_same_place(first, blocks[0]));
  EXPECT_EQ(arena->stats().device_allocations, 1U);
  for (const Block& block : {blocks[0], again, behind})
    EXPECT_FALSE(arena->deallocate(block));
  EXPECT_TRUE(arena->deallocate(first));
  EXPECT_EQ(reports.all().size(), 5U);
}

TEST_P(ArenaTest, PairsForEverNeedOneBlock) {
  const Ref<Arena> arena = make_arena({.chunk = 8_KiB});
  const Block kept = arena->allocate(1000);
  for (int i = 0; i < 10'000; ++i)
    ASSERT_TRUE(arena->deallocate(arena->allocate(5000)));
  EXPECT_EQ(arena->stats().misses, 0U);
  EXPECT_EQ(arena->in_use_count(), 1U);
  EXPECT_TRUE(arena->deallocate(kept));
  for (int i = 0; i < 10'000; ++i)
    ASSERT_TRUE(arena->deallocate(arena->allocate(5000)));
  EXPECT_EQ(arena->stats().misses, 0U);
  testing::expect_all_accounted_for(*arena);
}

// --- Handles. ---

TEST_P(ArenaTest, AHandleOfAnEndedCycleIsRefusedWhereverItTurnsUpAndTheCycleIsNamed) {
  for (const std::size_t chunk : {std::size_t{0}, 64_KiB}) {
    const Ref<Arena> arena = make_arena({.chunk = chunk});
    turn(*arena, 1, 1000);
    turn(*arena, 1, 1000);
    const std::array<Block, 2> stale{arena->allocate(1000), arena->allocate(100_KiB)};
    for (const Block& block : stale)
      EXPECT_TRUE(arena->is_live(block));
    arena->reset();
    const std::array<Block, 2> live{arena->allocate(1000), arena->allocate(100_KiB)};
    const Stats before = arena->stats();
    const auto refuse = [&](const Block& block) {
      const CaughtReports reports;
      EXPECT_FALSE(arena->is_live(block));
      EXPECT_FALSE(arena->deallocate(block));
      ASSERT_EQ(reports.all().size(), 1U);
      EXPECT_THAT(reports.all()[0], HasSubstr("cycle 3"));
      const Expected<void> used = arena->also_used_on(block, {.id = 1});
      ASSERT_FALSE(used);
      EXPECT_EQ(used.error().code, Errc::invalid_block);
      EXPECT_EQ(used.error().from_cycle, 3U);
      EXPECT_THAT(describe(used.error()), HasSubstr("cycle 3"));
    };
    for (const Block& block : stale) {
      refuse(block);
      testing::on_another_thread([&] { refuse(block); });
      const Expected<Block> grown = arena->try_grow(block, 200_KiB);
      ASSERT_FALSE(grown);
      EXPECT_EQ(grown.error().code, Errc::invalid_block);
      EXPECT_EQ(grown.error().from_cycle, 3U);
    }
    Stats after = arena->stats();
    EXPECT_EQ(after.refused_frees, 4U);
    after.refused_frees = 0;
    EXPECT_EQ(after, before);
    for (const Block& block : live)
      EXPECT_TRUE(arena->deallocate(block));
    EXPECT_EQ(arena->validate(), "");
  }
}

TEST_P(ArenaTest, ARepeatedOrForeignFreeChangesNothing) {
  const CaughtReports reports;
  const Ref<Arena> arena = make_arena({.chunk = 8_KiB});
  const Ref<Arena> other = make_arena({.chunk = 8_KiB});
  for (const std::size_t bytes : {1000UL, 100'000UL}) {
    const Block block = arena->allocate(bytes);
    EXPECT_FALSE(other->deallocate(block));
    EXPECT_FALSE(other->is_live(block));
    EXPECT_EQ(other->also_used_on(block, {}).error().from_cycle, 0U);
    EXPECT_TRUE(arena->also_used_on(block, {.id = 3}));
    EXPECT_TRUE(arena->deallocate(block));
    EXPECT_FALSE(arena->deallocate(block));
    EXPECT_FALSE(arena->is_live(block));
    EXPECT_EQ(arena->also_used_on(block, {}).error().from_cycle, 0U);  // no reset has ended it
  }
  EXPECT_EQ(arena->stats().refused_frees, 2U);
  EXPECT_EQ(reports.all().size(), 4U);
  EXPECT_TRUE(arena->also_used_on(Block{}, {}));
  EXPECT_FALSE(arena->is_live(Block{}));
  EXPECT_EQ(arena->validate(), "");
  EXPECT_EQ(other->validate(), "");
}

// --- What is held. ---

TEST_P(ArenaTest, WhatIsHeldSurvivesResetsAndNobodyIsGrantedItsMemory) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  Ledger ledger(*arena);
  for (std::size_t cycle = 1; cycle <= 4; ++cycle) {
    ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
    ASSERT_TRUE(ledger.allocate_held({.bytes = 2000}));
    ASSERT_TRUE(ledger.allocate_held({.bytes = 0}));
    ASSERT_TRUE(ledger.allocate({.bytes = 100_KiB}));
    ledger.expect_in_order();
    ledger.reset();
    EXPECT_EQ(ledger.size(), cycle);
    EXPECT_EQ(arena->in_use_count(), cycle);
    ledger.expect_in_order();
  }
  // What is held is no work of a cycle.
  EXPECT_EQ(arena->stats().cached.current, 100_KiB + *round_up(1000, granule(*arena)));
  ledger.free_all();
  ledger.expect_in_order();
  testing::expect_all_accounted_for(*arena);
}

TEST_P(ArenaTest, BuffersAreHeld) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  Buffer buffer(*arena, 1000);
  Buffer adopted(*arena, arena->allocate_held(Request{.bytes = 1000}));
  const Block other = arena->allocate(1000);
  EXPECT_EQ(arena->reset(), 1U);
  EXPECT_FALSE(arena->is_live(other));
  EXPECT_TRUE(arena->is_live(buffer.block()));
  EXPECT_TRUE(arena->is_live(adopted.block()));
  EXPECT_EQ(arena->in_use_count(), 2U);
  buffer.reset();
  EXPECT_EQ(arena->in_use_count(), 1U);
  adopted = Buffer();
  EXPECT_EQ(arena->stats().refused_frees, 0U);
  testing::expect_all_accounted_for(*arena);
}

// --- Sizes, alignments, streams. ---

TEST_P(ArenaTest, ZeroBytesAreTheEmptyBlockAndCountNowhere) {
  for (const std::size_t chunk : {std::size_t{0}, 64_KiB}) {
    const Ref<Arena> arena = make_arena({.chunk = chunk});
    for (int i = 0; i < 2; ++i) {
      const Stats before = arena->stats();
      EXPECT_TRUE(arena->allocate(0).empty());
      EXPECT_TRUE(arena->try_allocate({.bytes = 0})->empty());
      EXPECT_TRUE(arena->try_allocate_held({.bytes = 0})->empty());
      EXPECT_TRUE(arena->deallocate(Block{}));
      EXPECT_EQ(arena->stats().allocations, before.allocations);
      EXPECT_EQ(arena->stats().failures, 0U);
      EXPECT_EQ(arena->stats().live_blocks, before.live_blocks);
      static_cast<void>(arena->allocate(100));  // and the same where there is a chunk
    }
    EXPECT_EQ(arena->validate(), "");
    arena->reset();
  }
}

TEST_P(ArenaTest, SizesBeyondAnyDeviceFailAndLeaveEveryFigureAsItWas) {
  for (const std::size_t chunk : {std::size_t{0}, 64_KiB}) {
    const Ref<Arena> arena = make_arena({.chunk = chunk});
    const Block live = arena->allocate(1000);
    Stats before = arena->stats();
    for (const std::size_t bytes : {std::size_t{1} << 50U, std::size_t{1} << 63U, unbounded - 511,
                                    unbounded - 63, unbounded - 1, unbounded}) {
      ASSERT_FALSE(arena->try_allocate({.bytes = bytes}).has_value()) << bytes;
      EXPECT_THROW(arena->allocate(bytes), OutOfMemory);
      EXPECT_THROW(arena->allocate(Request{.bytes = bytes}), OutOfMemory);
      EXPECT_FALSE(arena->try_allocate_held({.bytes = bytes}).has_value());
      EXPECT_FALSE(arena->try_grow(live, bytes).has_value());
    }
    before.failures += 24;
    EXPECT_EQ(arena->stats(), before);
    EXPECT_EQ(arena->validate(), "");
    EXPECT_TRUE(arena->deallocate(live));
    EXPECT_TRUE(arena->deallocate(arena->allocate(1000)));
    testing::expect_all_accounted_for(*arena);
  }
}

TEST_P(ArenaTest, TheChunkIsUsedToItsEndAndNoFurther) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  Ledger ledger(*arena);
  const std::size_t step = granule(*arena);
  for (std::size_t i = 0; i + 1 < 64_KiB / step; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = step}));
  EXPECT_EQ(arena->free_bytes(), step);
  EXPECT_EQ(arena->free_count(), 1U);
  EXPECT_EQ(arena->stats().misses, 0U);
  ASSERT_TRUE(ledger.allocate({.bytes = step + 1}));
  EXPECT_EQ(arena->stats().misses, 1U);
  ASSERT_TRUE(ledger.allocate({.bytes = step}));
  EXPECT_EQ(arena->stats().misses, 1U);
  EXPECT_EQ(arena->free_count(), 0U);
  ASSERT_TRUE(ledger.allocate({.bytes = 1}));
  EXPECT_EQ(arena->stats().misses, 2U);
  ledger.expect_in_order();
  ledger.reset();
  ledger.expect_in_order();
}

TEST_P(ArenaTest, LargerAlignmentsThanTheDefaultArePassedOn) {
  const Ref<Arena> arena = make_arena({.chunk = 1_MiB});
  Ledger ledger(*arena);
  const std::size_t most = arena->device().limits().max_alignment;
  for (int cycle = 0; cycle < 2; ++cycle) {
    for (std::size_t alignment = 1; alignment <= most; alignment *= 4) {
      const std::uint64_t misses = arena->stats().misses;
      ASSERT_TRUE(ledger.allocate({.bytes = 1000, .alignment = alignment}));
      EXPECT_EQ(arena->stats().misses > misses, alignment > arena->device().limits().alignment);
      ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
    }
    ledger.expect_in_order();
    ledger.reset();
  }
  EXPECT_FALSE(arena->try_allocate({.bytes = 1000, .alignment = 2 * most}).has_value());
  EXPECT_EQ(arena->validate(), "");
}

TEST_P(ArenaTest, TheChunkServesOneStreamInACycle) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  const auto is_hit = [&](std::uint64_t stream) {
    const std::uint64_t misses = arena->stats().misses;
    static_cast<void>(arena->allocate(Request{.bytes = 1000, .stream = {.id = stream}}));
    EXPECT_EQ(arena->validate(), "");
    return arena->stats().misses == misses;
  };
  EXPECT_TRUE(is_hit(7));
  EXPECT_EQ(arena->stats().device_allocations, 1U);
  EXPECT_FALSE(is_hit(0));
  EXPECT_FALSE(is_hit(8));
  const std::uint64_t misses = arena->stats().misses;
  static_cast<void>(arena->allocate(1000));  // the short way, on stream 0
  EXPECT_EQ(arena->stats().misses, misses + 1);
  EXPECT_TRUE(is_hit(7));
  arena->reset();
  EXPECT_TRUE(is_hit(8));
  EXPECT_FALSE(is_hit(7));
  arena->reset();
  EXPECT_TRUE(is_hit(0));
  static_cast<void>(arena->allocate(1000));
  arena->reset();
  testing::expect_all_accounted_for(*arena);
}

// --- Growing in place. ---

TEST_P(ArenaTest, TheLastBlockOfTheChunkGrowsInPlace) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  Ledger ledger(*arena);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  EXPECT_TRUE(ledger.grow(1, 5000));
  ledger.expect_in_order();
  EXPECT_TRUE(ledger.grow(1, 100));  // it is as large already
  ledger.expect_in_order();
  const std::size_t granted = ledger.blocks()[0].bytes;
  EXPECT_TRUE(ledger.grow(0, granted));  // within what it has
  EXPECT_FALSE(ledger.grow(0, granted + 1));
  ledger.expect_in_order();
  EXPECT_TRUE(ledger.grow(1, 64_KiB - granted));
  EXPECT_FALSE(ledger.grow(1, 64_KiB - granted + 1));
  ledger.expect_in_order();
  EXPECT_EQ(arena->stats().live_granted.current, 64_KiB);
  EXPECT_EQ(arena->free_count(), 0U);
  ledger.free(1);
  ledger.expect_in_order();
  EXPECT_EQ(arena->free_bytes(), 64_KiB - granted);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  ledger.reset();
  ledger.expect_in_order();
  EXPECT_EQ(arena->stats().live_granted.peak, 64_KiB);
  EXPECT_EQ(arena->try_grow(Block{}, 1).error().code, Errc::cannot_grow);
}

// --- The heap. ---

TEST_P(ArenaTest, HitsFreesAndResetsUseNoHeap) {
  const Ref<Arena> arena = make_arena();
  std::vector<Block> blocks(50);
  const auto turn = [&] {
    for (std::size_t i = 0; i < blocks.size(); ++i)
      blocks[i] = arena->allocate((i + 1) * 1000);
    for (const std::size_t each : {3U, 49U, 48U})
      arena->deallocate(blocks[each]);
    arena->reset();
  };
  turn();
  const std::uint64_t misses = arena->stats().misses;
  {
    const testing::FailingNew failing(1);
    for (int i = 0; i < 20; ++i)
      turn();
    EXPECT_FALSE(testing::FailingNew::has_failed());
  }
  EXPECT_EQ(arena->stats().misses, misses);
}

// --- Trimming, and what it tells. ---

TEST_P(ArenaTest, TrimGivesTheChunkBackUnlessSomethingOfItIsLive) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  turn(*arena, 10, 1000);
  EXPECT_EQ(arena->trim(64_KiB), 0U);
  EXPECT_EQ(arena->trimmable(), 64_KiB);
  testing::on_another_thread([&] { EXPECT_EQ(arena->trimmable(), 0U); });
  EXPECT_EQ(arena->trim(64_KiB - 1), 64_KiB);
  EXPECT_EQ(arena->trim(), 0U);
  EXPECT_EQ(arena->trimmable(), 0U);
  EXPECT_EQ(arena->free_count(), 0U);
  EXPECT_EQ(arena->validate(), "");
  Ledger ledger(*arena);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));  // passed on, until the next cycle
  ledger.expect_in_order();
  ledger.reset();
  EXPECT_EQ(arena->stats().reserved.current, 64_KiB);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  EXPECT_EQ(arena->trim(), 0U);
  EXPECT_EQ(arena->trimmable(), 0U);
  ledger.expect_in_order();
  EXPECT_EQ(arena->stats().reserved.current, 64_KiB);
  ledger.reset();
}

TEST_P(ArenaTest, ClearForgetsWhatFormerCyclesNeeded) {
  const Ref<Arena> arena = make_arena();
  turn(*arena, 1, 256_KiB);
  arena->clear();
  EXPECT_EQ(arena->stats().reserved.current, 0U);
  EXPECT_EQ(arena->validate(), "");
  arena->reset();
  EXPECT_EQ(arena->stats().reserved.current, 0U);
  turn(*arena, 1, 16_KiB);
  EXPECT_EQ(arena->stats().reserved.current, 16_KiB);
  const Block live = arena->allocate(1000);
  arena->clear();  // what is live stays
  EXPECT_TRUE(arena->is_live(live));
  EXPECT_EQ(arena->validate(), "");
  testing::on_another_thread([&] { arena->clear(); });  // without effect
  EXPECT_EQ(arena->stats().reserved.current, 16_KiB);
  arena->reset();
}

TEST_P(ArenaTest, PeaksAreExactAndCanBeReset) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  const std::size_t step = granule(*arena);
  static_cast<void>(arena->allocate(step));
  EXPECT_EQ(arena->stats().cached.peak, 64_KiB);  // before the first block was taken of it
  const std::vector<Block> blocks = take(*arena, 9, step - 1);
  EXPECT_EQ(arena->stats().live_requested.peak, 10 * step - 9);
  for (const Block& block : blocks)
    arena->deallocate(block);
  static_cast<void>(take(*arena, 4, step));
  Stats stats = arena->stats();
  EXPECT_EQ(stats.live_blocks.current, 5U);
  EXPECT_EQ(stats.live_blocks.peak, 10U);
  EXPECT_EQ(stats.live_requested.peak, 10 * step - 9);
  EXPECT_EQ(stats.live_granted.peak, 10 * step);
  EXPECT_EQ(stats.cached.current, 64_KiB - 5 * step);
  arena->reset_peaks();
  stats = arena->stats();
  EXPECT_EQ(stats.live_blocks.peak, 5U);
  EXPECT_EQ(stats.live_requested.peak, 5 * step);
  EXPECT_EQ(stats.live_granted.peak, 5 * step);
  EXPECT_EQ(stats.cached.peak, 64_KiB - 5 * step);
  arena->reset();
  stats = arena->stats();
  EXPECT_EQ(stats.live_blocks.current, 0U);
  EXPECT_EQ(stats.live_blocks.peak, 5U);
  EXPECT_EQ(stats.cached.peak, 64_KiB);
  EXPECT_EQ(stats.frees, stats.allocations);
}

TEST_P(ArenaTest, ScopesOfMeasurementNest) {
  const Ref<Arena> arena = make_arena({.chunk = 64_KiB});
  const std::size_t step = granule(*arena);
  Measure outer(*arena);
  static_cast<void>(take(*arena, 8, step));
  arena->reset();
  {
    Measure inner(*arena);
    static_cast<void>(take(*arena, 3, step));
    const Stats stats = inner.stop();
    EXPECT_EQ(stats.allocations, 3U);
    EXPECT_EQ(stats.live_blocks.peak, 3U);
    EXPECT_EQ(stats.live_granted.peak, 3 * step);
  }
  const Stats stats = outer.stop();
  EXPECT_EQ(stats.allocations, 11U);
  EXPECT_EQ(stats.frees, 8U);
  EXPECT_EQ(stats.live_blocks.peak, 8U);
  EXPECT_EQ(stats.live_granted.peak, 8 * step);
  arena->reset();
}

TEST(Arena, NeedsAnUpstream) {
  EXPECT_THROW(make<Arena>(Ref<Resource>()), std::invalid_argument);
}

TEST(Arena, TheLargestRequestThatWouldSucceedIsKnown) {
  const auto device =
      make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB, .granularity = 4_KiB});
  const auto arena = make<Arena>(device, Arena::Options{.chunk = 512_KiB, .warn_bytes = unbounded});
  const auto expect_exact = [&](std::size_t expected) {
    EXPECT_EQ(arena->largest_allocatable(), expected);
    const Expected<Block> more = arena->try_allocate({.bytes = expected + 1});
    EXPECT_FALSE(more.has_value());
    const Expected<Block> block = arena->try_allocate({.bytes = expected});
    ASSERT_TRUE(block.has_value());
    EXPECT_TRUE(arena->deallocate(*block));
  };
  EXPECT_EQ(arena->largest_allocatable(), 1_MiB);
  static_cast<void>(arena->allocate(4_KiB));
  expect_exact(512_KiB);  // beside the chunk
  static_cast<void>(arena->allocate(8_KiB));
  const Block beside = arena->allocate(508_KiB);
  expect_exact(500_KiB);  // in the chunk
  arena->deallocate(beside);
  arena->reset();
  EXPECT_EQ(arena->largest_allocatable(), 1_MiB);  // the chunk is given up for it
  arena->reset();
  arena->reset();  // and is as large as it was at first
  static_cast<void>(arena->allocate(Request{.bytes = 4_KiB, .stream = {.id = 1}}));
  const Block other = arena->allocate(512_KiB);
  EXPECT_EQ(arena->largest_allocatable(), 0U);  // the chunk is another stream's
  arena->deallocate(other);
  arena->reset();
  static_cast<void>(arena->allocate(1_MiB));
  EXPECT_EQ(device->used(), 1_MiB);
  arena->reset();
}

TEST(Arena, AShortageTellsWhatIsLiveAndWhatIsLeft) {
  const auto arena = make<Arena>(make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB}),
                                 Arena::Options{.chunk = 512_KiB});
  static_cast<void>(take(*arena, 3, 64_KiB));
  try {
    static_cast<void>(arena->allocate(600_KiB));
    FAIL() << "there is no room for it";
  } catch (const OutOfMemory& error) {
    const Shortage& shortage = error.shortage();
    EXPECT_EQ(shortage.live_granted, 192_KiB);
    EXPECT_EQ(shortage.holes, 320_KiB);
    EXPECT_EQ(shortage.largest_hole, 320_KiB);
    ASSERT_GE(shortage.size_count, 2U);
  }
  EXPECT_EQ(arena->stats().failures, 1U);
  arena->reset();
}

TEST(Arena, ABlockThatWasPassedOnGrowsWhereTheDeviceCan) {
  const auto device =
      make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB, .extensible = true});
  const auto arena = make<Arena>(device);
  Ledger ledger(*arena);
  ASSERT_TRUE(ledger.allocate({.bytes = 64_KiB}));
  EXPECT_TRUE(ledger.grow(0, 128_KiB));
  ledger.expect_in_order();
  ASSERT_TRUE(ledger.allocate_held({.bytes = 64_KiB}));
  EXPECT_TRUE(ledger.grow(1, 128_KiB));
  ledger.expect_in_order();
  EXPECT_EQ(arena->stats().live_granted.peak, 256_KiB);
  ledger.reset();
  ledger.expect_in_order();
  EXPECT_EQ(arena->stats().cached.current, 128_KiB);
  EXPECT_FALSE(ledger.grow(0, 2_MiB));
  EXPECT_TRUE(ledger.grow(0, 1_MiB));  // the chunk is given up for it
  ledger.expect_in_order();
  EXPECT_EQ(device->used(), 1_MiB);
  ledger.free_all();
  testing::expect_nothing_held(*arena);
}

TEST(Arena, AnIdleChunkIsGivenUpForARequestThatTheDeviceRefuses) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB});
  const auto arena = make<Arena>(device, Arena::Options{.warn_bytes = unbounded});
  Ledger ledger(*arena);
  ASSERT_TRUE(ledger.allocate({.bytes = 768_KiB}));
  ledger.reset();
  EXPECT_EQ(device->used(), 768_KiB);
  ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
  ledger.expect_in_order();
  ledger.reset();
  EXPECT_EQ(device->used(), 1_MiB);
  ASSERT_TRUE(ledger.allocate_held({.bytes = 512_KiB}));
  ledger.expect_in_order();
  EXPECT_EQ(arena->stats().failures, 0U);
  ledger.reset();
  EXPECT_EQ(device->used(), 512_KiB);  // there is no memory for a chunk
  const std::vector<Request> batch = {{.bytes = 4_KiB}, {.bytes = 512_KiB - 4_KiB}};
  ledger.free_all();
  ledger.reset();
  ASSERT_TRUE(ledger.allocate_held({.bytes = 4_KiB}));
  ledger.reset();
  std::vector<Block> blocks(2);
  ASSERT_TRUE(arena->try_allocate_batch(batch, blocks));
  for (std::size_t i = 0; i < 2; ++i)
    ledger.add(batch[i], blocks[i]);
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_all_accounted_for(*arena);
}

TEST(Arena, OnAPoolThatKeepsMemoryATrimReturnsNothingToTheDevice) {
  const auto arena = make<Arena>(make<Arena>(make<SimulatedDevice>()));
  turn(*arena, 1, 64_KiB);
  EXPECT_EQ(arena->trimmable(), 0U);
  EXPECT_EQ(arena->stats().pools, 2U);
  testing::expect_all_accounted_for(*arena);
}

// --- Resets that are forgotten. ---

TEST(ArenaWarning, CyclesOfGrowthWithoutAResetAreReportedOnce) {
  const CaughtReports reports;
  const auto arena =
      make<Arena>(make<SimulatedDevice>(), Arena::Options{.chunk = 1_MiB, .warn_cycles = 5});
  std::vector<Block> blocks;
  const auto grow = [&](int cycles) {
    for (int i = 0; i < cycles; ++i) {
      blocks.push_back(arena->allocate(1000));
      arena->cycle();
    }
  };
  grow(4);
  arena->cycle();  // a cycle that does not grow breaks the row
  grow(4);
  EXPECT_TRUE(reports.all().empty());
  grow(1);
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_THAT(reports.all()[0], HasSubstr("9 blocks of 9216 bytes are live, after 5 cycles"));
  grow(20);
  EXPECT_EQ(reports.all().size(), 1U);
  arena->reset();
  grow(4);
  arena->reset();
  grow(4);
  EXPECT_EQ(reports.all().size(), 1U);
  grow(1);
  EXPECT_EQ(reports.all().size(), 2U);
  arena->reset();
}

TEST(ArenaWarning, SoManyLiveBytesAreReportedOnce) {
  const CaughtReports reports;
  const auto arena = make<Arena>(make<SimulatedDevice>(), Arena::Options{.warn_bytes = 10_KiB});
  static_cast<void>(take(*arena, 10, 1_KiB));
  EXPECT_TRUE(reports.all().empty());
  static_cast<void>(take(*arena, 10, 1_KiB));
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_THAT(reports.all()[0], HasSubstr("11 blocks of 11264 bytes are live"));
  arena->reset();
  static_cast<void>(take(*arena, 20, 1_KiB));  // of the chunk, which is looked at cycle by cycle
  arena->cycle();
  EXPECT_EQ(reports.all().size(), 2U);
  arena->reset();
}

TEST(ArenaWarning, HalfOfTheDevicesMemoryIsTooMuchWhereNothingIsSaid) {
  const CaughtReports reports;
  const auto arena =
      make<Arena>(make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB}));
  static_cast<void>(take(*arena, 8, 64_KiB));
  EXPECT_TRUE(reports.all().empty());
  static_cast<void>(arena->allocate(64_KiB));
  EXPECT_EQ(reports.all().size(), 1U);
  const Ref<Arena> unknown = make<Arena>(make<testing::ObjectDevice>());
  static_cast<void>(unknown->allocate(std::size_t{1} << 39U));
  EXPECT_EQ(reports.all().size(), 1U);
  arena->reset();
  unknown->reset();
}

TEST(ArenaWarning, BuffersAreNotForgotten) {
  const CaughtReports reports;
  const auto arena = make<Arena>(make<SimulatedDevice>(), Arena::Options{.warn_bytes = 10_KiB});
  const Buffer weights(*arena, 1_MiB);
  EXPECT_TRUE(reports.all().empty());
}

// --- Batches. ---

TEST_P(ArenaTest, ABatchIsTakenOfTheChunkAndTheRestIsOneOfTheUpstream) {
  const Ref<Arena> arena = make_arena({.chunk = 8_KiB});
  const std::vector<Request> requests = {{.bytes = 1000}, {.bytes = 100_KiB},
                                         {.bytes = 0},    {.bytes = 500, .alignment = 4096},
                                         {.bytes = 2000}, {.bytes = 10, .stream = {.id = 3}}};
  Ledger ledger(*arena);
  for (int cycle = 0; cycle < 2; ++cycle) {
    std::vector<Block> blocks(requests.size());
    ASSERT_TRUE(arena->try_allocate_batch(requests, blocks));
    for (std::size_t i = 0; i < blocks.size(); ++i)
      ledger.add(requests[i], blocks[i]);
    ledger.expect_in_order();
    EXPECT_EQ(ledger.size(), 5U);
    if (cycle == 0) {
      EXPECT_EQ(arena->stats().misses, 3U);
    }
    ledger.reset();
  }
  ASSERT_TRUE(arena->try_allocate_batch({}, {}));
  EXPECT_EQ(arena->stats().failures, 0U);
  testing::expect_all_accounted_for(*arena);
}

TEST_P(ArenaTest, ABatchThatFailsHalfWayLeavesNothingBehind) {
  const Ref<Arena> arena = make_arena({.chunk = 8_KiB});
  const std::vector<Request> requests = {
      {.bytes = 1000}, {.bytes = 100_KiB}, {.bytes = 2000}, {.bytes = unbounded}, {.bytes = 10}};
  static_cast<void>(arena->allocate(10));
  const Stats before = arena->stats();
  std::vector<Block> blocks(requests.size(), arena->allocate(20));
  arena->deallocate(blocks[0]);
  const Expected<void> done = arena->try_allocate_batch(requests, blocks);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().requested, unbounded);
  for (const Block& block : blocks)
    EXPECT_TRUE(block.empty());
  EXPECT_EQ(arena->stats().live_blocks.current, before.live_blocks.current);
  EXPECT_EQ(arena->stats().live_granted.current, before.live_granted.current);
  EXPECT_EQ(arena->free_bytes(), 8_KiB - granule(*arena));
  EXPECT_EQ(arena->stats().reserved.current, before.reserved.current);
  EXPECT_EQ(arena->stats().failures, 1U);
  EXPECT_EQ(arena->validate(), "");
  EXPECT_THROW(static_cast<void>(arena->allocate_batch(requests)), OutOfMemory);
  EXPECT_EQ(arena->validate(), "");
  arena->reset();
}

}  // namespace
}  // namespace cistern
