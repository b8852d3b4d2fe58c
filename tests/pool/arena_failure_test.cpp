// Arenas on devices, and on a heap, that refuse: nothing is lost, and what failed once works again.
#include <vector>

#include <gtest/gtest.h>

#include "support/arenas.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;

/// A few cycles of everything that an arena can be asked for.
void use(Arena& arena) {
  Ledger ledger(arena);
  for (std::size_t cycle = 0; cycle < 4; ++cycle) {
    for (std::size_t i = 0; i < 6; ++i) {
      ledger.allocate({.bytes = (i + cycle) * 1000});
      ledger.expect_in_order();
    }
    if (ledger.size() > 2) ledger.free(1);
    ledger.expect_in_order();
    ledger.allocate_held({.bytes = 3000});
    ledger.allocate({.bytes = 500, .stream = {.id = cycle}});
    const std::vector<Request> batch = {{.bytes = 100}, {.bytes = 100_KiB}, {.bytes = 200_KiB}};
    std::vector<Block> blocks(batch.size());
    if (arena.try_allocate_batch(batch, blocks)) {
      for (std::size_t i = 0; i < batch.size(); ++i)
        ledger.add(batch[i], blocks[i]);
    }
    ledger.expect_in_order();
    if (ledger.size() > 0) ledger.grow(ledger.size() - 1, 300_KiB);
    ledger.expect_in_order();
    if (cycle == 2) arena.trim();
    ledger.reset();
    ledger.expect_in_order();
  }
  ledger.free_all();
  testing::expect_nothing_held(arena);
}

Ref<SimulatedDevice> device_that_fails_at(std::uint64_t call) {
  return make<SimulatedDevice>(SimulatedDevice::Options{.extensible = true, .fail_at = call});
}

TEST(ArenaFailure, WhicheverCallTheDeviceRefusesAllMemoryIsAccountedFor) {
  for (const std::size_t chunk : {std::size_t{0}, 4_KiB, 1_MiB}) {
    const auto calls_of = [&](std::uint64_t fail_at) {
      const auto device = device_that_fails_at(fail_at);
      use(*make<Arena>(device, Arena::Options{.chunk = chunk}));
      EXPECT_EQ(device->used(), 0U) << "call " << fail_at << " refused";
      return device->allocation_calls();
    };
    const std::uint64_t calls = calls_of(0);
    for (std::uint64_t call = 1; call <= calls; ++call)
      calls_of(call);
  }
}

TEST(ArenaFailure, ADeviceThatOftenRefusesLosesNothing) {
  for (std::uint64_t every = 2; every <= 5; ++every) {
    const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.fail_every = every});
    use(*make<Arena>(device));
    EXPECT_EQ(device->used(), 0U);
  }
}

TEST(ArenaFailure, WithoutAChunkACycleIsPassedOnAndTheNextOneHasItAgain) {
  const auto device = make<SimulatedDevice>();
  const auto arena = make<Arena>(device);
  Ledger ledger(*arena);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  device->fail_next(1);
  ledger.reset();
  EXPECT_EQ(device->used(), 0U);
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  EXPECT_EQ(arena->stats().misses, 2U);
  ledger.reset();
  ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
  EXPECT_EQ(arena->stats().misses, 2U);
  ledger.free_all();
  testing::expect_all_accounted_for(*arena);
}

TEST(ArenaFailure, WithoutMemoryForItsRecordsNothingIsLost) {
  for (const std::size_t chunk : {std::size_t{0}, 64_KiB}) {
    bool has_failed = true;
    for (int n = 1; has_failed; ++n) {
      const auto device = make<SimulatedDevice>();
      const auto arena = make<Arena>(device, Arena::Options{.chunk = chunk});
      std::vector<Block> blocks(300);
      const std::vector<Request> batch(3, Request{.bytes = 1000});
      {
        const testing::FailingNew failing(n);
        for (int cycle = 0; cycle < 2; ++cycle) {
          for (Block& block : blocks)
            block = arena->try_allocate({.bytes = 1000}).value_or(Block{});
          std::vector<Block>::iterator last = blocks.end() - 3;
          for (auto each = last; each != blocks.end(); ++each)
            arena->deallocate(*each);
          const std::size_t live = arena->in_use_count();
          if (!arena->try_allocate_batch(batch, {last, blocks.end()})) {
            EXPECT_EQ(arena->in_use_count(), live);
          }
          if (cycle == 0) arena->reset();
        }
        has_failed = testing::FailingNew::has_failed();
      }
      EXPECT_EQ(arena->validate(), "");
      for (const Block& block : blocks)
        EXPECT_TRUE(arena->deallocate(block));
      testing::expect_all_accounted_for(*arena);
    }
  }
}

TEST(ArenaFailure, ABatchWithoutMemoryForItsRecordsLeavesNothing) {
  constexpr std::size_t live = 31;  // one less than there are records at first
  const std::vector<Request> batch(4, Request{.bytes = 1000});
  bool has_failed = true;
  for (int n = 1; has_failed; ++n) {
    const auto device = make<SimulatedDevice>();
    const auto arena = make<Arena>(device);
    for (std::size_t i = 0; i < live; ++i)
      static_cast<void>(arena->allocate(1000));
    std::vector<Block> blocks(batch.size());
    bool is_granted = false;
    {
      const testing::FailingNew failing(n);
      is_granted = arena->try_allocate_batch(batch, blocks).has_value();
      has_failed = testing::FailingNew::has_failed();
    }
    EXPECT_EQ(is_granted, !has_failed);
    EXPECT_EQ(arena->in_use_count(), has_failed ? live : live + batch.size());
    EXPECT_EQ(device->used(), arena->stats().live_granted.current);
    EXPECT_EQ(arena->validate(), "");
    arena->reset();
    testing::expect_all_accounted_for(*arena);
  }
}

}  // namespace
}  // namespace cistern
