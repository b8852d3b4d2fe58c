// Recovery among threads: requests that fail and are recovered, pools that are trimmed by one
// thread while others allocate from them and close them, callbacks that come and go while they run.
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/adaptor/retry.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/devices.hpp"
#include "support/hoards.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using namespace std::chrono_literals;
using testing::device_of;
using testing::unbounded_cache;

Ref<Retry> patient(const Ref<Resource>& upstream) {
  return make<Retry>(upstream, Retry::Options{.attempts = 3, .window = 1000s});
}

/// Allocates and frees at random, some 200 KiB at most at any time.
void work(Resource& resource, testing::Random& random, int steps) {
  std::array<std::optional<Block>, 8> held;
  for (int step = 0; step < steps; ++step) {
    std::optional<Block>& slot = held[random.below(held.size())];
    if (slot) {
      resource.deallocate(*slot);
      slot.reset();
    } else if (const auto block = resource.try_allocate({.bytes = random.size(14)})) {
      slot = *block;
    }
    if (random.chance(1)) static_cast<void>(resource.largest_allocatable());
  }
  for (const std::optional<Block>& block : held) {
    if (block) resource.deallocate(*block);
  }
}

TEST(RecoveryRace, NeighboursTrimOneAnotherWhileTheyAllocateAndClose) {
  const testing::CaughtReports reports;
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  const auto device = device_of(4_MiB);
  // Whoever comes first has someone to rob, even if the threads happen to run one by one.
  Ref<Cache> hoarder = unbounded_cache(device);
  hoarder->deallocate(hoarder->allocate(4_MiB));
  std::atomic<std::uint64_t> recovered{0};
  std::vector<std::thread> threads;
  for (unsigned index = 0; index < 4; ++index) {
    threads.emplace_back([&, index] {
      testing::Random random(seed * 100 + index);
      for (int life = 0; life < 200; ++life) {
        const Ref<Retry> stack = patient(index % 2 == 0 ? unbounded_cache(device)
                                                        : unbounded_cache(unbounded_cache(device)));
        // What it hoards is beyond what fits beside the others.
        const Expected<Block> large = stack->try_allocate({.bytes = 1_MiB + 512_KiB});
        if (large) stack->deallocate(*large);
        work(*stack, random, 100);
        const Expected<Block> last = stack->try_allocate({.bytes = 1_KiB});
        if (last) stack->deallocate(*last);
        recovered += stack->recoveries().recovered;
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  hoarder = {};
  EXPECT_EQ(device->registry().size(), 0U);
  EXPECT_EQ(device->validate(), "");
  EXPECT_EQ(device->used(), 0U);
  EXPECT_TRUE(reports.all().empty());
  EXPECT_GT(recovered, 0U);
}

TEST(RecoveryRace, RequestsThatFitAreMetWhileOthersHoard) {
  // Each thread's working set fits at any time; only what is idle elsewhere stands in the way.
  const std::uint64_t seed = testing::seed_or(2);
  SCOPED_TRACE(testing::replay_hint(seed));
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 64_MiB});
  std::array<Ref<Retry>, 4> stacks;
  for (Ref<Retry>& stack : stacks)
    stack = make<Retry>(unbounded_cache(device), Retry::Options{.attempts = 50, .window = 1000s});
  std::vector<std::thread> threads;
  for (unsigned index = 0; index < stacks.size(); ++index) {
    threads.emplace_back([&, index] {
      testing::Random random(seed * 100 + index);
      for (int turn = 0; turn < 3000; ++turn) {
        const std::size_t bytes = 1_MiB * (1 + random.below(8));
        const Expected<Block> block = stacks[index]->try_allocate({.bytes = bytes});
        ASSERT_TRUE(block);
        stacks[index]->deallocate(*block);
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  for (const Ref<Retry>& stack : stacks) {
    EXPECT_EQ(stack->stats().failures, 0U);
    stack->trim();
  }
  EXPECT_EQ(device->used(), 0U);
}

TEST(RecoveryRace, CallbacksComeAndGoAllocateAndFreeWhileTheyRun) {
  const std::uint64_t seed = testing::seed_or(3);
  SCOPED_TRACE(testing::replay_hint(seed));
  const auto device = device_of(4_MiB);
  const Ref<Retry> stack = patient(make<Limit>(unbounded_cache(device), 1_MiB));
  const Ref<Cache> hoarder = unbounded_cache(device);

  // What the callbacks can spill.
  std::mutex mutex;
  std::vector<Block> spillable;
  const auto spill = [&](std::size_t missing) {
    std::vector<Block> spilled;
    {
      const std::lock_guard lock(mutex);
      spilled.swap(spillable);
    }
    std::size_t bytes = 0;
    for (const Block& block : spilled) {
      bytes += block.requested;
      stack->deallocate(block);
    }
    if (const auto nested = stack->try_allocate({.bytes = missing / 2 + 1}))
      stack->deallocate(*nested);
    return bytes;
  };

  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (unsigned index = 0; index < 2; ++index) {
    threads.emplace_back([&, index] {
      testing::Random random(seed * 100 + index);
      for (int step = 0; step < 5000; ++step) {
        if (const auto block = stack->try_allocate({.bytes = random.size(17)})) {
          const std::lock_guard lock(mutex);
          spillable.push_back(*block);
        }
      }
      over = true;
    });
  }
  threads.emplace_back([&] {
    while (!over) {
      // What the callback refers to ends right after it was removed.
      auto alive = std::make_unique<std::atomic<bool>>(true);
      const std::uint64_t token =
          stack->add_callback([&alive = *alive, &spill](std::size_t missing) {
            EXPECT_TRUE(alive);
            const std::size_t bytes = spill(missing);
            EXPECT_TRUE(alive);
            return bytes;
          });
      std::this_thread::yield();
      EXPECT_TRUE(stack->remove_callback(token));
      *alive = false;
    }
  });
  threads.emplace_back([&] {
    while (!over) {  // one that removes itself, or is removed
      // Shared: a callback that removed itself may still be running.
      const auto token = std::make_shared<std::atomic<std::uint64_t>>(0);
      *token = stack->add_callback([token, &stack](std::size_t) {
        if (const std::uint64_t own = token->exchange(0); own != 0) stack->remove_callback(own);
        return 1;
      });
      std::this_thread::yield();
      if (const std::uint64_t left = token->exchange(0); left != 0) {
        EXPECT_TRUE(stack->remove_callback(left));
      }
    }
  });
  threads.emplace_back([&] {
    testing::Random random(seed * 100 + 9);
    while (!over) {
      work(*hoarder, random, 50);
      stack->trim(random.below(1_MiB));
      static_cast<void>(stack->stats());
      static_cast<void>(stack->recoveries());
    }
  });
  for (std::thread& thread : threads)
    thread.join();
  for (const Block& block : spillable)
    stack->deallocate(block);
  hoarder->trim();
  testing::expect_all_accounted_for(*stack);
  EXPECT_GT(stack->recoveries().requests, 0U);
}

TEST(RecoveryRace, AStackThatPassesBlocksThroughEndsWithTheLastOfThem) {
  const testing::CaughtReports reports;
  for (int life = 0; life < 100; ++life) {
    const auto device = device_of(4_MiB);
    Ref<Retry> stack = patient(patient(unbounded_cache(device)));
    Retry* const closed = stack.get();
    std::array<Block, 4> blocks;
    for (Block& block : blocks)
      block = stack->allocate(64_KiB);
    std::vector<std::thread> threads;
    threads.emplace_back([&] { device->registry().trim(unbounded); });
    for (const Block& block : blocks)
      threads.emplace_back([&] { closed->deallocate(block); });
    stack = {};
    for (std::thread& thread : threads)
      thread.join();
    ASSERT_EQ(device->used(), 0U);
  }
}

}  // namespace
}  // namespace cistern
