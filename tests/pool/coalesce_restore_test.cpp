// Bringing a pool into a recorded state, and giving its regions back as the record says.
#include <new>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/coalesce.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"

namespace cistern {
namespace {

using namespace literals;

constexpr std::uintptr_t first_start = 1_GiB;
constexpr std::uintptr_t second_start = 2_GiB;

class CoalesceRestore : public ::testing::Test {
 public:
  void follow(std::vector<SimulatedDevice::Placement> placements) const {
    device->follow(placements);
  }

  void expect_refused(const std::vector<RecordedRegion>& recorded,
                      const std::vector<RecordedBlock>& blocks, Errc code) const {
    const auto restored = pool->restore(recorded, blocks);
    ASSERT_FALSE(restored);
    EXPECT_EQ(restored.error().code, code);
    EXPECT_EQ(pool->stats().reserved.current, 0U);
    EXPECT_EQ(pool->stats().live_blocks.current, 0U);
    EXPECT_EQ(pool->validate(), "");
    EXPECT_EQ(device->used(), 0U);
  }

  Ref<SimulatedDevice> device = make<SimulatedDevice>();
  Ref<Coalesce> pool = make<Coalesce>(device, Coalesce::Options{.classes = {{.up_to = 1_MiB}, {}},
                                                                .granule = 512,
                                                                .streams = StreamSharing::separate,
                                                                .idle_ratio = Coalesce::no_ratio});
  const std::vector<RecordedRegion> regions{
      {.address = first_start, .bytes = 2_MiB, .stream = {.id = 3}, .small = true},
      {.address = second_start, .bytes = 20_MiB, .stream = {.id = 4}}};
};

TEST_F(CoalesceRestore, BlocksStandWhereTheyWereAndTheRestIsIdle) {
  follow({{first_start, 2_MiB}, {second_start, 20_MiB}});
  const std::vector<RecordedBlock> blocks{
      {.address = first_start + 512, .granted = 1024, .requested = 1000, .stream = {.id = 3}},
      {.address = first_start + 2_MiB - 512, .granted = 512, .requested = 1, .stream = {.id = 3}},
      {.address = second_start, .granted = 20_MiB, .requested = 20_MiB, .stream = {.id = 4}}};
  const auto restored = pool->restore(regions, blocks);
  ASSERT_TRUE(restored);
  ASSERT_EQ(restored->size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>((*restored)[i].memory), blocks[i].address);
    EXPECT_EQ((*restored)[i].bytes, blocks[i].granted);
    EXPECT_EQ((*restored)[i].requested, blocks[i].requested);
  }
  EXPECT_EQ(pool->validate(), "");
  EXPECT_EQ(pool->stats().reserved.current, 22_MiB);
  EXPECT_EQ(pool->stats().live_requested.current, 20_MiB + 1001);
  EXPECT_EQ(pool->hole_bytes(), 2_MiB - 1536);
  const Block next = pool->allocate({.bytes = 512, .stream = {.id = 3}});
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(next.memory), first_start);
  EXPECT_EQ(pool->stats().device_allocations, 2U);
  const auto again = pool->restore(regions, blocks);
  ASSERT_FALSE(again);  // it is not empty
  EXPECT_EQ(again.error().code, Errc::invalid_block);
  EXPECT_EQ(pool->stats().live_blocks.current, 4U);
  pool->deallocate(next, {.id = 3});
  for (const Block& block : *restored)
    EXPECT_TRUE(pool->deallocate(block));
  testing::expect_all_accounted_for(*pool);
}

TEST_F(CoalesceRestore, NothingMayBeRestored) {
  EXPECT_TRUE(pool->restore({}, {}));
  EXPECT_EQ(pool->stats().reserved.current, 0U);
}

