// What every coalescing pool does, whatever its policies and its device.
#include "cistern/pool/coalesce.hpp"

#include <limits>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/size.hpp"
#include "support/coalesces.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;

class CoalesceTest : public testing::EveryCoalesce {};
CISTERN_INSTANTIATE_EVERY_COALESCE(CoalesceTest);

TEST_P(CoalesceTest, GivesEverySizeFromOneByteToAGibibyte) {
  const Ref<Coalesce> pool = make_pool();
  Ledger ledger(*pool);
  for (const std::size_t bytes : {1_KiB / 1024, 1_KiB, 1_MiB, 1_GiB}) {
    EXPECT_TRUE(ledger.allocate({.bytes = bytes})) << bytes;
    ledger.expect_in_order();
  }
  ledger.free_all();
  testing::expect_all_accounted_for(*pool);
}

TEST_P(CoalesceTest, ZeroBytesAreTheEmptyBlockAndCountNowhere) {
  const Ref<Coalesce> pool = make_pool();
  const Block block = pool->allocate(0);
  EXPECT_TRUE(block.empty());
  EXPECT_TRUE(pool->deallocate(block));
  EXPECT_TRUE(pool->also_used_on(block, {.id = 1}));
  EXPECT_FALSE(pool->try_grow(block, 10));
  Stats untouched;
  untouched.pools = 1;
  EXPECT_EQ(pool->stats(), untouched);
}

TEST_P(CoalesceTest, SizesBeyondAnyDeviceFailAndLeaveEveryFigureAsItWas) {
  const Ref<Coalesce> pool = make_pool();
  const Block idle = pool->allocate(1_KiB);
  const Block held = pool->allocate(1_KiB);
  pool->deallocate(idle);
  const Stats before = pool->stats();
  for (const std::size_t bytes :
       {std::size_t{1} << 50, std::size_t{1} << 60, unbounded / 2 + 2, unbounded - 1, unbounded}) {
    const Expected<Block> block = pool->try_allocate({.bytes = bytes});
    ASSERT_FALSE(block);
    EXPECT_TRUE(block.error().code == Errc::too_large || block.error().code == Errc::out_of_memory);
    EXPECT_THROW((void)pool->allocate(bytes), OutOfMemory);
  }
  Stats after = pool->stats();
  EXPECT_EQ(after.failures, 10U);
  after.failures = before.failures;
  EXPECT_EQ(after, before);
  for (const std::size_t wrong : {std::size_t{3}, std::size_t{96}, std::size_t{1} << 40}) {
    const Expected<Block> block = pool->try_allocate({.bytes = 20, .alignment = wrong});
    ASSERT_FALSE(block) << wrong;  // however large the holes are
    EXPECT_EQ(block.error().code, Errc::bad_alignment);
  }
  pool->deallocate(held);
  testing::expect_all_accounted_for(*pool);
}

TEST_P(CoalesceTest, FreeingTwiceOrElsewhereIsRefusedAndChangesNoFigure) {
  const testing::CaughtReports reports;
  const Ref<Coalesce> pool = make_pool();
  const Ref<Coalesce> other = make_pool();
  const Block block = pool->allocate(1_KiB);
  const Block foreign = other->allocate(1_KiB);
  EXPECT_FALSE(pool->deallocate(foreign));
  EXPECT_TRUE(pool->deallocate(block));
  const Stats before = pool->stats();
  EXPECT_FALSE(pool->deallocate(block));
  const Block again = pool->allocate(1_KiB);  // the same memory, another life
  EXPECT_FALSE(pool->deallocate(block));
  for (const Block& wrong : {block, foreign}) {
    EXPECT_EQ(pool->also_used_on(wrong, {.id = 7}).error().code, Errc::invalid_block);
    EXPECT_EQ(pool->try_grow(wrong, 1_MiB).error().code, Errc::invalid_block);
  }
  EXPECT_TRUE(pool->deallocate(again));
  const Stats after = pool->stats();
  EXPECT_EQ(after.refused_frees, 3U);
  EXPECT_EQ(reports.all().size(), 3U);
  EXPECT_EQ(after.live_granted, before.live_granted);
  EXPECT_EQ(after.cached, before.cached);
  EXPECT_TRUE(other->deallocate(foreign));
  testing::expect_all_accounted_for(*pool);
  testing::expect_all_accounted_for(*other);
}

