// Regions that grow where they lie, when that is refused, and a device whose memory is not an
// address.
#include <cstddef>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/retry.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/coalesce.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;

constexpr SimulatedDevice::Options extensible{.capacity = 64_MiB, .extensible = true};

Coalesce::Options one_class_of_regions(Placement place = Placement::best) {
  return {.classes = {{.region = 2_MiB, .region_for = 1_MiB}},
          .growth = Growth::exact,
          .place = place,
          .idle_ratio = Coalesce::no_ratio};
}

TEST(CoalesceExtend, OneRegionGrowsByWhatIsMissing) {
  const auto device = make<SimulatedDevice>(extensible);
  const auto pool = make<Coalesce>(device, one_class_of_regions());
  const Block a = pool->allocate(1_MiB);
  EXPECT_EQ(device->used(), 1_MiB);  // and no whole region
  const Block b = pool->allocate(3_MiB);
  EXPECT_EQ(device->used(), 4_MiB);
  EXPECT_EQ(b.memory, static_cast<std::byte*>(a.memory) + 1_MiB);
  EXPECT_EQ(device->outstanding().blocks, 1U);
  pool->deallocate(b);
  const Block c = pool->allocate(5_MiB);  // of which 3 are there
  EXPECT_EQ(device->used(), 6_MiB);
  EXPECT_EQ(c.memory, b.memory);
  EXPECT_EQ(pool->stats().device_allocations, 3U);
  EXPECT_EQ(pool->stats().misses, 3U);
  pool->deallocate(a);
  pool->deallocate(c);
  testing::expect_nothing_held(*pool);
  EXPECT_EQ(device->used(), 0U);
}

TEST(CoalesceExtend, EachClassHasOneRegion) {
  const auto device = make<SimulatedDevice>(extensible);
  const auto pool = make<Coalesce>(device);
  std::vector<Block> blocks;
  for (int i = 0; i < 10; ++i)
    for (const std::size_t bytes : {1_KiB, 1_MiB})
      blocks.push_back(pool->allocate(bytes));
  EXPECT_EQ(device->outstanding().blocks, 2U);
  EXPECT_EQ(device->used(), 10 * (1_KiB + 1_MiB));
  for (const Block& block : blocks)
    pool->deallocate(block);
  testing::expect_nothing_held(*pool);
}

TEST(CoalesceExtend, AlignmentIsCountedWithWhatIsMissing) {
  const auto device = make<SimulatedDevice>(extensible);
  const auto pool = make<Coalesce>(device, one_class_of_regions());
  Ledger ledger(*pool);
  EXPECT_TRUE(ledger.allocate({.bytes = 512}));
  EXPECT_TRUE(ledger.allocate({.bytes = 4_KiB, .alignment = 4_KiB}));
  EXPECT_EQ(device->used(), 8_KiB);
  EXPECT_EQ(pool->hole_bytes(), 4_KiB - 512);
  ledger.expect_in_order();
  ledger.free_all();
}

TEST(CoalesceExtend, TheHoleThatEndsARegionIsUsedWhosesoeverItIs) {
  const auto device = make<SimulatedDevice>(extensible);
  const auto pool = make<Coalesce>(device, one_class_of_regions());
  const Block a = pool->allocate({.bytes = 1_MiB, .stream = {.id = 1}});
  const Block b = pool->allocate({.bytes = 1_MiB, .stream = {.id = 1}});
  pool->deallocate(b, {.id = 1});
  const Block c = pool->allocate({.bytes = 2_MiB, .stream = {.id = 2}});
  EXPECT_EQ(c.memory, b.memory);
  EXPECT_EQ(device->used(), 3_MiB);
  EXPECT_EQ(device->allocation_calls(), 3U);  // by one of them
  EXPECT_EQ(pool->validate(), "");
  pool->deallocate(a);
  pool->deallocate(c);
}

