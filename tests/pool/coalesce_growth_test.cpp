// What a coalescing pool asks of its upstream, in what sizes, and when it gives regions back.
#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/coalesce.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"
#include "support/spy.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;
using testing::Spy;
using Sizes = std::vector<std::size_t>;

class CoalesceGrowth : public ::testing::Test {
 public:
  void open(const Coalesce::Options& options, const SimulatedDevice::Options& device = {}) {
    spy = make<Spy>(make<SimulatedDevice>(device));
    pool = make<Coalesce>(spy, options);
  }
  /// What was asked of the upstream since this was last called.
  Sizes asked() const {
    Sizes sizes;
    for (const Request& request : spy->requests)
      sizes.push_back(request.bytes);
    spy->requests.clear();
    return sizes;
  }
  std::size_t given_back() const {
    std::size_t bytes = 0;
    for (const Spy::Use& use : spy->freed)
      bytes += use.block.bytes;
    spy->freed.clear();
    return bytes;
  }
  void refuse_beyond(std::size_t bytes) const {
    spy->before_request = [bytes](const Request& request) {
      return request.bytes > bytes ? std::optional(Errc::out_of_memory) : std::nullopt;
    };
  }

  /// Until the end of the test.
  void hold(const Block& block) { held_.push_back(block); }
  void TearDown() override {
    for (const Block& block : held_)
      pool->deallocate(block);
  }

  Ref<Spy> spy;
  Ref<Coalesce> pool;

 private:
  std::vector<Block> held_;
};

Coalesce::Options one_exact_class() {
  return {.classes = {{}}, .growth = Growth::exact, .idle_ratio = Coalesce::no_ratio};
}

TEST_F(CoalesceGrowth, EachClassHasRegionsOfItsOwn) {
  open({.idle_ratio = Coalesce::no_ratio});
  const Block small = pool->allocate(100);
  EXPECT_EQ(asked(), Sizes{2_MiB});
  const Block middle = pool->allocate(1_MiB);
  EXPECT_EQ(asked(), Sizes{32_MiB});
  const Block large = pool->allocate(20_MiB);  // fits beside it
  EXPECT_EQ(asked(), Sizes{});
  const Block second = pool->allocate(20_MiB);
  EXPECT_EQ(asked(), Sizes{20_MiB});  // is not small beside a region
  const Block huge = pool->allocate(65_MiB);
  EXPECT_EQ(asked(), Sizes{65_MiB});
  const Block odd = pool->allocate(64_MiB + 1);
  EXPECT_EQ(asked(), Sizes{64_MiB + 512});  // the device's granularity
  const Block at_bound = pool->allocate(256_KiB);
  const Block above_bound = pool->allocate(256_KiB + 1);
  EXPECT_EQ(asked(), Sizes{});
  EXPECT_LT(reinterpret_cast<std::uintptr_t>(at_bound.memory),
            reinterpret_cast<std::uintptr_t>(small.memory) + 2_MiB);
  EXPECT_GE(reinterpret_cast<std::uintptr_t>(above_bound.memory),
            reinterpret_cast<std::uintptr_t>(middle.memory));
  for (const Block& block : {small, middle, large, second, huge, odd, at_bound, above_bound})
    pool->deallocate(block);
  testing::expect_all_accounted_for(*pool);
}

TEST_F(CoalesceGrowth, ARegionIsAsLargeAsTheRequestFromRegionForOn) {
  open({.classes = {{.region = 64_KiB, .region_for = 32_KiB}},
        .growth = Growth::exact,
        .idle_ratio = Coalesce::no_ratio});
  hold(pool->allocate(32_KiB - 512));
  EXPECT_EQ(asked(), Sizes{64_KiB});
  hold(pool->allocate(33_KiB));
  EXPECT_EQ(asked(), Sizes{33_KiB});
  hold(pool->allocate(32_KiB));
  EXPECT_EQ(asked(), Sizes{});
  hold(pool->allocate(32_KiB));
  EXPECT_EQ(asked(), Sizes{32_KiB});
}

TEST_F(CoalesceGrowth, AFittedRegionHoldsAWholeNumberOfTheRequests) {
  open({.classes = {{.region = 64_KiB, .region_for = 32_KiB}}, .idle_ratio = Coalesce::no_ratio});
  hold(pool->allocate(10_KiB));
  EXPECT_EQ(asked(), Sizes{60_KiB});
  for (int i = 0; i < 5; ++i)
    hold(pool->allocate(10_KiB));
  EXPECT_EQ(asked(), Sizes{});
  EXPECT_EQ(pool->hole_bytes(), 0U);
  hold(pool->allocate(31_KiB));
  EXPECT_EQ(asked(), Sizes{62_KiB});
  hold(pool->allocate(33_KiB));
  EXPECT_EQ(asked(), Sizes{33_KiB});
}

