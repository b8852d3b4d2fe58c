#include "cistern/device/simulated.hpp"

#include <cstdint>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;
using namespace std::chrono_literals;
using testing::Ledger;
using Options = SimulatedDevice::Options;

TEST(Simulated, HoldsItsCapacityAndNotAByteMore) {
  const auto device = make<SimulatedDevice>(Options{.capacity = 80_GiB, .granularity = 2_MiB});
  Ledger ledger(*device);
  EXPECT_TRUE(ledger.allocate({.bytes = 79_GiB}));
  EXPECT_TRUE(ledger.allocate({.bytes = 1_GiB - 1}));
  const Expected<Block> more = device->try_allocate({.bytes = 1});
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, Errc::out_of_memory);
  ledger.expect_in_order();
  ledger.free(0);
  const Expected<Block> too_much = device->try_allocate({.bytes = 80_GiB});
  ASSERT_FALSE(too_much);
  EXPECT_EQ(too_much.error().available, 79_GiB);
  EXPECT_EQ(device->try_allocate({.bytes = 80_GiB + 1}).error().code, Errc::too_large);
  ledger.free_all();
  testing::expect_all_accounted_for(*device);
}

TEST(Simulated, RoundsToItsGranularityAndAlignment) {
  const auto device = make<SimulatedDevice>(Options{.granularity = 4_KiB, .alignment = 64_KiB});
  Ledger ledger(*device);
  for (const std::size_t bytes : {std::size_t{1}, 4_KiB, 4_KiB + 1})
    ASSERT_TRUE(ledger.allocate({.bytes = bytes}));
  ASSERT_TRUE(ledger.allocate({.bytes = 1, .alignment = 1_GiB}));
  EXPECT_EQ(ledger.blocks()[2].bytes, 8_KiB);
  EXPECT_EQ(device->used(), 20_KiB);
  ledger.free_all();
}

TEST(Simulated, AddressesAreDeterministicAndNeverUsedAgain) {
  std::vector<void*> runs[2];  // NOLINT(modernize-avoid-c-arrays)
  for (auto& addresses : runs) {
    const auto device = make<SimulatedDevice>();
    for (std::size_t i = 1; i <= 100; ++i) {
      const Block block = device->allocate(i * 777);
      addresses.push_back(block.memory);
      device->deallocate(block);
    }
    EXPECT_TRUE(std::is_sorted(addresses.begin(), addresses.end()));
    EXPECT_EQ(std::adjacent_find(addresses.begin(), addresses.end()), addresses.end());
  }
  EXPECT_EQ(runs[0], runs[1]);
}