TEST(CoalesceExtend, SeparateStreamsLeaveTheEndToItsOwner) {
  const auto device = make<SimulatedDevice>(extensible);
  Coalesce::Options options = one_class_of_regions();
  options.streams = StreamSharing::separate;
  const auto pool = make<Coalesce>(device, options);
  const Block a = pool->allocate({.bytes = 1_MiB, .stream = {.id = 1}});
  const Block b = pool->allocate({.bytes = 1_MiB, .stream = {.id = 1}});
  pool->deallocate(b, {.id = 1});
  const Block c = pool->allocate({.bytes = 1_MiB, .stream = {.id = 2}});
  EXPECT_NE(c.memory, b.memory);
  EXPECT_EQ(device->used(), 3_MiB);
  EXPECT_EQ(device->allocation_calls(), 3U);
  const Block again = pool->allocate({.bytes = 1_MiB, .stream = {.id = 1}});
  EXPECT_EQ(again.memory, b.memory);
  for (const Block& block : {a, c, again})
    pool->deallocate(block);
}

TEST(CoalesceExtend, ARefusedExtensionFailsLikeAnyRequestAndLosesNothing) {
  const auto device = make<SimulatedDevice>(extensible);
  const auto pool = make<Coalesce>(device, one_class_of_regions());
  const Block a = pool->allocate(1_MiB);
  device->fail_next(1);
  const Expected<Block> refused = pool->try_allocate({.bytes = 1_MiB});
  const Block b = refused ? *refused : pool->allocate(1_MiB);
  EXPECT_EQ(pool->validate(), "");
  EXPECT_EQ(device->used(), 2_MiB);
  pool->deallocate(a);
  pool->deallocate(b);
  testing::expect_nothing_held(*pool);
}

TEST(CoalesceExtend, IdleRegionsOfOtherClassesGoBackWhereTheDeviceIsFull) {
  const auto device =
      make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 10_MiB, .extensible = true});
  const auto pool = make<Coalesce>(device, Coalesce::Options{.classes = {{.up_to = 1_MiB}, {}},
                                                             .borrow = false,
                                                             .idle_ratio = Coalesce::no_ratio});
  const Block small = pool->allocate(1_MiB);
  std::vector<Block> blocks;
  for (int i = 0; i < 3; ++i)
    blocks.push_back(pool->allocate(2_MiB));
  for (const Block& block : blocks)
    pool->deallocate(block);
  std::vector<Block> smaller;
  for (int i = 0; i < 9; ++i)
    smaller.push_back(pool->allocate(1_MiB));
  EXPECT_EQ(device->used(), 10_MiB);
  EXPECT_EQ(pool->stats().failures, 0U);
  pool->deallocate(small);
  for (const Block& block : smaller)
    pool->deallocate(block);
  testing::expect_nothing_held(*pool);
}

/// Calls `after_growth` when a growth has been answered; with a `refusal`, answers that.
class GrowthSpy final : public Stage {
 public:
  explicit GrowthSpy(Ref<Resource> upstream) : Stage(std::move(upstream)) {}

  std::function<void()> after_growth;
  std::optional<Errc> refusal;
  std::size_t asked = 0;

  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override {
    return upstream().try_allocate(request);
  }
  bool deallocate(const Block& block, Stream stream) noexcept override {
    return upstream().deallocate(block, stream);
  }
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override {
    ++asked;
    if (refusal) return tl::unexpected(Error{.code = *refusal, .stage = "spy"});
    const Expected<Block> grown = upstream().try_grow(block, bytes);
    if (after_growth) after_growth();
    return grown;
  }
};

TEST(CoalesceExtend, WhereARegionCannotGrowAnotherIsObtained) {
  const auto spy = make<GrowthSpy>(make<SimulatedDevice>(extensible));
  const auto pool = make<Coalesce>(spy, one_class_of_regions());
  const Block a = pool->allocate(1_MiB);
  spy->refusal = Errc::cannot_grow;
  const Block b = pool->allocate(3_MiB);
  EXPECT_EQ(spy->asked, 1U);
  EXPECT_EQ(spy->outstanding().blocks, 2U);
  EXPECT_EQ(pool->stats().failures, 0U);
  EXPECT_EQ(pool->validate(), "");
  spy->refusal = Errc::device_failed;
  const Expected<Block> c = pool->try_allocate({.bytes = 3_MiB});
  ASSERT_FALSE(c);
  EXPECT_EQ(c.error().code, Errc::device_failed);
  pool->deallocate(a);
  pool->deallocate(b);
  testing::expect_nothing_held(*pool);
}