TEST_F(CoalesceGrowth, SizesAreRoundedToTheGranuleAndRegionsToTheirStep) {
  Coalesce::Options options = one_exact_class();
  options.granule = 4_KiB;
  options.region_step = 64_KiB;
  open(options);
  const Block a = pool->allocate(1);
  EXPECT_EQ(a.bytes, 4_KiB);
  EXPECT_EQ(asked(), Sizes{64_KiB});
  const Block b = pool->allocate(60_KiB);
  EXPECT_EQ(asked(), Sizes{});
  pool->deallocate(a);
  pool->deallocate(b);
}

TEST_F(CoalesceGrowth, ByAFixedStepARegionIsAMultiple) {
  Coalesce::Options options = one_exact_class();
  options.classes = {{.region = 64_KiB}};
  options.growth = Growth::fixed;
  open(options);
  hold(pool->allocate(1));
  hold(pool->allocate(64_KiB));
  hold(pool->allocate(64_KiB + 1));
  EXPECT_EQ(asked(), (Sizes{64_KiB, 64_KiB, 128_KiB}));
}

TEST_F(CoalesceGrowth, DoublingAsksForAsMuchAsThereIs) {
  Coalesce::Options options = one_exact_class();
  options.growth = Growth::doubling;
  open(options);
  for (const std::size_t bytes : {1_KiB, 1_KiB, 1_KiB, 8_KiB, 1_KiB, 14_KiB})
    hold(pool->allocate(bytes));
  EXPECT_EQ(asked(), (Sizes{1_KiB, 1_KiB, 2_KiB, 8_KiB, 14_KiB}));
}

TEST_F(CoalesceGrowth, DoublingStopsAtWhatTheDeviceHas) {
  Coalesce::Options options = one_exact_class();
  options.growth = Growth::doubling;
  open(options, {.capacity = 10_KiB});
  hold(pool->allocate(6_KiB));
  hold(pool->allocate(2_KiB));
  EXPECT_EQ(asked(), (Sizes{6_KiB, 6_KiB, 3_KiB}));
}

TEST_F(CoalesceGrowth, StepsDownByHalvesToWhatIsNeeded) {
  open({.classes = {{.region = 1_MiB, .region_for = 1_MiB}},
        .growth = Growth::exact,
        .idle_ratio = Coalesce::no_ratio});
  refuse_beyond(100_KiB);
  hold(pool->allocate(70_KiB));
  EXPECT_EQ(asked(), (Sizes{1_MiB, 512_KiB, 256_KiB, 128_KiB, 70_KiB}));
  refuse_beyond(0);
  EXPECT_FALSE(pool->try_allocate({.bytes = 70_KiB}));
  EXPECT_EQ(asked(), (Sizes{1_MiB, 512_KiB, 256_KiB, 128_KiB, 70_KiB}));
}

TEST_F(CoalesceGrowth, AnotherKindOfFailureIsNotSteppedDown) {
  open({.growth = Growth::exact});
  pool->deallocate(pool->allocate(100));
  asked();
  spy->before_request = [](const Request&) { return std::optional(Errc::device_failed); };
  const Expected<Block> block = pool->try_allocate({.bytes = 3_MiB});
  ASSERT_FALSE(block);
  EXPECT_EQ(block.error().code, Errc::device_failed);
  EXPECT_EQ(asked(), Sizes{32_MiB});
}

// The example that every pool which doubles must get right.
TEST(CoalesceUnderALimit, GrowthFallsBackToWhatStillFits) {
  const Ref<Resource> device =
      make<SimulatedDevice>(SimulatedDevice::Options{.granularity = 1, .alignment = 1});
  const auto pool = make<Coalesce>(make<Limit>(device, std::size_t{6000}),
                                   Coalesce::Options{.classes = {{}}, .growth = Growth::doubling});
  Ledger ledger(*pool);
  EXPECT_TRUE(ledger.allocate({.bytes = 1000}));
  EXPECT_TRUE(ledger.allocate({.bytes = 4000}));
  EXPECT_TRUE(ledger.allocate({.bytes = 500}));
  EXPECT_FALSE(ledger.allocate({.bytes = 2000}));
  ledger.expect_in_order();
  EXPECT_LE(device->stats().reserved.peak, 6000U);
  ledger.free_all();
  EXPECT_TRUE(ledger.allocate({.bytes = 6000}));  // all of it, once the rest is idle
  ledger.free_all();
  testing::expect_all_accounted_for(*pool);
}

