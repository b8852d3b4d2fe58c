// Threads on one fallback: blocks freed by other threads than took them, trims meanwhile.
#include <array>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/stack/stack.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;

TEST(FallbackRace, BlocksFindTheirWayHome) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  const Stack stack =
      open("fallback(limit(1MiB) > cache > host, fallback(limit(1MiB) > host, host))");
  std::mutex mutex;
  std::array<std::optional<Block>, 64> slots;
  std::vector<std::thread> threads;
  for (unsigned index = 0; index < 4; ++index) {
    threads.emplace_back([&, index] {
      testing::Random random(seed * 100 + index);
      for (int step = 0; step < 4000; ++step) {
        std::optional<Block> block = stack->allocate(random.size(18));
        auto* bytes = static_cast<unsigned char*>(block->memory);
        bytes[0] = bytes[block->bytes - 1] = static_cast<unsigned char>(block->generation);
        {
          const std::lock_guard lock(mutex);
          std::swap(slots[random.below(slots.size())], block);
        }
        if (block) {
          bytes = static_cast<unsigned char*>(block->memory);
          EXPECT_EQ(bytes[0], static_cast<unsigned char>(block->generation));
          EXPECT_EQ(bytes[block->bytes - 1], static_cast<unsigned char>(block->generation));
          EXPECT_TRUE(stack->deallocate(*block));
        }
        if (random.chance(1)) stack->trim(random.size(20));
        if (random.chance(1)) {
          EXPECT_GE(stack->stats().reserved.peak, stack->stats().spilled.current);
        }
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_EQ(stack->validate(), "");
  EXPECT_GT(stack->stats().spilled.peak, 0U);
  for (const std::optional<Block>& block : slots) {
    if (block) stack->deallocate(*block);
  }
  testing::expect_all_accounted_for(*stack);
}

}  // namespace
}  // namespace cistern