TEST(CoalesceExtend, WhatOthersTookMeanwhileIsExtendedAnew) {
  const auto spy = make<GrowthSpy>(make<SimulatedDevice>(extensible));
  const auto pool = make<Coalesce>(spy, one_class_of_regions());
  const Block a = pool->allocate(1_MiB);
  const Block b = pool->allocate(1_MiB);
  pool->deallocate(b);
  std::optional<Block> other;
  spy->after_growth = [&] {
    if (!other) other = pool->allocate(1_MiB);  // what the extension counted on
  };
  const Block c = pool->allocate(2_MiB);
  EXPECT_EQ(other->memory, b.memory);
  EXPECT_EQ(spy->asked, 3U);
  EXPECT_EQ(pool->stats().reserved.current, 4_MiB);
  EXPECT_EQ(pool->validate(), "");
  for (const Block& block : {a, c, *other})
    pool->deallocate(block);
  testing::expect_nothing_held(*pool);
}

TEST(CoalesceExtend, ARegionThatGrowsDoesNotGoBackMeanwhile) {
  const auto spy = make<GrowthSpy>(make<SimulatedDevice>(extensible));
  const auto pool = make<Coalesce>(spy, one_class_of_regions());
  pool->deallocate(pool->allocate(1_MiB));
  spy->after_growth = [&] {
    pool->trim();
    EXPECT_EQ(pool->set_max_idle(0), unbounded);
    EXPECT_EQ(spy->outstanding().blocks, 1U);
  };
  const Block block = pool->allocate(3_MiB);
  EXPECT_EQ(pool->validate(), "");
  pool->deallocate(block);
  EXPECT_EQ(pool->stats().reserved.current, 0U);
}

TEST(CoalesceExtend, ACallbackMaySayWhereABlockOfTheGrowingRegionIsUsed) {
  const auto device = make<SimulatedDevice>(extensible);
  const auto retry = make<Retry>(device, Retry::Options{.attempts = 1});
  const auto pool = make<Coalesce>(retry, one_class_of_regions());
  const Block a = pool->allocate(1_MiB);
  bool noted = false;
  retry->add_callback([&](std::size_t /*missing*/) {
    noted = pool->also_used_on(a, {.id = 7}).has_value();
    return 0;
  });
  device->fail_next(1);
  const Block b = pool->allocate(1_MiB);
  EXPECT_TRUE(noted);
  pool->deallocate(a);
  pool->deallocate(b);
  testing::expect_nothing_held(*pool);
}

TEST(CoalesceExtend, AfterARefusedGrowthTheBoundOnIdleRegionsHolds) {
  const auto device = make<SimulatedDevice>(extensible);
  const auto spy = make<GrowthSpy>(device);
  const auto pool = make<Coalesce>(spy, one_class_of_regions());
  pool->deallocate(pool->allocate(1_MiB));
  spy->after_growth = [&] { pool->set_max_idle(0); };
  device->fail_next(1);
  const Expected<Block> block = pool->try_allocate({.bytes = 3_MiB});
  EXPECT_EQ(pool->validate(), "");
  if (block) pool->deallocate(*block);
  EXPECT_EQ(pool->stats().reserved.current, 0U);
}

TEST(CoalesceExtend, WithoutMemoryForTheRecordTheRequestFailsAndTheRegionIsUsable) {
  for (int n = 1; n < 20; ++n) {
    const auto device = make<SimulatedDevice>(extensible);
    const auto pool = make<Coalesce>(device, one_class_of_regions());
    std::vector<Block> blocks;
    blocks.reserve(200);
    {
      const testing::FailingNew failing(n);
      for (int i = 0; i < 200; ++i) {
        const Expected<Block> block = pool->try_allocate({.bytes = 1_KiB});
        if (block) blocks.push_back(*block);
      }
    }
    EXPECT_EQ(pool->validate(), "");
    for (const Block& block : blocks)
      pool->deallocate(block);
    EXPECT_TRUE(pool->deallocate(pool->allocate(1_MiB)));
    EXPECT_EQ(pool->validate(), "");
    testing::expect_nothing_held(*pool);
    EXPECT_EQ(device->used(), 0U);
  }
}

