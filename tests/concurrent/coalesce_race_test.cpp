// Four threads on one coalescing pool: blocks freed by other threads than took them, growth in
// place, trims and bounds that change meanwhile. For ThreadSanitizer, and for the accounts
// afterwards.
#include <atomic>
#include <optional>
#include <thread>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/size.hpp"
#include "support/coalesces.hpp"
#include "support/exchange.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/returns.hpp"
#include "support/seed.hpp"
#include "support/spy.hpp"
#include "support/threads.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Exchange;
using testing::on_threads;

constexpr unsigned coalesce_threads = 4;
constexpr int coalesce_steps = 1500;

class CoalesceRace : public testing::EveryCoalesce {};
CISTERN_INSTANTIATE_EVERY_COALESCE(CoalesceRace);

TEST_P(CoalesceRace, AllocationsFreesElsewhereTrimsAndBounds) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  const Ref<Coalesce> pool = make_pool();
  const bool is_writable = pool->device().limits().host_addressable;
  Exchange exchange;
  on_threads(coalesce_threads, [&](unsigned index) {
    testing::Random random(seed * 100 + index);
    for (int step = 0; step < coalesce_steps; ++step) {
      std::optional<Block> mine;
      if (random.chance(70)) {
        mine = pool->allocate({.bytes = random.size(16), .stream = {.id = index}});
        if (random.chance(10)) {
          EXPECT_TRUE(pool->also_used_on(*mine, {.id = index + 1}));
        }
        if (random.chance(10)) {
          if (const auto grown = pool->try_grow(*mine, mine->bytes + 512)) mine = *grown;
        }
        if (is_writable)
          *static_cast<unsigned char*>(mine->memory) = static_cast<unsigned char>(mine->generation);
      }
      const std::optional<Block> other = exchange.swap(random.below(64), mine);
      if (other) {
        if (is_writable) {
          EXPECT_EQ(*static_cast<unsigned char*>(other->memory),
                    static_cast<unsigned char>(other->generation));
        }
        EXPECT_TRUE(pool->deallocate(*other, {.id = index}));
      }
      if (random.chance(1)) pool->trim(random.size(20));
      if (random.chance(1)) pool->set_max_idle(random.size(22));
      if (random.chance(1)) pool->set_idle_ratio(static_cast<double>(random.below(100)) / 100);
      if (random.chance(1)) {
        EXPECT_LE(pool->largest_hole(), 16_GiB);
      }
      if (random.chance(1)) {
        EXPECT_LE(pool->outstanding().blocks, 68U);
      }
      if (random.chance(1)) static_cast<void>(pool->largest_allocatable());
      if (random.chance(1)) static_cast<void>(pool->buckets());
    }
  });
  EXPECT_EQ(pool->validate(), "");
  for (std::size_t slot = 0; slot < exchange.size(); ++slot) {
    if (const std::optional<Block> block = exchange.swap(slot, {})) pool->deallocate(*block);
  }
  testing::expect_all_accounted_for(*pool);
}

TEST_P(CoalesceRace, UnderALimitThatIsTooLowEverythingIsAccountedFor) {
  const auto limit = make<Limit>(make_device(), 600_KiB);
  const auto pool = make<Coalesce>(limit, options());
  on_threads(coalesce_threads, [&](unsigned index) {
    testing::Random random(index);
    for (int step = 0; step < coalesce_steps; ++step) {
      const Stream stream{.id = index % 2};
      const Expected<Block> block =
          pool->try_allocate({.bytes = random.size(18), .stream = stream});
      if (block) pool->deallocate(*block, stream);
    }
  });
  EXPECT_EQ(pool->validate(), "");
  EXPECT_LE(limit->stats().live_requested.peak, 600_KiB);
  testing::expect_all_accounted_for(*pool);
}

TEST_P(CoalesceRace, TheLastBlocksOfAClosedStackMayBeFreedByAnyThread) {
  const testing::CaughtReports reports;
  for (int round = 0; round < 30; ++round) {
    const Ref<Resource> device = make_device();
    Ref<Resource> stack = make<Limit>(make<Coalesce>(device, options()), 1_GiB);
    Resource* const open = stack.get();
    std::vector<Block> blocks;
    for (unsigned i = 0; i < 4 * coalesce_threads; ++i)
      blocks.push_back(stack->allocate({.bytes = 100'000, .stream = {.id = i}}));
    stack->deallocate(stack->allocate(1_KiB));
    on_threads(coalesce_threads, [&](unsigned index) {
      if (index == 0) stack = {};  // closed while the others free
      for (unsigned i = 0; i < 4; ++i)
        open->deallocate(blocks[index * 4 + i], {.id = i});
    });
    EXPECT_EQ(device->stats().reserved.current, 0U);
  }
}

TEST(CoalesceRaceWithReturns, ARequestWaitsForMemoryThatIsOnItsWayBack) {
  const auto limit = make<Limit>(make<SimulatedDevice>(), 4_MiB);
  const auto spy = make<testing::Spy>(limit);
  const auto pool =
      make<Coalesce>(spy, Coalesce::Options{.classes = {{}}, .idle_ratio = Coalesce::no_ratio});
  std::vector<Block> blocks;
  for (int i = 0; i < 4; ++i)
    blocks.push_back(pool->allocate(1_MiB));
  for (const Block& block : blocks)
    pool->deallocate(block);
  std::atomic<bool> leaving{false};
  spy->before_free = [&](const Block&) {
    leaving = true;
    while (limit->stats().failures == 0)  // until the request below was refused once
      std::this_thread::yield();
  };
  std::thread trimming([&] { pool->trim(); });
  while (!leaving)
    std::this_thread::yield();
  const Expected<Block> block = pool->try_allocate({.bytes = 2_MiB});
  EXPECT_TRUE(block) << "nothing is live, and all of 4 MiB is on its way back";
  trimming.join();
  if (block) pool->deallocate(*block);
  EXPECT_EQ(pool->stats().failures, 0U);
  testing::expect_all_accounted_for(*pool);
}

TEST(CoalesceRaceWithReturns, ARequestMissesNothingThatHasComeBackMeanwhile) {
  const auto spy = make<testing::Spy>(make<SimulatedDevice>());
  const auto pool =
      make<Coalesce>(spy, Coalesce::Options{.classes = {{}}, .idle_ratio = Coalesce::no_ratio});
  testing::expect_nothing_missed(*spy, *pool, 4_MiB);
}

}  // namespace
}  // namespace cistern
