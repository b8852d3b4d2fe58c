#include "cistern/adaptor/deferred.hpp"

#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/cannot.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::cannot;
using testing::Ledger;

Ref<Resource> cannot_either() {
  throw std::runtime_error("no memory for it");
}

Ref<Resource> cache() {
  return make<Cache>(make<SimulatedDevice>());
}

/// Figures of which all but one are zero.
Stats only(std::uint64_t Stats::*counter, std::uint64_t value) {
  Stats stats;
  stats.*counter = value;
  return stats;
}

TEST(Deferred, MakesItsStackAtTheFirstRequest) {
  const testing::CaughtReports reports;
  int made = 0;
  const auto deferred = make<Deferred>(
      [&] {
        ++made;
        return cache();
      },
      cannot);
  EXPECT_EQ(deferred->stats(), Stats{});
  EXPECT_EQ(deferred->trim(), 0U);
  EXPECT_EQ(deferred->outstanding().blocks, 0U);
  EXPECT_TRUE(deferred->buckets().empty());
  EXPECT_EQ(deferred->validate(), "");
  deferred->cycle();
  deferred->reset_peaks();
  EXPECT_TRUE(deferred->allocate(std::size_t{0}).empty());
  EXPECT_TRUE(deferred->deallocate(Block{}));
  EXPECT_EQ(made, 0) << "none of this needs it";

  Ledger ledger(*deferred);  // asks for the device
  EXPECT_EQ(made, 1);
  for (int i = 0; i < 10; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = 64_KiB}));
  ledger.expect_in_order();
  ledger.free_all();
  EXPECT_EQ(deferred->stats(), deferred->stack()->stats());
  EXPECT_GT(deferred->stats().cached.current, 0U);
  EXPECT_FALSE(deferred->buckets().empty());
  testing::expect_all_accounted_for(*deferred);
  EXPECT_EQ(made, 1);
  EXPECT_TRUE(reports.all().empty());
}

TEST(Deferred, WhatAPoolOnTopNeedsIsMadeWithIt) {
  bool made = false;
  const auto deferred = make<Deferred>(
      [&] {
        made = true;
        return cache();
      },
      cannot);
  EXPECT_FALSE(made);
  const auto limit = make<Limit>(deferred, 1_MiB);
  EXPECT_FALSE(made) << "a limit needs no device";
  const auto pool = make<Cache>(limit);
  EXPECT_TRUE(made);
  const Block block = pool->allocate(1000);
  pool->deallocate(block);
  testing::expect_all_accounted_for(*pool);
}

TEST(Deferred, AFailedSetUpFallsBackWithOneReport) {
  const testing::CaughtReports reports;
  const auto deferred = make<Deferred>(cannot, cache);
  Ledger ledger(*deferred);
  ASSERT_TRUE(ledger.allocate({.bytes = 64_KiB}));
  ASSERT_TRUE(ledger.allocate({.bytes = 64_KiB}));
  ledger.expect_in_order();
  ledger.free_all();
  EXPECT_EQ(deferred->stats().failures, 0U);
  testing::expect_all_accounted_for(*deferred);
  EXPECT_EQ(reports.all(),
            std::vector<std::string>{"a deferred stack could not be set up, and another takes its "
                                     "place: no driver"});
}

TEST(Deferred, WhereNeitherCanBeMadeRequestsFailAndTheNextTriesAgain) {
  const testing::CaughtReports reports;
  bool is_there = false;
  int tries = 0;
  const auto deferred = make<Deferred>(
      [&] {
        ++tries;
        return is_there ? cache() : cannot();
      },
      cannot_either);
  for (int i = 0; i < 3; ++i) {
    const Expected<Block> block = deferred->try_allocate({.bytes = 1000});
    ASSERT_FALSE(block);
    EXPECT_EQ(describe(block.error()), "deferred refused 1000 bytes: the device failed");
  }
  EXPECT_EQ(tries, 3);
  EXPECT_EQ(deferred->stats(), only(&Stats::failures, 3));
  EXPECT_EQ(deferred->largest_allocatable(), 0U);
  EXPECT_STREQ(deferred->device().limits().kind, "deferred");
  EXPECT_FALSE(deferred->device().try_allocate({.bytes = 1}));
  EXPECT_THROW((void)deferred->allocate(1000), OutOfMemory);
  EXPECT_EQ(reports.all(), std::vector<std::string>{
                               "a deferred stack could not be set up (no driver), nor could the "
                               "other (no memory for it)"});
  is_there = true;
  Ledger ledger(*deferred);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  EXPECT_EQ(deferred->stats().failures, 4U);
  EXPECT_EQ(deferred->largest_allocatable(), deferred->stack()->largest_allocatable());
  ledger.free_all();
  testing::expect_all_accounted_for(*deferred);
  EXPECT_EQ(reports.all().size(), 1U);
}

