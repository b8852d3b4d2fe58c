// Whose holes a stream is given.
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/device/simulated_queues.hpp"
#include "cistern/pool/coalesce.hpp"
#include "support/coalesces.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"
#include "support/spy.hpp"
#include "support/streams.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Spy;
using testing::stream_one;
using testing::stream_two;

std::uintptr_t place_of(const Block& block) {
  return reinterpret_cast<std::uintptr_t>(block.memory);
}

TEST(CoalesceStreams, TwoStreamsDoNotDoubleWhatIsReserved) {
  const auto pool = make<Coalesce>(make<SimulatedDevice>());
  for (int turn = 0; turn < 4; ++turn) {
    const Stream stream{.id = static_cast<std::uint64_t>(turn) % 2 + 1};
    std::vector<Block> blocks;
    for (std::size_t i = 1; i <= 40; ++i)
      blocks.push_back(pool->allocate({.bytes = i * 64_KiB, .stream = stream}));
    for (const Block& block : blocks)
      pool->deallocate(block, stream);
    EXPECT_EQ(pool->validate(), "");
  }
  EXPECT_LE(pool->stats().reserved.peak, 1.05 * static_cast<double>(96_MiB));
  EXPECT_EQ(pool->stats().live_granted.peak, 40U * 41 / 2 * 64_KiB);
}

TEST(CoalesceStreams, AStreamsOwnHolesComeFirst) {
  const auto pool =
      make<Coalesce>(make<SimulatedDevice>(),
                     Coalesce::Options{.classes = {{}}, .idle_ratio = Coalesce::no_ratio});
  const Block a = pool->allocate({.bytes = 1_MiB, .stream = stream_one});
  const Block b = pool->allocate({.bytes = 2_MiB, .stream = stream_two});
  pool->deallocate(a, stream_one);
  pool->deallocate(b, stream_two);
  const Block own =
      pool->allocate({.bytes = 1_MiB, .stream = stream_two});  // though the other fits better
  EXPECT_EQ(own.memory, b.memory);
  const Block others = pool->allocate({.bytes = 1_MiB, .stream = {.id = 3}});
  EXPECT_TRUE(others.memory == a.memory || place_of(others) == place_of(b) + 1_MiB);
  EXPECT_EQ(pool->stats().device_allocations, 2U);
  EXPECT_EQ(pool->stats().hits, 2U);
  pool->deallocate(own, stream_two);
  pool->deallocate(others, stream_one);
  testing::expect_all_accounted_for(*pool);
}

TEST(CoalesceStreams, WhatTouchesIsMergedBeforeTheUpstreamIsAsked) {
  const auto pool =
      make<Coalesce>(make<testing::QueueDevice>(),
                     Coalesce::Options{.classes = {{.region = 2_MiB, .region_for = 2_MiB}},
                                       .idle_ratio = Coalesce::no_ratio});
  const Block a = pool->allocate({.bytes = 1_MiB, .stream = stream_one});
  const Block b = pool->allocate({.bytes = 1_MiB, .stream = stream_one});
  pool->deallocate(a, stream_one);
  pool->deallocate(b, stream_two);
  EXPECT_EQ(pool->largest_hole(), 1_MiB);  // the device would have to wait
  const Block whole = pool->allocate({.bytes = 2_MiB, .stream = {.id = 3}});
  EXPECT_EQ(whole.memory, a.memory);
  EXPECT_EQ(pool->stats().device_allocations, 1U);
  pool->deallocate(whole);
}

TEST(CoalesceStreams, WhatTouchesIsMergedAtOnceWhereNobodyWaits) {
  const auto pool =
      make<Coalesce>(make<SimulatedDevice>(),
                     Coalesce::Options{.classes = {{.region = 2_MiB, .region_for = 2_MiB}},
                                       .idle_ratio = Coalesce::no_ratio});
  const Block a = pool->allocate({.bytes = 1_MiB, .stream = stream_one});
  const Block b = pool->allocate({.bytes = 1_MiB, .stream = stream_one});
  pool->deallocate(a, stream_one);
  pool->deallocate(b, stream_two);
  EXPECT_EQ(pool->largest_hole(), 2_MiB);
}

TEST(CoalesceStreams, ABlockFreedOnOneStreamIsTakenOnAnotherAndGoesBackOnItsLast) {
  const auto spy = make<Spy>(make<SimulatedDevice>());
  const auto pool = make<Coalesce>(spy, Coalesce::Options{.classes = {{}}});
  const Block a = pool->allocate({.bytes = 1_MiB, .stream = stream_one});
  pool->deallocate(a, stream_two);
  const Block b = pool->allocate({.bytes = 1_MiB, .stream = {.id = 3}});
  EXPECT_EQ(a.memory, b.memory);
  pool->deallocate(b, {.id = 4});
  pool->trim();
  ASSERT_EQ(spy->freed.size(), 1U);
  EXPECT_EQ(spy->freed[0].stream.id, 4U);
}

struct SeparatePool {
  SimulatedDevice::Options device;
  Placement place;
};
class Separate : public ::testing::TestWithParam<SeparatePool> {};
INSTANTIATE_TEST_SUITE_P(
    Kinds, Separate,
    ::testing::Values(SeparatePool{{}, Placement::packed}, SeparatePool{{}, Placement::best},
                      SeparatePool{{.extensible = true}, Placement::packed},
                      SeparatePool{{.extensible = true}, Placement::first},
                      SeparatePool{{.joins_adjacent = true}, Placement::packed},
                      SeparatePool{{.joins_adjacent = true}, Placement::best}));