TEST_F(CoalesceGrowth, BorrowsFromAnotherClassWhatTheUpstreamRefuses) {
  open({.idle_ratio = Coalesce::no_ratio});
  const Block middle = pool->allocate(1_MiB);  // of 32 MiB
  asked();
  refuse_beyond(0);
  const Block small = pool->allocate(100);
  EXPECT_EQ(small.memory, static_cast<std::byte*>(middle.memory) + 1_MiB);
  EXPECT_EQ(pool->stats().failures, 0U);
  EXPECT_EQ(asked().back(), 512U);
  EXPECT_EQ(pool->validate(), "");
  pool->deallocate(small);
  pool->deallocate(middle);
  testing::expect_all_accounted_for(*pool);
}

TEST_F(CoalesceGrowth, ThatDoesNotBorrowLeavesOtherClassesAlone) {
  open({.borrow = false, .idle_ratio = Coalesce::no_ratio});
  const Block middle = pool->allocate(1_MiB);
  refuse_beyond(0);
  EXPECT_FALSE(pool->try_allocate({.bytes = 100}));
  pool->deallocate(middle);
}

TEST_F(CoalesceGrowth, GivesBackNoMoreThanTheRequestNeedsBeforeItFails) {
  open(one_exact_class(), {.capacity = 10_MiB});
  std::vector<Block> blocks;
  for (int i = 0; i < 10; ++i)
    blocks.push_back(pool->allocate(1_MiB));
  for (const Block& block : blocks)
    pool->deallocate(block);
  const Block large = pool->allocate(4_MiB);
  EXPECT_EQ(given_back(), 4_MiB);
  EXPECT_EQ(spy->stats().reserved.current, 10_MiB);
  const Block rest = pool->allocate(1_MiB);
  EXPECT_EQ(rest.memory, blocks[4].memory);  // those idle for longest went
  pool->deallocate(large);
  pool->deallocate(rest);
}

TEST_F(CoalesceGrowth, GivesBackAllOfItBeforeItFails) {
  open(one_exact_class());
  std::vector<Block> blocks;
  for (int i = 0; i < 10; ++i)
    blocks.push_back(pool->allocate(1_MiB));
  for (const Block& block : blocks)
    pool->deallocate(block);
  asked();
  spy->before_request = [&](const Request&) {
    return pool->stats().cached.current > 0 ? std::optional(Errc::out_of_memory) : std::nullopt;
  };
  const Expected<Block> block = pool->try_allocate({.bytes = 5_MiB});
  ASSERT_TRUE(block);
  EXPECT_EQ(asked(), (Sizes{5_MiB, 5_MiB, 5_MiB}));  // at once, after 5 MiB went, after all did
  pool->deallocate(*block);
}

TEST_F(CoalesceGrowth, IdleRegionsGoBackBeforeItGrowsBeyondItsWork) {
  open({.classes = {{}}, .idle_ratio = 0});
  const Block a = pool->allocate(4_MiB);
  const Block b = pool->allocate(2_MiB);
  pool->deallocate(a);
  const Block c = pool->allocate(5_MiB);  // live and idle were 6 MiB, and 7 are live now
  EXPECT_EQ(given_back(), 4_MiB);
  EXPECT_EQ(spy->stats().reserved.current, 7_MiB);
  pool->deallocate(b);
  const Block d = pool->allocate(1_MiB);  // a part of b's
  EXPECT_EQ(given_back(), 0U);
  pool->deallocate(c);
  pool->deallocate(d);
}

TEST_F(CoalesceGrowth, TheIdleRatioAllowsForSoMuchMore) {
  open({.classes = {{}}, .idle_ratio = 1});
  pool->deallocate(pool->allocate(4_MiB));
  const Block b = pool->allocate(5_MiB);  // 9 MiB are less than twice 5
  EXPECT_EQ(given_back(), 0U);
  pool->deallocate(b);
  const Block c = pool->allocate(6_MiB);  // 15 MiB are more than twice 6: by 3
  EXPECT_EQ(given_back(), 4_MiB);
  pool->deallocate(c);
}

