#include "cistern/stack/stack.hpp"

#include <array>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/stack/pmr.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"
#include "support/threads.hpp"

namespace cistern {
namespace {

using testing::on_threads;

/// Threads allocate, and free what others allocated: a slot holds a pointer that whoever swaps it
/// out frees.
TEST(ConcurrentPmrResource, FreesWhatOtherThreadsAllocated) {
  const Stack stack = open("cache > host");
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  constexpr std::size_t bytes = 1000;
  {
    PmrResource memory(stack.resource());
    std::array<std::atomic<void*>, 64> slots{};
    on_threads(4, [&](unsigned thread) {
      testing::Random random(seed + thread);
      for (int i = 0; i < 10'000; ++i) {
        auto* mine = static_cast<unsigned char*>(memory.allocate(bytes));
        mine[0] = mine[bytes - 1] = static_cast<unsigned char>(thread);
        void* theirs = slots[random.below(slots.size())].exchange(mine);
        if (theirs != nullptr) memory.deallocate(theirs, bytes);
      }
    });
    for (std::atomic<void*>& slot : slots) {
      if (slot != nullptr) memory.deallocate(slot, bytes);
    }
    EXPECT_EQ(stack->stats().allocations, 40'000U);
    EXPECT_EQ(stack->stats().frees, 40'000U);
  }
  testing::expect_all_accounted_for(*stack);
}

TEST(ConcurrentPmrResource, ServesContainersOfSeveralThreads) {
  const Stack stack = open("limit(256MiB) > cache > host");
  {
    PmrResource memory(stack.resource());
    on_threads(4, [&](unsigned thread) {
      for (int turn = 0; turn < 20; ++turn) {
        std::pmr::vector<std::pmr::vector<unsigned>> rows(&memory);
        for (unsigned i = 0; i < 100; ++i)
          rows.emplace_back(i, thread);
        for (const auto& row : rows) {
          for (const unsigned value : row)
            ASSERT_EQ(value, thread);
        }
      }
    });
  }
  testing::expect_all_accounted_for(*stack);
}

TEST(ConcurrentDefaultResource, IsTheSameForAll) {
  std::array<Resource*, 4> seen{};
  on_threads(4, [&](unsigned thread) {
    seen[thread] = &default_resource();
    const Buffer buffer(default_resource(), 1000);
  });
  for (const Resource* each : seen)
    EXPECT_EQ(each, seen[0]);
}

TEST(ConcurrentOpen, StacksOpenAndCloseOnAnyThread) {
  const Stack shared = open("cache > host");
  const Bindings bindings = {{"shared", shared.resource()}};
  on_threads(4, [&](unsigned) {
    for (int i = 0; i < 200; ++i) {
      const Stack stack = open("limit(1MiB) > mlx > shared", bindings);
      const Buffer buffer = stack.buffer(1000);
      EXPECT_FALSE(try_open("limit(1MiB > shared", bindings));
    }
  });
  testing::expect_all_accounted_for(*shared);
}

}  // namespace
}  // namespace cistern