TEST(CoalesceExtend, TheSecondTurnIsServedExactlyAsTheFirst) {
  const auto device = make<SimulatedDevice>(extensible);
  const auto pool = make<Coalesce>(device, one_class_of_regions(Placement::packed));
  std::vector<void*> first;
  for (int turn = 0; turn < 3; ++turn) {
    testing::Random random(testing::seed_or(4));
    std::vector<Block> blocks;
    std::vector<void*> places;
    for (int step = 0; step < 300; ++step) {
      if (blocks.empty() || random.chance(60)) {
        blocks.push_back(pool->allocate(random.size(17)));
        places.push_back(blocks.back().memory);
      } else {
        std::swap(blocks[random.below(blocks.size())], blocks.back());
        pool->deallocate(blocks.back());
        blocks.pop_back();
      }
    }
    for (const Block& block : blocks)
      pool->deallocate(block);
    if (turn == 0) first = places;
    EXPECT_EQ(places, first);
  }
}

/// Its memory is an object, of which a block is a part.
class JoinedObjects final : public Device {
 public:
  JoinedObjects()
      : Device({.kind = "object",
                .name = "",
                .total_memory = 16_MiB,
                .max_allocation = 16_MiB,
                .alignment = 64,
                .max_alignment = 4_KiB,
                .granularity = 64,
                .memory_is_address = false,
                .joins_adjacent = true}) {}

 private:
  Expected<Piece> obtain(std::size_t bytes, std::size_t alignment,
                         Stream /*stream*/) noexcept override {
    return Piece{
        .memory = &objects_[next_++ % objects_.size()], .bytes = bytes, .alignment = alignment};
  }
  void give_back(Piece /*piece*/, Stream /*stream*/) noexcept override {}

  std::vector<char> objects_ = std::vector<char>(1000);
  std::size_t next_ = 0;
};

TEST(CoalesceObjects, OffsetsCountFromTheObjectOfTheDevice) {
  const auto pool = make<Coalesce>(
      make<JoinedObjects>(), Coalesce::Options{.classes = {{.region = 1_MiB, .region_for = 1_MiB}},
                                               .idle_ratio = Coalesce::no_ratio});
  const Block a = pool->allocate(1'000);
  const Block b = pool->allocate(1'000);
  EXPECT_EQ(b.memory, a.memory);
  EXPECT_EQ(a.offset, 0U);
  EXPECT_EQ(b.offset, 1'024U);
  const Block aligned = pool->allocate({.bytes = 100, .alignment = 4_KiB});
  EXPECT_EQ(aligned.memory, a.memory);
  EXPECT_EQ(aligned.offset, 4_KiB);
  const Block other = pool->allocate(2_MiB);
  EXPECT_NE(other.memory, a.memory);
  EXPECT_EQ(other.offset, 0U);
  for (const Block& block : {a, b, aligned, other})
    EXPECT_TRUE(pool->deallocate(block));
  EXPECT_EQ(pool->validate(), "");
  testing::expect_all_accounted_for(*pool);
}

TEST(CoalesceObjects, OfAPoolBelowOffsetsAddUp) {
  const auto inner = make<Coalesce>(
      make<JoinedObjects>(), Coalesce::Options{.classes = {{.region = 1_MiB, .region_for = 1_MiB}},
                                               .idle_ratio = Coalesce::no_ratio});
  const Block before = inner->allocate(4'032);
  const auto outer = make<Coalesce>(
      inner, Coalesce::Options{.classes = {{.region = 64_KiB, .region_for = 64_KiB}}});
  const Block a = outer->allocate(100);
  const Block b = outer->allocate(100);
  const Block aligned = outer->allocate({.bytes = 100, .alignment = 1_KiB});
  EXPECT_EQ(a.memory, before.memory);
  EXPECT_EQ(a.offset, 4'032U);
  EXPECT_EQ(b.offset, 4'032U + 128);
  EXPECT_EQ(aligned.offset, 5_KiB);
  for (const Block& block : {a, b, aligned})
    EXPECT_TRUE(outer->deallocate(block));
  inner->deallocate(before);
  testing::expect_all_accounted_for(*outer);
}

}  // namespace
}  // namespace cistern