TEST_F(CoalesceGrowth, TrimLowersWhatTheIdleRatioIsMeasuredBy) {
  open({.classes = {{}}, .idle_ratio = 0});
  pool->deallocate(pool->allocate(8_MiB));
  pool->trim();
  const Block a = pool->allocate(1_MiB);
  pool->deallocate(a);
  given_back();
  const Block b = pool->allocate(2_MiB);
  EXPECT_EQ(given_back(), 1_MiB);
  pool->deallocate(b);
}

TEST_F(CoalesceGrowth, TrimKeepsWhatItIsToldInWholeRegions) {
  open(one_exact_class());
  std::vector<Block> blocks;
  for (int i = 0; i < 8; ++i)
    blocks.push_back(pool->allocate(1_MiB));
  for (const Block& block : blocks)
    pool->deallocate(block);
  EXPECT_EQ(pool->stats().cached.current, 8_MiB);
  EXPECT_EQ(pool->trim(16_MiB), 0U);
  EXPECT_EQ(pool->trim(5_MiB + 1), 3_MiB);
  EXPECT_EQ(pool->stats().cached.current, 5_MiB);
  EXPECT_EQ(pool->trimmable(), 5_MiB);
  const Block part = pool->allocate(100);
  EXPECT_EQ(pool->stats().cached.current, 4_MiB);  // a region in use is not idle
  EXPECT_EQ(pool->trim(), 4_MiB);
  EXPECT_EQ(pool->trim(), 0U);
  EXPECT_EQ(pool->trimmable(), 0U);
  pool->deallocate(part);
  EXPECT_EQ(pool->trim(), 1_MiB);
}

TEST_F(CoalesceGrowth, MaxIdleIsFullyUsedAndNeverExceeded) {
  Coalesce::Options options = one_exact_class();
  options.max_idle = 4_MiB;
  open(options);
  std::vector<Block> blocks;
  for (int i = 0; i < 6; ++i)
    blocks.push_back(pool->allocate(1_MiB));
  for (const Block& block : blocks)
    pool->deallocate(block);
  EXPECT_EQ(pool->stats().cached.current, 4_MiB);
  EXPECT_EQ(given_back(), 2_MiB);
  EXPECT_EQ(pool->set_max_idle(1_MiB + 1), 4_MiB);
  EXPECT_EQ(pool->stats().cached.current, 1_MiB);
  EXPECT_EQ(pool->validate(), "");
}

TEST_F(CoalesceGrowth, PoolOnPoolIsTrimmedToWhatIsKeptInAll) {
  const auto inner = make<Coalesce>(make<SimulatedDevice>(), one_exact_class());
  const auto outer = make<Coalesce>(inner, one_exact_class());
  const Block a = outer->allocate(1_MiB);
  const Block b = outer->allocate(1_MiB);
  inner->deallocate(inner->allocate(1_MiB));
  outer->deallocate(a);
  outer->deallocate(b);
  EXPECT_EQ(outer->stats().cached.current, 3_MiB);
  EXPECT_EQ(outer->trim(2_MiB), 1_MiB);
  EXPECT_EQ(outer->stats().cached.current, 2_MiB);
  EXPECT_EQ(outer->trimmable(), 0U);  // goes to the inner one
  testing::expect_all_accounted_for(*outer);
}

TEST_F(CoalesceGrowth, WhatTheDeviceCanNeverGiveCostsNoIdleRegion) {
  open({}, {.capacity = 10_MiB});
  pool->deallocate(pool->allocate(1_MiB));
  asked();
  const Expected<Block> block = pool->try_allocate({.bytes = 11_MiB});
  ASSERT_FALSE(block);
  EXPECT_EQ(asked(), Sizes{11_MiB});  // to hear why not
  EXPECT_EQ(given_back(), 0U);
}

TEST_F(CoalesceGrowth, ASmallRestStaysWithItsBlock) {
  Coalesce::Options options = one_exact_class();
  options.classes = {{.region = 64_KiB, .region_for = 64_KiB, .least_rest = 8_KiB}};
  open(options);
  const Block a = pool->allocate(57_KiB);
  EXPECT_EQ(a.bytes, 64_KiB);
  pool->deallocate(a);
  const Block b = pool->allocate(56_KiB);
  EXPECT_EQ(b.bytes, 56_KiB);
  pool->deallocate(b);
}

