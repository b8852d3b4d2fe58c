// One thread allocates of an arena and resets it, others free what it has granted, read its
// figures and ask for trims. For ThreadSanitizer, and for the accounts afterwards.
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/recorder.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/arena.hpp"
#include "support/arenas.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::CaughtReports;

constexpr unsigned arena_threads = 3;

/// Where blocks wait for whoever frees them.
class Shared {
 public:
  void put(const Block& block) {
    const std::lock_guard lock(mutex_);
    blocks_.push_back(block);
  }
  /// Any of them; the empty block if there is none.
  Block take(testing::Random& random) {
    const std::lock_guard lock(mutex_);
    if (blocks_.empty()) return {};
    std::swap(blocks_[random.below(blocks_.size())], blocks_.back());
    const Block block = blocks_.back();
    blocks_.pop_back();
    return block;
  }
  std::vector<Block> take_all() {
    const std::lock_guard lock(mutex_);
    return std::exchange(blocks_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<Block> blocks_;
};

/// Threads that do `work(random)` until `done`.
template <class Work>
std::vector<std::thread> others(const std::atomic<bool>& done, std::uint64_t seed, Work work) {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < arena_threads; ++i) {
    threads.emplace_back([&done, work, seed, i] {
      testing::Random random(seed * 100 + i);
      while (!done) {
        work(random);
        std::this_thread::yield();
      }
    });
  }
  return threads;
}

class ArenaRace : public testing::EveryArena {};
CISTERN_INSTANTIATE_EVERY_ARENA(ArenaRace);

TEST_P(ArenaRace, FreesElsewhereFiguresAndTrimsWhileTheOwnerGoesOn) {
  const CaughtReports reports;
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  const Ref<Arena> arena = make_arena({.warn_cycles = unbounded, .warn_bytes = unbounded});
  Shared shared;
  std::atomic<bool> done{false};
  std::atomic<std::size_t> freed{0};
  std::vector<std::thread> threads = others(done, seed, [&](testing::Random& random) {
    const Block block = shared.take(random);
    if (!block.empty() && arena->deallocate(block)) ++freed;
    const Stats stats = arena->stats();
    EXPECT_LE(stats.live_blocks.current, 10'000U);
    EXPECT_LE(stats.live_granted.current, 1_GiB);
    EXPECT_LE(stats.cached.current, 1_GiB);
    if (random.chance(1)) arena->trim(random.size(18));
    static_cast<void>(arena->trimmable());
    static_cast<void>(arena->is_live(block));
  });
  testing::Random random(seed);
  std::size_t granted = 0;
  std::size_t kept = 0;
  for (int cycle = 0; cycle < 200; ++cycle) {
    for (int i = 0; i < 30; ++i) {
      const Block block = arena->allocate(random.size(14));
      ++granted;
      if (random.chance(60)) {
        shared.put(block);
      } else if (random.chance(30)) {
        EXPECT_TRUE(arena->deallocate(block));
        ++freed;
      } else {
        ++kept;
      }
    }
    while (!shared.take(random).empty())  // those that are left are the reset's
      ++kept;
    freed += arena->reset();
  }
  done = true;
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(arena->validate(), "");
  EXPECT_EQ(arena->stats().allocations, granted);
  EXPECT_EQ(arena->reset(), 0U);
  EXPECT_EQ(freed, granted);
  testing::expect_all_accounted_for(*arena);
}

// Whoever frees comes before the reset, and is heard, or after it, and is refused: the block comes
// back once.
TEST_P(ArenaRace, AFreeThatMeetsAResetEndsItsBlockOnce) {
  const CaughtReports reports;
  const std::uint64_t seed = testing::seed_or(2);
  SCOPED_TRACE(testing::replay_hint(seed));
  const Ref<Arena> arena =
      make_arena({.chunk = 4_KiB, .warn_cycles = unbounded, .warn_bytes = unbounded});
  Shared shared;
  std::atomic<bool> done{false};
  std::atomic<std::size_t> freed{0};
  std::vector<std::thread> threads = others(done, seed, [&](testing::Random& random) {
    const Block block = shared.take(random);
    if (!block.empty() && arena->deallocate(block)) ++freed;
  });
  std::size_t granted = 0;
  std::size_t held = 0;
  for (std::size_t cycle = 0; cycle < 1500; ++cycle) {
    for (std::size_t i = 0; i < 4 + cycle % 50 / 10; ++i) {
      shared.put(arena->allocate(i % 2 == 0 ? 500 : 5000));
      ++granted;
    }
    shared.put(arena->allocate_held(Request{.bytes = 700}));
    ++granted;
    ++held;
    freed += arena->reset();
    EXPECT_EQ(arena->validate(), "");
  }
  done = true;
  for (std::thread& thread : threads)
    thread.join();
  for (const Block& block : shared.take_all())
    freed += arena->deallocate(block) ? 1U : 0U;
  freed += arena->reset();
  EXPECT_EQ(freed, granted);
  EXPECT_EQ(arena->in_use_count(), 0U);
  EXPECT_EQ(arena->stats().frees, granted);
  testing::expect_all_accounted_for(*arena);
}

TEST(ArenaRaceWithRecorder, AFreeThatMeetsAResetEndsItsBlockOnce) {
  const CaughtReports reports;
  const auto arena = make<Arena>(make<SimulatedDevice>(), Arena::Options{.warn_cycles = unbounded});
  const auto stack = make<Recorder>(arena, "/dev/null");
  Shared shared;
  std::atomic<bool> done{false};
  std::vector<std::thread> threads = others(done, 3, [&](testing::Random& random) {
    const Block block = shared.take(random);
    if (!block.empty()) stack->deallocate(block);
  });
  for (int cycle = 0; cycle < 500; ++cycle) {
    for (int i = 0; i < 6; ++i)
      shared.put(stack->allocate(1000));
    stack->reset();
  }
  done = true;
  for (std::thread& thread : threads)
    thread.join();
  for (const Block& block : shared.take_all())
    stack->deallocate(block);
  EXPECT_EQ(stack->stats().live_blocks.current, 0U);
  testing::expect_all_accounted_for(*stack);
}

TEST(ArenaRaceAtTheEnd, TheLastBlocksOfAClosedArenaMayBeFreedByAnyThread) {
  const CaughtReports reports;
  for (int round = 0; round < 200; ++round) {
    const auto device = make<SimulatedDevice>();
    Ref<Arena> arena = make<Arena>(device, Arena::Options{.chunk = 8_KiB});
    Arena* const closed = arena.get();
    std::vector<Block> blocks;
    for (unsigned i = 0; i < 2 * arena_threads; ++i)
      blocks.push_back(arena->allocate(i % 2 == 0 ? 1000 : 100'000));
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < arena_threads; ++i) {
      threads.emplace_back([&, i] {
        EXPECT_TRUE(closed->deallocate(blocks[2 * i]));
        EXPECT_TRUE(closed->deallocate(blocks[2 * i + 1]));
      });
    }
    arena = {};
    for (std::thread& thread : threads)
      thread.join();
    EXPECT_EQ(device->used(), 0U);
  }
}

TEST(ArenaRaceOfOwners, AnArenaGoesFromThreadToThread) {
  const auto arena = make<Arena>(make<HostDevice>(), Arena::Options{.chunk = 64_KiB});
  arena->check_owner(true);
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < arena_threads; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 200; ++turn) {
        const std::lock_guard lock(mutex);
        for (int block = 0; block < 5; ++block)
          EXPECT_TRUE(arena->try_allocate({.bytes = 10'000}));
        EXPECT_EQ(arena->reset(), 5U);
        arena->hand_over();
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(arena->stats().allocations, 5U * 200 * arena_threads);
  EXPECT_EQ(arena->validate(), "");
}

}  // namespace
}  // namespace cistern