TEST(Simulated, CountsWhatCallsWouldHaveCost) {
  const auto device = make<SimulatedDevice>(
      Options{.allocate_latency = 5us, .free_latency = 2us, .ns_per_byte = 0.5, .fail_at = 2});
  const Block block = device->allocate(10'240);
  EXPECT_FALSE(device->try_allocate({.bytes = 512}));  // a failed call costs its latency
  device->deallocate(block);
  EXPECT_EQ(device->virtual_time(), 5us + 5120ns + 5us + 2us);
  EXPECT_EQ(device->allocation_calls(), 2U);
  EXPECT_EQ(device->free_calls(), 1U);
}

TEST(Simulated, TimeBeyondMeasureStandsStill) {
  const auto device = make<SimulatedDevice>(Options{.ns_per_byte = 1e300});
  device->deallocate(device->allocate(1000));
  EXPECT_EQ(device->virtual_time(), SimulatedDevice::Duration::max());
}

TEST(Simulated, GrowingIsACallThatCostsAndFailsLikeAnAllocation) {
  const auto device = make<SimulatedDevice>(
      Options{.extensible = true, .allocate_latency = 5us, .ns_per_byte = 0.5, .fail_at = 3});
  const Block block = device->allocate(10'240);
  const Block grown = device->try_grow(block, 20'480).value();
  EXPECT_FALSE(device->try_grow(grown, 30'720));
  EXPECT_EQ(device->virtual_time(), 15us + 10'240ns);
  EXPECT_EQ(device->allocation_calls(), 3U);
  EXPECT_EQ(device->used(), 20'480U);
  device->deallocate(grown);
  const auto fixed = make<SimulatedDevice>();
  const Block stays = fixed->allocate(512);
  EXPECT_EQ(fixed->try_grow(stays, 513).error().code, Errc::cannot_grow);
  EXPECT_EQ(fixed->allocation_calls(), 1U);
  fixed->deallocate(stays);
}

TEST(Simulated, FailsOnceItsAddressesHaveRunOut) {
  const auto device = make<SimulatedDevice>(Options{.capacity = std::size_t{1} << 62});
  device->deallocate(device->allocate(std::size_t{1} << 61));
  const Expected<Block> block = device->try_allocate({.bytes = std::size_t{1} << 61});
  ASSERT_FALSE(block);
  EXPECT_EQ(block.error().code, Errc::device_failed);
  testing::expect_all_accounted_for(*device);
}

std::string pattern_of_failures(const Options& options, int calls = 12) {
  const auto device = make<SimulatedDevice>(options);
  std::string pattern;
  for (int i = 0; i < calls; ++i) {
    const Expected<Block> block = device->try_allocate({.bytes = 1_MiB});
    pattern += block ? '.' : 'x';
    if (block) device->deallocate(*block);
  }
  EXPECT_EQ(device->used(), 0U);
  return pattern;
}

TEST(Simulated, FailsOnDemand) {
  EXPECT_EQ(pattern_of_failures({}), "............");
  EXPECT_EQ(pattern_of_failures({.fail_at = 3}), "..x.........");
  EXPECT_EQ(pattern_of_failures({.fail_every = 3}), "..x..x..x..x");
  EXPECT_EQ(pattern_of_failures({.fail_probability = 1}), "xxxxxxxxxxxx");
  EXPECT_EQ(pattern_of_failures({.fail_beyond = 1_MiB}), "............");
  EXPECT_EQ(pattern_of_failures({.fail_beyond = 1_MiB - 1}), "xxxxxxxxxxxx");
  const std::string by_chance = pattern_of_failures({.fail_probability = 0.3, .seed = 7}, 1000);
  EXPECT_EQ(by_chance, pattern_of_failures({.fail_probability = 0.3, .seed = 7}, 1000));
  EXPECT_NE(by_chance, pattern_of_failures({.fail_probability = 0.3, .seed = 8}, 1000));
  EXPECT_NEAR(static_cast<double>(std::count(by_chance.begin(), by_chance.end(), 'x')), 300, 60);
}

TEST(Simulated, FailsNextWhenTold) {
  const auto device = make<SimulatedDevice>();
  device->deallocate(device->allocate(1));
  device->fail_next(2);
  device->deallocate(device->allocate(1));
  EXPECT_THROW((void)device->allocate(1), OutOfMemory);
  device->deallocate(device->allocate(1));
}

TEST(Simulated, DetectsMisuse) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  const auto other = make<SimulatedDevice>();
  const Block block = device->allocate(1_MiB);
  Block wrong_size = block;
  wrong_size.bytes /= 2;
  Block wrong_place = block;
  wrong_place.memory = static_cast<char*>(block.memory) + 512;
  EXPECT_FALSE(device->deallocate(wrong_size));
  EXPECT_FALSE(device->deallocate(wrong_place));
  EXPECT_FALSE(other->deallocate(block));
  EXPECT_EQ(device->used(), 1_MiB);
  EXPECT_TRUE(device->deallocate(block));
  EXPECT_FALSE(device->deallocate(block));
  EXPECT_EQ(reports.all().size(), 4U);
  EXPECT_EQ(device->stats().refused_frees, 3U);
  testing::expect_all_accounted_for(*device);
}

TEST(Simulated, RefusesNonsense) {
  EXPECT_THROW(make<SimulatedDevice>(Options{.granularity = 0}), std::invalid_argument);
  EXPECT_THROW(make<SimulatedDevice>(Options{.granularity = 3}), std::invalid_argument);
  EXPECT_THROW(make<SimulatedDevice>(Options{.alignment = 48}), std::invalid_argument);
  EXPECT_THROW(make<SimulatedDevice>(Options{.alignment = 2_GiB}), std::invalid_argument);
  EXPECT_THROW(make<SimulatedDevice>(Options{.allocate_latency = -1ns}), std::invalid_argument);
  EXPECT_THROW(make<SimulatedDevice>(Options{.ns_per_byte = -1}), std::invalid_argument);
  EXPECT_THROW(make<SimulatedDevice>(Options{.fail_probability = 1.5}), std::invalid_argument);
}

std::uintptr_t address_of(const Expected<Block>& block) {
  return block ? reinterpret_cast<std::uintptr_t>(block->memory) : 0;
}

constexpr std::uintptr_t own_addresses = std::uintptr_t{1} << 61;

TEST(Simulated, FollowsTheAddressesOfAnother) {
  const auto device = make<SimulatedDevice>(Options{.granularity = 4_KiB});
  const std::vector<SimulatedDevice::Placement> placements{
      {5_GiB, 8_KiB}, {1_GiB, 4_KiB}, {5_GiB + 8_KiB, 4_KiB}};
  device->follow(placements);
  const Expected<Block> first = device->try_allocate({.bytes = 5_KiB});
  EXPECT_EQ(address_of(first), 5_GiB);
  const Expected<Block> other = device->try_allocate({.bytes = 8_KiB});  // of another size
  EXPECT_GE(address_of(other), own_addresses);
  const Expected<Block> second = device->try_allocate({.bytes = 4_KiB});
  EXPECT_EQ(address_of(second), 1_GiB);
  const Expected<Block> third = device->try_allocate({.bytes = 4_KiB});
  EXPECT_EQ(address_of(third), 5_GiB + 8_KiB);
  EXPECT_EQ(device->followed_calls(), 3U);
  EXPECT_EQ(device->validate(), "");
  for (const Expected<Block>& block : {first, other, second, third})
    device->deallocate(*block);
  testing::expect_all_accounted_for(*device);
}

TEST(Simulated, FollowsNoPlacementThatCannotBe) {
  const auto device = make<SimulatedDevice>();
  const auto placed = [&](SimulatedDevice::Placement placement, std::size_t alignment = 0) {
    device->follow({&placement, 1});
    const Expected<Block> block =
        device->try_allocate({.bytes = placement.bytes, .alignment = alignment});
    EXPECT_EQ(device->validate(), "");
    return block;
  };
  const Expected<Block> live = placed({1_GiB, 4_KiB});
  EXPECT_EQ(address_of(live), 1_GiB);
  std::vector<Expected<Block>> others{placed({1_GiB, 4_KiB}),
                                      placed({1_GiB - 512, 1_KiB}),
                                      placed({1_GiB + 512, 512}),
                                      placed({0, 512}),
                                      placed({~std::uintptr_t{0}, 512}),
                                      placed({3_GiB + 8, 512}),
                                      placed({3_GiB + 512, 512}, 1_KiB)};
  for (const Expected<Block>& block : others) {
    EXPECT_GE(address_of(block), own_addresses);
    device->deallocate(*block);
  }
  device->deallocate(*live);
  const Expected<Block> again = placed({1_GiB, 4_KiB});  // what was given back may come again
  EXPECT_EQ(address_of(again), 1_GiB);
  device->deallocate(*again);
  EXPECT_EQ(device->followed_calls(), 2U);
  testing::expect_all_accounted_for(*device);
}

TEST(Simulated, APlacementOutlivesARefusal) {
  const auto device = make<SimulatedDevice>(Options{.capacity = 1_MiB, .fail_at = 1});
  const SimulatedDevice::Placement placement{1_GiB, 4_KiB};
  device->follow({&placement, 1});
  EXPECT_FALSE(device->try_allocate({.bytes = 4_KiB}));
  const Expected<Block> block = device->try_allocate({.bytes = 4_KiB});
  EXPECT_EQ(address_of(block), 1_GiB);
  device->deallocate(*block);
  testing::expect_all_accounted_for(*device);
}

TEST(Simulated, APieceThatFollowsDoesNotGrow) {
  const auto device = make<SimulatedDevice>(Options{.extensible = true});
  const SimulatedDevice::Placement placement{1_GiB, 4_KiB};
  device->follow({&placement, 1});
  const Expected<Block> block = device->try_allocate({.bytes = 4_KiB});
  EXPECT_EQ(device->try_grow(*block, 8_KiB).error().code, Errc::cannot_grow);
  device->deallocate(*block);
}

TEST(Simulated, BeginsToFollowBeforeItGivesMemory) {
  const auto device = make<SimulatedDevice>();
  const Block block = device->allocate(512);
  EXPECT_THROW(device->follow({}), std::logic_error);
  device->deallocate(block);
}

}  // namespace
}  // namespace cistern