TEST_F(CoalesceGrowth, ARestThatIsLargeBesideTheRequestStaysAHole) {
  Coalesce::Options options = one_exact_class();
  options.classes = {{.region = 64_KiB, .region_for = 64_KiB, .least_rest = 32_KiB}};
  options.rest_ratio = 1;
  open(options);
  const Block a = pool->allocate(2_KiB);
  EXPECT_EQ(a.bytes, 2_KiB);
  const Block b = pool->allocate(31_KiB);  // exactly as much is left
  EXPECT_EQ(b.bytes, 31_KiB);
  const Block c = pool->allocate(16_KiB);  // 15 KiB are left
  EXPECT_EQ(c.bytes, 31_KiB);
  for (const Block& block : {a, b, c})
    pool->deallocate(block);
}

/// The same history every time it is called.
void live_in_regions(std::uint64_t seed, Ledger& ledger) {
  testing::Random random(seed);
  for (auto steps = random.below(120); steps > 0; --steps) {
    if (ledger.size() > 0 && random.chance(50)) {
      ledger.free(random.below(ledger.size()));
    } else {
      static_cast<void>(ledger.allocate({.bytes = random.size(18)}));
    }
  }
}

class CoalesceLargest : public ::testing::TestWithParam<Coalesce::Options> {};
INSTANTIATE_TEST_SUITE_P(
    OneClass, CoalesceLargest,
    ::testing::Values(Coalesce::Options{.classes = {{}}},
                      Coalesce::Options{.classes = {{}}, .place = Placement::first},
                      Coalesce::Options{.classes = {{}}, .granule = 4096, .region_step = 16384},
                      Coalesce::Options{.classes = {{.region = 65536, .region_for = 65536}},
                                        .idle_ratio = Coalesce::no_ratio},
                      Coalesce::Options{.classes = {{}}, .growth = Growth::doubling},
                      Coalesce::Options{},
                      Coalesce::Options{.classes = {{.up_to = 4096}, {}}, .borrow = false}));

TEST_P(CoalesceLargest, IsWhatSucceedsAndNoMore) {
  const std::uint64_t first = testing::seed_or(1);
  for (std::uint64_t seed = first; seed < first + 100; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    std::size_t largest = 0;
    for (const bool beyond : {false, true}) {
      const auto pool = make<Coalesce>(
          make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB}), GetParam());
      Ledger ledger(*pool);
      live_in_regions(seed, ledger);
      const std::size_t answer = pool->largest_allocatable();
      if (beyond) {
        ASSERT_EQ(answer, largest);
        const std::size_t step = std::max<std::size_t>(GetParam().granule, 512);
        ASSERT_FALSE(ledger.allocate({.bytes = answer + step})) << answer;
      } else {
        largest = answer;
        ASSERT_TRUE(ledger.allocate({.bytes = answer})) << answer;
      }
      ledger.free_all();
    }
  }
}

TEST(CoalesceLargestOfHoles, IsAWholeNumberOfGranules) {
  const auto pool =
      make<Coalesce>(make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 10_KiB}),
                     Coalesce::Options{.classes = {{.region = 10_KiB, .region_for = 10_KiB}},
                                       .granule = 4096,
                                       .region_step = 4096,
                                       .growth = Growth::exact});
  Ledger ledger(*pool);
  ASSERT_TRUE(ledger.allocate({.bytes = 4096}));  // of 10 KiB, which is all there is
  const std::size_t largest = pool->largest_allocatable();
  EXPECT_EQ(largest, 4096U);
  EXPECT_TRUE(ledger.allocate({.bytes = largest}));
  ledger.free_all();
}

TEST(CoalesceLargestOnPools, IsALowerBound) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB});
  const auto inner = make<Coalesce>(device, one_exact_class());
  const auto outer = make<Coalesce>(inner, one_exact_class());
  const Block all = inner->allocate(1_MiB);
  inner->deallocate(all);
  const Block a = outer->allocate(256_KiB);
  const Block b = outer->allocate(256_KiB);
  const Block c = outer->allocate(256_KiB);
  const Block d = outer->allocate(256_KiB);
  outer->deallocate(a);
  outer->deallocate(c);
  const std::size_t largest = outer->largest_allocatable();
  EXPECT_EQ(largest, 256_KiB);  // not the sum of what would go back to the inner one
  const Expected<Block> block = outer->try_allocate({.bytes = largest});
  EXPECT_TRUE(block);
  for (const Block& each : {b, d, *block})
    outer->deallocate(each);
}

}  // namespace
}  // namespace cistern