TEST_P(CoalesceTest, ABlockMayBeFreedOnAnotherThreadAndStream) {
  const Ref<Coalesce> pool = make_pool();
  const Block block = pool->allocate({.bytes = 100'000, .stream = {.id = 1}});
  std::thread([&] { EXPECT_TRUE(pool->deallocate(block, {.id = 2})); }).join();
  EXPECT_EQ(pool->stats().live_blocks.current, 0U);
  EXPECT_EQ(pool->validate(), "");
  testing::expect_all_accounted_for(*pool);
}

TEST_P(CoalesceTest, AlignmentAskedForIsGiven) {
  const Ref<Coalesce> pool = make_pool();
  Ledger ledger(*pool);
  for (int turn = 0; turn < 2; ++turn) {
    for (std::size_t alignment = 1; alignment <= 1_MiB; alignment *= 2) {
      ASSERT_TRUE(ledger.allocate({.bytes = 20'000, .alignment = alignment})) << alignment;
      ASSERT_TRUE(ledger.allocate({.bytes = 700}));
      ledger.expect_in_order();
    }
    ledger.free_all();
  }
  testing::expect_all_accounted_for(*pool);
}

TEST_P(CoalesceTest, TheSameSequenceRepeatedDoesNotGrowWhatIsReserved) {
  const Ref<Coalesce> pool = make_pool();
  std::size_t reserved = 0;
  std::uint64_t misses = 0;
  for (int turn = 0; turn < 3; ++turn) {
    std::vector<Block> blocks;
    for (std::size_t i = 1; i <= 200; ++i)
      blocks.push_back(pool->allocate(i * 3'777));
    for (const Block& block : blocks)
      pool->deallocate(block);
    EXPECT_EQ(pool->stats().live_granted.current, 0U);
    EXPECT_EQ(pool->validate(), "");
    if (turn == 0) reserved = pool->stats().reserved.peak;
    EXPECT_EQ(pool->stats().reserved.peak, reserved);
    // Where idle regions go back before others are obtained, that shows in calls alone.
    if (turn > 0 && options().idle_ratio == Coalesce::no_ratio) {
      EXPECT_EQ(pool->stats().misses, misses);
    }
    misses = pool->stats().misses;
  }
}

TEST_P(CoalesceTest, AHitAndAFreeUseNoHeap) {
  Coalesce::Options unbound = options();
  unbound.idle_ratio = Coalesce::no_ratio;
  unbound.max_idle = unbounded;
  const Ref<Resource> stack = make<Limit>(make<Coalesce>(make_device(), unbound), 1_GiB);
  std::vector<Block> blocks(50);
  const auto turn = [&] {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const Expected<Block> block = stack->try_allocate({.bytes = (i + 1) * 2'000});
      ASSERT_TRUE(block);
      blocks[i] = *block;
    }
    for (std::size_t i = 0; i < blocks.size(); i += 2)
      stack->deallocate(blocks[i]);
    for (std::size_t i = 1; i < blocks.size(); i += 2)
      stack->deallocate(blocks[i]);
  };
  turn();
  turn();
  const std::uint64_t misses = stack->stats().misses;
  bool has_failed = false;
  {
    const testing::FailingNew failing(1);
    for (int i = 0; i < 20; ++i)
      turn();
    has_failed = testing::FailingNew::has_failed();
  }
  EXPECT_FALSE(has_failed);
  EXPECT_EQ(stack->stats().misses, misses);
}

TEST_P(CoalesceTest, AClosedStackGivesEverythingBackWithItsLastBlock) {
  const testing::CaughtReports reports;
  const Ref<Resource> device = make_device();
  Ref<Coalesce> pool = make<Coalesce>(device, options());
  Coalesce* const closed = pool.get();
  std::vector<Block> blocks;
  for (std::size_t i = 0; i < 40; ++i)
    blocks.push_back(pool->allocate({.bytes = 1'000 + i * 977, .stream = {.id = i % 4}}));
  for (std::size_t i = 0; i < blocks.size(); i += 2)
    pool->deallocate(blocks[i], {.id = i % 3});  // holes of several streams
  pool = {};
  EXPECT_EQ(reports.all().size(), 1U);
  EXPECT_GT(device->stats().reserved.current, 0U);
  for (std::size_t i = 1; i < blocks.size(); i += 2)
    EXPECT_TRUE(closed->deallocate(blocks[i], {.id = i % 3}));
  EXPECT_EQ(device->stats().reserved.current, 0U);
  EXPECT_EQ(device->stats().live_blocks.current, 0U);
}

TEST_P(CoalesceTest, ABlockGrowsIntoTheHoleBehindItAndKeepsItsContents) {
  const Ref<Coalesce> pool = make_pool();
  Ledger ledger(*pool);
  ASSERT_TRUE(ledger.allocate({.bytes = 2'000}));
  ASSERT_TRUE(ledger.allocate({.bytes = 2'000}));
  const std::size_t granted = ledger.blocks()[1].bytes;
  EXPECT_TRUE(ledger.grow(0, granted));  // within what it has
  const bool is_followed = pool->largest_hole() > 0;
  EXPECT_EQ(ledger.grow(1, granted + 1), is_followed);
  ledger.expect_in_order();
  EXPECT_FALSE(ledger.grow(1, unbounded));
  EXPECT_FALSE(ledger.grow(1, 20_GiB));
  ledger.expect_in_order();
  EXPECT_EQ(pool->stats().failures, 0U);
  ledger.free_all();
  testing::expect_all_accounted_for(*pool);
}

TEST_P(CoalesceTest, PoolOnPoolWorksAndCountsEachByteOnce) {
  const Ref<Coalesce> inner = make_pool();
  const Ref<Coalesce> outer = make<Coalesce>(inner, options());
  Ledger ledger(*outer);
  for (std::size_t i = 1; i <= 60; ++i) {
    ASSERT_TRUE(ledger.allocate({.bytes = i * 1'237, .stream = {.id = i % 2}}));
    if (i % 3 == 0) ledger.free(i % ledger.size(), {.id = i % 2});
    ledger.expect_in_order();
  }
  const Stats stats = outer->stats();
  EXPECT_EQ(stats.pools, 2U);
  EXPECT_EQ(stats.hits + stats.misses, stats.allocations);
  ledger.free_all();
  testing::expect_all_accounted_for(*outer);
}

TEST_P(CoalesceTest, CountsHolesByPowersOfTwo) {
  const Ref<Coalesce> pool = make_pool();
  EXPECT_TRUE(pool->buckets().empty());
  Ledger ledger(*pool);
  for (std::size_t i = 1; i <= 50; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = i * 900}));
  for (std::size_t i = 0; i < 20; ++i)
    ledger.free(i);
  std::size_t bytes = 0;
  std::size_t last = 0;
  for (const BucketStats& bucket : pool->buckets()) {
    EXPECT_GT(bucket.capacity, last);
    last = bucket.capacity;
    EXPECT_GE(bucket.cached_bytes, bucket.capacity * bucket.cached_blocks);
    EXPECT_LT(bucket.cached_bytes, 2 * bucket.capacity * bucket.cached_blocks);
    bytes += bucket.cached_bytes;
  }
  EXPECT_EQ(bytes, pool->hole_bytes());
  EXPECT_LE(pool->largest_hole(), bytes);
  EXPECT_LE(last, pool->largest_hole());
  ledger.free_all();
}

TEST_P(CoalesceTest, ExplainsItsHoles) {
  const Ref<Coalesce> pool = make_pool();
  Ledger ledger(*pool);
  for (std::size_t i = 1; i <= 20; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = i * 900}));
  for (std::size_t i = 0; i < 5; ++i)
    ledger.free(i);
  const Request request{.bytes = 1_GiB * 1024};
  const Expected<Block> block = pool->try_allocate(request);
  ASSERT_FALSE(block);
  const Shortage shortage = explain_failure(*pool, request, block.error());
  EXPECT_EQ(shortage.holes, pool->hole_bytes());
  EXPECT_EQ(shortage.largest_hole, pool->largest_hole());
  EXPECT_GT(shortage.size_count, 0U);
  ledger.free_all();
}

TEST_P(CoalesceTest, PeaksAreResetToWhatIsThere) {
  const Ref<Coalesce> pool = make_pool();
  const Block kept = pool->allocate(1'000);
  pool->deallocate(pool->allocate(500'000));
  pool->trim();
  EXPECT_GE(pool->stats().live_granted.peak, 500'000U);
  pool->reset_peaks();
  const Stats stats = pool->stats();
  EXPECT_EQ(stats.live_granted.peak, stats.live_granted.current);
  EXPECT_EQ(stats.live_requested.peak, 1'000U);
  EXPECT_EQ(stats.live_blocks.peak, 1U);
  EXPECT_EQ(stats.cached.peak, stats.cached.current);
  EXPECT_EQ(stats.reserved.peak, stats.reserved.current);
  pool->deallocate(kept);
}

TEST_P(CoalesceTest, ABoundOfZeroKeepsNoIdleRegion) {
  Coalesce::Options bounded = options();
  bounded.max_idle = 0;
  const Ref<Coalesce> pool = make<Coalesce>(make_device(), bounded);
  for (int i = 0; i < 3; ++i)
    pool->deallocate(pool->allocate(100'000));
  EXPECT_EQ(pool->stats().cached.current, 0U);
  EXPECT_EQ(pool->stats().reserved.current, 0U);
  EXPECT_EQ(pool->stats().device_frees, 3U);
}

TEST(CoalesceOptions, NonsenseIsRefused) {
  const auto pool = [](Coalesce::Options options) {
    return make<Coalesce>(make<HostDevice>(), options);
  };
  EXPECT_THROW(pool({.classes = {{.up_to = 100}}}), std::invalid_argument);
  EXPECT_THROW(pool({.classes = {{.up_to = 200}, {.up_to = 100}, {}}}), std::invalid_argument);
  EXPECT_THROW(pool({.classes = {{.up_to = 100}, {.up_to = 100}, {}}}), std::invalid_argument);
  EXPECT_THROW(pool({.classes = {{}, {}}}), std::invalid_argument);
  EXPECT_THROW(pool({.granule = 3}), std::invalid_argument);
  EXPECT_THROW(pool({.region_step = 1000}), std::invalid_argument);
  EXPECT_THROW(pool({.rest_ratio = -1}), std::invalid_argument);
  EXPECT_THROW(pool({.idle_ratio = -0.1}), std::invalid_argument);
  EXPECT_THROW(pool({.idle_ratio = std::numeric_limits<double>::quiet_NaN()}),
               std::invalid_argument);
  EXPECT_THROW(make<Coalesce>(Ref<Resource>()), std::invalid_argument);
}

TEST(CoalesceOptions, SettingABoundReturnsTheFormerOne) {
  const auto pool = make<Coalesce>(make<HostDevice>(), Coalesce::Options{.max_idle = 1_MiB});
  EXPECT_EQ(pool->set_max_idle(2_MiB), 1_MiB);
  EXPECT_EQ(pool->set_max_idle(unbounded), 2_MiB);
  EXPECT_EQ(pool->set_idle_ratio(0.5), Coalesce::Options{}.idle_ratio);
  EXPECT_EQ(pool->set_idle_ratio(-1), 0.5);
  EXPECT_EQ(pool->set_idle_ratio(std::numeric_limits<double>::quiet_NaN()), 0);
  EXPECT_EQ(pool->set_idle_ratio(1), 0);
}

}  // namespace
}  // namespace cistern