/// Which stream used each byte last, since it came from the device.
class LastUses {
 public:
  void use(std::uintptr_t start, std::size_t bytes, std::uint64_t stream) {
    forget(start, bytes);
    uses_[start] = {bytes, stream};
  }
  void forget(std::uintptr_t start, std::size_t bytes) {
    auto at = uses_.lower_bound(start);
    if (at != uses_.begin() && std::prev(at)->first + std::prev(at)->second.first > start) --at;
    while (at != uses_.end() && at->first < start + bytes) {
      const auto [from, use] = *at;
      const auto [length, stream] = use;
      at = uses_.erase(at);
      if (from < start) uses_[from] = {start - from, stream};
      if (from + length > start + bytes)
        uses_[start + bytes] = {from + length - start - bytes, stream};
    }
  }
  [[nodiscard]] bool is_all_of(std::uintptr_t start, std::size_t bytes,
                               std::uint64_t stream) const {
    auto at = uses_.lower_bound(start);
    if (at != uses_.begin() && std::prev(at)->first + std::prev(at)->second.first > start) --at;
    for (; at != uses_.end() && at->first < start + bytes; ++at)
      if (at->second.second != stream) return false;
    return true;
  }

 private:
  std::map<std::uintptr_t, std::pair<std::size_t, std::uint64_t>> uses_;
};

TEST_P(Separate, NoStreamIsGivenWhatAnotherOneFreed) {
  for (std::uint64_t seed = testing::seed_or(1), end = seed + testing::seeds_at_a_time(10);
       seed < end; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    testing::Random random(seed);
    const auto spy = make<Spy>(make<SimulatedDevice>(GetParam().device));
    const auto pool = make<Coalesce>(
        spy,
        Coalesce::Options{.classes = {{.up_to = 8_KiB, .region = 32_KiB, .region_for = 16_KiB}, {}},
                          .place = GetParam().place,
                          .streams = StreamSharing::separate});
    LastUses uses;
    spy->before_free = [&](const Block& block) { uses.forget(place_of(block), block.bytes); };
    std::vector<std::pair<Block, Stream>> blocks;
    for (int step = 0; step < 600; ++step) {
      if (blocks.empty() || random.chance(52)) {
        const Stream stream{.id = random.below(4)};
        const Block block = pool->allocate({.bytes = random.size(15), .stream = stream});
        ASSERT_TRUE(uses.is_all_of(place_of(block), block.bytes, stream.id)) << "step " << step;
        uses.use(place_of(block), block.bytes, stream.id);
        blocks.emplace_back(block, stream);
      } else {
        std::swap(blocks[random.below(blocks.size())], blocks.back());
        const auto [block, stream] = blocks.back();
        blocks.pop_back();
        pool->deallocate(block, stream);
      }
      if (random.chance(3)) pool->trim(random.size(17));
      ASSERT_EQ(pool->validate(), "");
    }
    for (const auto& [block, stream] : blocks)
      pool->deallocate(block, stream);
    testing::expect_nothing_held(*pool);
  }
}

TEST(CoalesceStreams, SeparateStreamsFindTheirHolesWhateverOthersDo) {
  const auto pool =
      make<Coalesce>(make<SimulatedDevice>(), Coalesce::Options{.classes = {{}},
                                                                .streams = StreamSharing::separate,
                                                                .idle_ratio = Coalesce::no_ratio});
  const Block a = pool->allocate({.bytes = 1_MiB, .stream = stream_one});
  // The first stream has no holes at this time.
  const Block b = pool->allocate({.bytes = 1_MiB, .stream = stream_two});
  pool->deallocate(a, stream_one);
  pool->deallocate(b, stream_two);
  for (int turn = 0; turn < 3; ++turn) {
    const Block again = pool->allocate({.bytes = 1_MiB, .stream = stream_one});
    EXPECT_EQ(again.memory, a.memory);
    const Block other = pool->allocate({.bytes = 1_MiB, .stream = stream_two});
    EXPECT_EQ(other.memory, b.memory);
    pool->deallocate(again, stream_one);
    pool->deallocate(other, stream_two);
  }
  EXPECT_EQ(pool->stats().device_allocations, 2U);
}

TEST(CoalesceStreams, MemoryOfASeparateStreamComesHomeWhereverItIsFreed) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.queues = true});
  const auto pool = make<Coalesce>(device, Coalesce::Options{.classes = {{}},
                                                             .streams = StreamSharing::separate,
                                                             .idle_ratio = Coalesce::no_ratio});
  for (int turn = 0; turn < 5; ++turn) {
    const Block block = pool->allocate({.bytes = 1_MiB, .stream = stream_one});
    device->queues()->launch(stream_one, {{.block = block}});
    device->queues()->wait_as_program(stream_two, stream_one);
    device->queues()->launch(stream_two, {{.block = block}});
    pool->deallocate(block, stream_two);
  }
  EXPECT_EQ(pool->stats().device_allocations, 1U);
  EXPECT_EQ(device->queues()->waits(), 5U);
  EXPECT_EQ(device->validate(), "");
  pool->trim();
  EXPECT_EQ(pool->validate(), "");
  testing::expect_nothing_held(*pool);
}

}  // namespace
}  // namespace cistern
