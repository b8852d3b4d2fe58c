// Threads that come and go and keep blocks of one cache for themselves, while others trim it, read
// it, change its bounds and free what they took. CISTERN_STRESS_SECONDS makes it a soak.
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/exchange.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"
#include "support/stress.hpp"
#include "support/threads.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Exchange;
using testing::on_threads;

class MagazineRace : public ::testing::TestWithParam<unsigned> {};

TEST_P(MagazineRace, TheBoundHoldsWhateverThreadsKeep) {
  constexpr std::size_t bound = 1_MiB;
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  const auto device = make<SimulatedDevice>();
  const Ref<Cache> cache =
      make<Cache>(device, Cache::Options{.max_bytes = bound, .idle_ratio = Cache::no_ratio});
  const auto end =
      std::chrono::steady_clock::now() + testing::stress_time_or(std::chrono::milliseconds(300));
  std::atomic<bool> done{false};
  std::thread watcher([&] {
    while (!done)
      EXPECT_LE(cache->stats().cached.current, bound);
  });
  Exchange exchange;
  std::atomic<std::uint64_t> lives{0};
  on_threads(GetParam(), [&](unsigned) {
    while (std::chrono::steady_clock::now() < end) {
      // A life of a thread within one: what it keeps comes back when it ends.
      std::thread([&, life = lives++] {
        testing::Random random(seed * 1000 + life);
        for (int step = 0; step < 400; ++step) {
          std::optional<Block> mine;
          if (random.chance(60)) mine = cache->allocate({.bytes = random.size(16)});
          const std::optional<Block> other = exchange.swap(random.below(64), mine);
          EXPECT_TRUE(!other || cache->deallocate(*other));
          const Block own = cache->allocate({.bytes = random.size(16)});
          EXPECT_TRUE(cache->deallocate(own));
          if (random.below(1000) == 0) cache->trim(random.size(20));
          if (random.below(1000) == 0) cache->set_idle_ratio(random.chance(50) ? 0.1 : 100);
        }
      }).join();
    }
  });
  done = true;
  watcher.join();
  EXPECT_EQ(cache->validate(), "");
  EXPECT_LE(cache->stats().cached.peak, bound);
  for (std::size_t slot = 0; slot < exchange.size(); ++slot) {
    if (const std::optional<Block> block = exchange.swap(slot, {})) cache->deallocate(*block);
  }
  EXPECT_LE(device->used(), bound);
  testing::expect_all_accounted_for(*cache);
}

INSTANTIATE_TEST_SUITE_P(Threads, MagazineRace, ::testing::Values(2U, 4U, 16U));

// Whoever reads while all rest reads exact figures.
TEST(MagazineRaceAtRest, FiguresAreExact) {
  const Ref<Cache> cache = make<Cache>(make<SimulatedDevice>());
  constexpr unsigned threads = 4;
  constexpr std::uint64_t pairs = 10000;
  on_threads(threads, [&](unsigned index) {
    for (std::uint64_t i = 0; i < pairs; ++i)
      cache->deallocate(cache->allocate(1_KiB << index));
  });
  const Stats stats = cache->stats();
  EXPECT_EQ(stats.allocations, threads * pairs);
  EXPECT_EQ(stats.frees, threads * pairs);
  EXPECT_EQ(stats.hits + stats.misses, threads * pairs);
  EXPECT_EQ(stats.live_blocks.current, 0U);
  EXPECT_EQ(stats.cached.current, stats.reserved.current);
  testing::expect_all_accounted_for(*cache);
}

}  // namespace
}  // namespace cistern
