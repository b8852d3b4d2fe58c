// How large a request would succeed now: the answer is tried, one step of the device's granularity
// to either side.
#include <string>
#include <tuple>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/adaptor/retry.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/stack/stack.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using Recovery = Resource::Recovery;

constexpr std::size_t world_capacity = 1_MiB;

/// The stack under test and what else stands on its device.
struct World {
  explicit World(const std::string& text)
      : device(make<SimulatedDevice>(
            SimulatedDevice::Options{.capacity = world_capacity, .granularity = 512})),
        stack(open(text, {{"mine", device}})),
        other(make<Cache>(device, Cache::Options{.idle_ratio = Cache::no_ratio})) {}

  Ref<SimulatedDevice> device;
  Stack stack;
  Ref<Cache> other;
};

/// The same history every time it is called.
void live_through(World& world, std::uint64_t seed, testing::Ledger& ledger) {
  testing::Random random(seed);
  testing::Ledger others(*world.other);
  for (auto steps = random.below(120); steps > 0; --steps) {
    testing::Ledger& which = random.chance(25) ? others : ledger;
    if (which.size() > 0 && random.chance(50)) {
      which.free(random.below(which.size()));
    } else {
      static_cast<void>(which.allocate({.bytes = random.size(18)}));
    }
  }
  others.free_all();  // the other pool hoards
}

/// The text of the same stack without its retries.
std::string without_retries(std::string stack) {
  for (std::size_t at = stack.find("retry"); at != std::string::npos; at = stack.find("retry"))
    stack.erase(at, stack.find('>', at) + 2 - at);
  return stack;
}

class Largest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(
    Stacks, Largest,
    ::testing::Values("mine", "cache > mine", "cache(buckets=pow2) > mine",
                      "cache(buckets=table, idle_ratio=none) > mine",
                      "cache(buckets=fit, idle_ratio=none) > mine",
                      "limit(300kB) > cache(idle_ratio=none) > mine",
                      "cache(idle_ratio=none) > limit(700KiB) > mine",
                      "limit(900KiB) > cache(buckets=fit) > limit(800KiB) > mine",
                      "retry > cache(idle_ratio=none) > mine",
                      "cache(idle_ratio=none) > retry > mine",
                      "retry(attempts=1) > cache(idle_ratio=none) > mine",
                      "retry(attempts=0) > cache > mine", "retry(window=0) > cache > mine",
                      "coalesce > mine", "limit(900KiB) > coalesce > limit(800KiB) > mine",
                      "retry > coalesce > mine",
                      "retry > retry > cache(buckets=fit) > cache(buckets=pow2) > mine",
                      "retry > cache(idle_ratio=none) > limit(700KiB) > mine",
                      "retry > limit(500KiB) > cache(idle_ratio=none) > mine"));

TEST_P(Largest, IsWhatSucceedsAndNoMore) {
  const std::uint64_t first = testing::seed_or(1);
  for (std::uint64_t seed = first; seed < first + 150; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    std::size_t largest = 0;
    for (const bool beyond : {false, true}) {
      World world(GetParam());
      testing::Ledger ledger(*world.stack);
      live_through(world, seed, ledger);
      const std::size_t answer = world.stack->largest_allocatable();
      ASSERT_LE(world.stack->largest_allocatable(Recovery::without), answer);
      if (beyond) {
        ASSERT_EQ(answer, largest);  // a question changes nothing
        ASSERT_FALSE(ledger.allocate({.bytes = answer + 512})) << answer;
      } else {
        largest = answer;
        ASSERT_TRUE(ledger.allocate({.bytes = answer})) << answer;
      }
      ledger.free_all();
    }
  }
}

TEST_P(Largest, WithoutRecoveryIsWhatTheStackServesByItself) {
  const std::uint64_t first = testing::seed_or(1);
  const std::string alone = without_retries(GetParam());
  for (std::uint64_t seed = first; seed < first + 50; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    World world(alone);
    testing::Ledger ledger(*world.stack);
    live_through(world, seed, ledger);
    const std::size_t answer = world.stack->largest_allocatable(Recovery::without);
    ASSERT_EQ(answer, world.stack->largest_allocatable());
    ASSERT_TRUE(ledger.allocate({.bytes = answer})) << answer;
    ledger.free_all();
  }
}

TEST(Largest, CountsWhatTheOtherPoolsHoardOnlyWhereTheStackRecovers) {
  World world("retry > cache > mine");
  const Block live = world.stack->allocate(100_KiB);
  world.other->deallocate(world.other->allocate(400_KiB));
  EXPECT_EQ(world.stack->largest_allocatable(Recovery::without), 1_MiB - 104_KiB - 416_KiB);
  EXPECT_EQ(world.stack->largest_allocatable(), 1_MiB - 104_KiB);
  EXPECT_EQ(world.other->largest_allocatable(), 1_MiB - 104_KiB);  // its own
  EXPECT_EQ(world.device->largest_allocatable(), 1_MiB - 104_KiB - 416_KiB);
  world.stack->deallocate(live);
}

TEST(Largest, IsBoundByWhatIsAskedOfALoweredLimit) {
  const auto limit = make<Limit>(make<SimulatedDevice>(), 1_MiB);
  const Ref<Cache> cache = make<Cache>(limit, Cache::Options{.idle_ratio = Cache::no_ratio});
  const Block live = cache->allocate(512_KiB);
  const Block idle = cache->allocate(256_KiB);
  cache->deallocate(idle);
  limit->set_max_bytes(100_KiB);
  EXPECT_EQ(limit->largest_allocatable(), 0U);
  EXPECT_EQ(cache->largest_allocatable(), 256_KiB);  // a hit asks the limit for nothing
  EXPECT_FALSE(cache->try_allocate({.bytes = 300_KiB}));
  cache->deallocate(live);
}

TEST(Largest, IsBoundByWhatADeviceWillFail) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.fail_beyond = 3_MiB});
  const Block live = device->allocate(1_MiB);
  EXPECT_EQ(device->largest_allocatable(), 2_MiB);
  device->deallocate(live);
}

TEST(Largest, OfTheHostIsWithinItsMemory) {
  const auto host = make<HostDevice>();
  const std::size_t bytes = host->largest_allocatable();
  EXPECT_GT(bytes, 1_MiB);
  EXPECT_LE(bytes, host->limits().total_memory);
  EXPECT_LE(bytes, host->free_memory() + 64_MiB);
}

}  // namespace
}  // namespace cistern