TEST(Deferred, WhateverIsThrownOrNotReturnedIsAFailure) {
  for (const Deferred::SetUp& strange :
       {Deferred::SetUp([]() -> Ref<Resource> { throw 1; }),
        Deferred::SetUp([] { return Ref<Resource>(); }),
        Deferred::SetUp([]() -> Ref<Resource> { throw std::bad_alloc(); })}) {
    const testing::CaughtReports reports;
    const auto deferred = make<Deferred>(strange, cache);
    EXPECT_TRUE(deferred->deallocate(deferred->allocate(1000)));
    EXPECT_EQ(reports.all().size(), 1U);
  }
  EXPECT_THROW((void)make<Deferred>(Deferred::SetUp(), cache), std::invalid_argument);
  EXPECT_THROW((void)make<Deferred>(cache, Deferred::SetUp()), std::invalid_argument);
}

TEST(Deferred, AStackThatAsksForItselfWhileItIsMadeIsRefused) {
  Resource* self = nullptr;
  const auto deferred = make<Deferred>(
      [&] {
        EXPECT_FALSE(self->try_allocate({.bytes = 1}));
        return cache();
      },
      cannot);
  self = deferred.get();
  EXPECT_TRUE(deferred->deallocate(deferred->allocate(1000)));
}

TEST(Deferred, LetsGoOfWhatItDidNotNeed) {
  const auto held = make<SimulatedDevice>();
  const auto owner = std::make_shared<int>();
  const auto deferred = make<Deferred>(cache, [owner] { return cache(); });
  EXPECT_EQ(owner.use_count(), 2);
  deferred->deallocate(deferred->allocate(1000));
  EXPECT_EQ(owner.use_count(), 1);
}

TEST(Deferred, BlocksAndFreesAreThoseOfItsStack) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.extensible = true});
  const auto deferred = make<Deferred>([&]() -> Ref<Resource> { return device; }, cannot);
  const Block foreign = device->allocate(1000);
  EXPECT_FALSE(deferred->deallocate(foreign)) << "it has handed out nothing";
  EXPECT_FALSE(deferred->also_used_on(foreign, {.id = 1}));
  EXPECT_FALSE(deferred->try_grow(foreign, 2000));
  EXPECT_EQ(deferred->stats(), only(&Stats::refused_frees, 1));
  device->deallocate(foreign);

  const Block block = deferred->allocate(1000);
  EXPECT_TRUE(deferred->also_used_on(block, {.id = 1}));
  const Expected<Block> grown = deferred->try_grow(block, 4_KiB);
  ASSERT_TRUE(grown);
  EXPECT_TRUE(deferred->deallocate(*grown));
  EXPECT_FALSE(deferred->deallocate(*grown));
  EXPECT_EQ(deferred->stats().refused_frees, 2U);
}

TEST(Deferred, StaysForItsLastBlockAndReportsOnce) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  Ref<Resource> deferred =
      make<Deferred>([&]() -> Ref<Resource> { return make<Cache>(device); }, cannot);
  Resource& resource = *deferred;
  const Block one = resource.allocate(1_MiB);
  const Block two = resource.allocate(1_MiB);
  deferred = {};
  EXPECT_EQ(reports.all().size(), 1U);
  EXPECT_TRUE(resource.deallocate(one));
  EXPECT_TRUE(resource.deallocate(two));
  EXPECT_EQ(device->used(), 0U);
  EXPECT_EQ(reports.all().size(), 1U);
}

}  // namespace
}  // namespace cistern