TEST_F(CoalesceRestore, StatesThatCouldNotBeLeaveThePoolEmpty) {
  const auto with = [&](std::vector<RecordedBlock> blocks) {
    device = make<SimulatedDevice>();
    pool = make<Coalesce>(device, Coalesce::Options{.granule = 512});
    follow({{first_start, 2_MiB}, {second_start, 20_MiB}});
    expect_refused(regions, blocks, Errc::invalid_block);
  };
  const RecordedBlock good{.address = first_start, .granted = 512, .requested = 100};
  with({good, good});                                                              // the same twice
  with({good, {.address = first_start + 256, .granted = 512, .requested = 1}});    // overlaps
  with({{.address = first_start - 512, .granted = 512, .requested = 1}});          // in no region
  with({good, {.address = first_start + 2_MiB, .granted = 512, .requested = 1}});  // behind one
  with({good, {.address = second_start, .granted = 20_MiB + 512, .requested = 1}});
  with({{.address = first_start, .granted = 512, .requested = 513}});
  with({{.address = first_start, .granted = 512, .requested = 0}});
  with({{.address = first_start + 64, .granted = 512, .requested = 1}});  // not aligned
  with({{.address = first_start, .granted = 500, .requested = 500}});  // no multiple of the granule
  with({{.address = first_start, .granted = 0, .requested = 0}});
  with({{.address = first_start, .granted = unbounded - 511, .requested = 1}});
}

TEST_F(CoalesceRestore, IdleRegionsBeyondTheBoundGoBack) {
  follow({{first_start, 2_MiB}, {second_start, 20_MiB}});
  pool->set_max_idle(0);
  const auto restored = pool->restore(
      regions,
      std::vector<RecordedBlock>{{.address = first_start, .granted = 512, .requested = 512}});
  ASSERT_TRUE(restored);
  EXPECT_EQ(pool->validate(), "");
  EXPECT_EQ(device->used(), 2_MiB);
  pool->deallocate(restored->front());
  EXPECT_EQ(device->used(), 0U);
}

TEST_F(CoalesceRestore, ARegionThatIsPutElsewhereIsRefused) {
  expect_refused(regions, {}, Errc::invalid_block);
  expect_refused({{.address = 0, .bytes = 0}}, {}, Errc::invalid_block);
}

TEST_F(CoalesceRestore, ASecondRegionThatIsPutElsewhereLeavesNothing) {
  follow({{first_start, 2_MiB}});
  expect_refused(regions, {{.address = first_start, .granted = 512, .requested = 512}},
                 Errc::invalid_block);
}

TEST_F(CoalesceRestore, WhatTheUpstreamRefusesIsItsOwnError) {
  follow({{first_start, 2_MiB}, {second_start, 20_MiB}});
  device->fail_next(2);
  expect_refused(regions, {}, Errc::out_of_memory);
  expect_refused({{.address = first_start, .bytes = 17_GiB}}, {}, Errc::too_large);
}

TEST_F(CoalesceRestore, WithoutMemoryForRecordsThePoolStaysEmpty) {
  const std::vector<RecordedBlock> blocks{
      {.address = first_start + 512, .granted = 1024, .requested = 1000}};
  for (int n = 1; n < 20; ++n) {
    device = make<SimulatedDevice>();
    pool = make<Coalesce>(device, Coalesce::Options{.granule = 512});
    follow({{first_start, 2_MiB}, {second_start, 20_MiB}});
    std::vector<Block> restored;
    {
      const testing::FailingNew failing(n);
      try {
        if (auto granted = pool->restore(regions, blocks)) restored = std::move(*granted);
      } catch (const std::bad_alloc&) {
        restored.clear();
      }
    }
    EXPECT_EQ(pool->validate(), "");
    EXPECT_EQ(device->used(), restored.empty() ? 0U : 22_MiB) << n;
    if (restored.empty()) continue;
    pool->deallocate(restored.front());
    return;
  }
  FAIL() << "more uses of the heap than expected";
}

TEST_F(CoalesceRestore, OnlyAnIdleRegionIsGivenBackByItsAddress) {
  follow({{first_start, 2_MiB}, {second_start, 20_MiB}});
  const auto restored = pool->restore(
      regions,
      std::vector<RecordedBlock>{{.address = first_start, .granted = 512, .requested = 512}});
  ASSERT_TRUE(restored);
  EXPECT_FALSE(pool->give_back(first_start));  // something is live in it
  EXPECT_FALSE(pool->give_back(second_start + 512));
  EXPECT_EQ(device->used(), 22_MiB);
  EXPECT_TRUE(pool->give_back(second_start));
  EXPECT_EQ(device->used(), 2_MiB);
  EXPECT_EQ(pool->validate(), "");
  EXPECT_FALSE(pool->give_back(second_start));
  pool->deallocate(restored->front());
  EXPECT_TRUE(pool->give_back(first_start));
  testing::expect_all_accounted_for(*pool);
}

}  // namespace
}  // namespace cistern
