// What the arena that learns promises, statement by statement.
#include "cistern/pool/planned.hpp"

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/core/buffer.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/plan/plan.hpp"
#include "cistern/pool/cache.hpp"
#include "support/cycles.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/spy.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::allocates;
using testing::frees;
using testing::frees_of_turn_before;
using ::testing::HasSubstr;
using testing::Loop;
using testing::Turn;

constexpr std::size_t granule = 512;  // of the simulated device

Ref<Planned> make_planned() {
  const Ref<Planned> pool = make<Planned>(make<SimulatedDevice>());
  pool->check_owner(false);
  return pool;
}

const Turn& some_turn() {
  static const Turn turn = testing::token({1000, 5000, 300, 70'000, 1});
  return turn;
}

/// The share of the requests, from now on, that came of a plan.
class Served {
 public:
  explicit Served(const Planned& pool) : pool_(pool), at_first_(pool.counts()) {}
  [[nodiscard]] double share() const {
    const auto served = static_cast<double>(pool_.counts().served - at_first_.served);
    const auto passed_on = static_cast<double>(pool_.counts().passed_on - at_first_.passed_on);
    return served / (served + passed_on);
  }

 private:
  const Planned& pool_;
  const Planned::Counts at_first_;
};

// --- What is learned. ---

TEST(Planned, NeedsAnUpstream) {
  EXPECT_THROW(make<Planned>(Ref<Resource>()), std::invalid_argument);
}

TEST(Planned, LearnsACycleThatRepeats) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 2);
  EXPECT_EQ(pool->counts().plans, 1U);
  EXPECT_EQ(pool->counts().served, 0U);
  EXPECT_EQ(pool->counts().passed_on, 10U);
  EXPECT_TRUE(pool->is_served_from_plan());
  loop.cycles(some_turn(), 98);
  EXPECT_EQ(pool->counts().plans, 1U);
  EXPECT_EQ(pool->counts().served, 490U);
  EXPECT_EQ(pool->counts().passed_on, 10U);
  EXPECT_EQ(pool->counts().deviations, 0U);
  EXPECT_EQ(pool->stats().hits, 490U);
  EXPECT_EQ(pool->stats().misses, 10U);
  EXPECT_EQ(pool->stats().allocations, 500U);
  EXPECT_EQ(pool->stats().frees, 500U);
  EXPECT_EQ(pool->stats().device_allocations, 11U);
}

TEST(Planned, CountsAsItGoes) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 2);
  const Block first = pool->allocate(1000);
  const Block second = pool->allocate(5000);
  EXPECT_EQ(pool->counts().served, 2U);
  EXPECT_EQ(pool->stats().live_requested.current, 6000U);
  EXPECT_EQ(pool->stats().live_granted.current, 1024U + 5120U);
  EXPECT_EQ(pool->stats().cached.current, pool->slab_bytes() - 6144U);
  EXPECT_EQ(pool->outstanding().blocks, 2U);
  pool->deallocate(first);
  pool->deallocate(second);
  EXPECT_EQ(pool->counts().served, 2U);
  EXPECT_EQ(pool->stats().live_granted.current, 0U);
}

TEST(Planned, LearnsCyclesThatAResetEnds) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  const Turn turn = {allocates(1000), allocates(2000), frees(0), allocates(3000), allocates(4000)};
  loop.reset(turn);
  loop.reset(turn);
  const std::vector<void*> places = loop.reset(turn);
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(loop.reset(turn), places);
  EXPECT_EQ(pool->counts().served, 84U);
  EXPECT_EQ(pool->counts().deviations, 0U);
  EXPECT_EQ(pool->slab_bytes(), 2048U + 3072U + 4096U);  // the third lies where the first was
  EXPECT_EQ(pool->stats().live_blocks.current, 0U);
  EXPECT_EQ(pool->stats().frees, 92U);
}

TEST(Planned, LearnsCyclesOfBuffers) {
  for (const bool ends_by_reset : {false, true}) {
    const Ref<Planned> pool = make<Planned>(make<HostDevice>());
    pool->check_owner(false);
    std::set<void*> places;
    for (int i = 0; i < 50; ++i) {
      const Buffer outer(*pool, 1000);
      for (const std::size_t bytes : {200U, 300U, 400U}) {
        const Buffer inner(*pool, bytes);
        if (i >= 3) places.insert(inner.data());
      }
      Buffer last(*pool, 5000);
      last.reset();
      Buffer moved = Buffer(*pool, 1);
      moved.reset();
      EXPECT_EQ(pool->validate(), "");
      // What is still live is `outer`, which comes back in the next cycle.
      ends_by_reset ? static_cast<void>(pool->reset()) : pool->cycle();
    }
    EXPECT_EQ(pool->counts().served, 6U * 47);
    EXPECT_EQ(places.size(), 1U);
    testing::expect_all_accounted_for(*pool);
  }
}

TEST(Planned, ABufferThatAResetFindsIsKept) {
  const Ref<Planned> pool = make_planned();
  const auto turn = [&] {
    std::vector<Block> blocks;
    blocks.reserve(3);
    for (const std::size_t bytes : {1000U, 2000U, 3000U})
      blocks.push_back(pool->allocate_held({.bytes = bytes}));
    for (const Block& block : blocks)
      pool->deallocate(block);
  };
  for (int i = 0; i < 4; ++i) {
    turn();
    pool->reset();
  }
  ASSERT_TRUE(pool->is_served_from_plan());
  Buffer kept(*pool, 1000);
  const Block other = pool->allocate(2000);
  EXPECT_EQ(pool->counts().passed_on, 6U);
  EXPECT_EQ(pool->reset(), 1U);
  EXPECT_EQ(pool->validate(), "");
  EXPECT_TRUE(pool->is_live(kept.block()));
  EXPECT_FALSE(pool->is_live(other));
  EXPECT_EQ(pool->stats().live_requested.current, 1000U);
  EXPECT_EQ(pool->outstanding().blocks, 1U);
  const Block next = pool->allocate(1000);
  EXPECT_NE(next.memory, kept.data());  // which is in its way
  pool->deallocate(next);
  kept.reset();
  EXPECT_EQ(pool->reset(), 0U);
  EXPECT_TRUE(pool->is_served_from_plan());
}

TEST(Planned, ABufferThatIsInTheWayIsADeviation) {
  const Ref<Planned> pool = make_planned();
  Buffer kept;
  for (int i = 0; i < 6; ++i) {
    Buffer first(*pool, 1000);
    pool->deallocate(pool->allocate(2000));
    if (i == 3) kept = std::move(first);
    if (i == 4) kept.reset();
    first.reset();
    pool->reset();
  }
  // In one the buffer was not freed, and it lay in the way of the next.
  EXPECT_EQ(pool->counts().deviations, 2U);
}

TEST(Planned, TheSlabIsThePlannersPeak) {
  const Turn turn = testing::training(12, 5);
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(turn, 3);
  std::vector<Lifetime> lives;
  std::uint64_t now = 0;
  for (const testing::Event& event : turn) {
    ++now;
    if (event.kind == testing::Event::Kind::allocate) {
      const std::size_t bytes = (event.request.bytes + granule - 1) / granule * granule;
      lives.push_back({.lower = now, .bytes = bytes, .alignment = granule});
    } else {
      lives[event.number].upper = now;
    }
  }
  EXPECT_EQ(pool->slab_bytes(), make_plan(lives, {.steps = 200'000}).peak_bytes);
}

TEST(Planned, LearnsStreamsAndAlignments) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  Turn turn = testing::token({1000, 2000, 3000});
  turn[1].request.alignment = 4096;
  turn[2].request.stream.id = 7;
  loop.cycles(turn, 2);
  const std::vector<void*> places = loop.cycle(turn);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(places[1]) % 4096, 0U);
  EXPECT_EQ(loop.cycle(turn), places);
  EXPECT_EQ(pool->counts().served, 6U);
  EXPECT_EQ(pool->counts().deviations, 0U);
  Turn other = turn;
  other[2].request.stream.id = 8;
  loop.cycle(other);  // two cycles that differ in a stream, or in an alignment, are not alike
  loop.cycle(turn);
  other = turn;
  other[1].request.alignment = 8192;
  loop.cycle(other);
  EXPECT_EQ(pool->counts().plans, 1U);
  EXPECT_EQ(pool->counts().deviations, 2U);
  EXPECT_TRUE(pool->is_served_from_plan());
}

TEST(Planned, ABlockOfAnotherStreamIsNotServed) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(testing::token({1000, 2000}), 2);
  const Block block = *pool->try_allocate({.bytes = 1000, .stream = {.id = 3}});
  EXPECT_EQ(pool->counts().served, 0U);
  EXPECT_EQ(pool->stats().misses, 5U);
  pool->deallocate(block);
}

TEST(Planned, ALargerAlignmentIsGivenOrPassedOn) {
  const Ref<Planned> pool =
      make<Planned>(make<SimulatedDevice>(SimulatedDevice::Options{.alignment = 64}));
  Loop loop(*pool);
  loop.cycles(testing::token({1000, 2000}), 2);
  for (const std::size_t alignment : {std::size_t{128}, std::size_t{512}, std::size_t{1} << 20U}) {
    const Block first = *pool->try_allocate({.bytes = 64});
    const Block block = *pool->try_allocate({.bytes = 2000, .alignment = alignment});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.memory) % alignment, 0U);
    pool->deallocate(first);
    pool->deallocate(block);
    pool->cycle();
  }
}

TEST(Planned, PartsAreAsFineAsTheDevicesAlignment) {
  const Ref<Planned> pool = make<Planned>(
      make<SimulatedDevice>(SimulatedDevice::Options{.granularity = 4096, .alignment = 64}));
  Loop loop(*pool);
  loop.cycles(testing::token({100, 200, 300}), 3);
  EXPECT_EQ(pool->slab_bytes(), 4096U);
  const Block block = pool->allocate(100);
  EXPECT_EQ(block.bytes, 128U);
  pool->deallocate(block);
}

TEST(Planned, ZeroBytesAreTheEmptyBlock) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 3);
  const Block empty = pool->allocate(std::size_t{0});
  EXPECT_TRUE(empty.empty());
  EXPECT_TRUE(pool->deallocate(empty));
  EXPECT_TRUE(pool->is_served_from_plan());
  EXPECT_EQ(pool->stats().allocations, 15U);
}

TEST(Planned, SizesThatVaryHaveRoomForAnEighthMore) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycle(testing::token({8192, 16'384}));
  loop.cycle(testing::token({8192, 32'768}));
  EXPECT_EQ(pool->slab_bytes(), 8192U + 32'768U + 4096U);
  const std::size_t before = pool->counts().served;
  loop.cycle(testing::token({8192, 36'864}));
  loop.cycle(testing::token({8192, 1}));
  loop.cycle(testing::token({8192 - granule + 1, 20'000}));
  EXPECT_EQ(pool->counts().served, before + 6);
  EXPECT_EQ(pool->counts().deviations, 0U);
  EXPECT_EQ(pool->counts().plans, 1U);
  loop.cycle(testing::token({8192, 36'865}));  // it has outgrown its place
  EXPECT_EQ(pool->counts().served, before + 7);
  EXPECT_EQ(pool->counts().deviations, 0U);
  EXPECT_EQ(pool->counts().plans, 2U);
  EXPECT_EQ(pool->slab_bytes(), 8192U + (36'865U + 36'865U / 8 + granule - 1) / granule * granule);
  loop.cycle(testing::token({8192, 36'865}));
  EXPECT_EQ(pool->counts().served, before + 9);
}

TEST(Planned, SizesThatDifferWithinAGranuleDoNotVary) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycle(testing::token({granule + 1}));
  loop.cycle(testing::token({2 * granule}));
  EXPECT_EQ(pool->slab_bytes(), 2 * granule);
  loop.cycle(testing::token({granule + 1}));
  EXPECT_EQ(pool->counts().served, 1U);
  loop.cycle(testing::token({granule}));
  loop.cycle(testing::token({2 * granule + 1}));
  EXPECT_EQ(pool->counts().served, 1U);
  EXPECT_EQ(pool->counts().deviations, 2U);
}

TEST(Planned, APlaceDoesNotShrinkWhenAnotherGrows) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  for (int i = 0; i < 20; ++i)
    loop.cycle(testing::token(i % 2 == 0 ? std::vector<std::size_t>{1000, 100'000}
                                         : std::vector<std::size_t>{100'000, 1000}));
  EXPECT_EQ(pool->counts().plans, 1U);
  EXPECT_EQ(pool->counts().passed_on, 4U);
  for (int i = 0; i < 20; ++i)
    loop.cycle(testing::token(i % 2 == 0 ? std::vector<std::size_t>{1000, 200'000}
                                         : std::vector<std::size_t>{200'000, 1000}));
  EXPECT_EQ(pool->counts().plans, 3U);
  EXPECT_EQ(pool->counts().passed_on, 6U);
}

// --- What is promised. ---

TEST(Planned, AddressesRepeat) {
  for (const Turn& turn :
       {testing::token(testing::random_sizes(200, 1)), testing::training(30, 2)}) {
    const Ref<Planned> pool = make_planned();
    Loop loop(*pool);
    loop.cycles(turn, 2);
    const std::vector<void*> places = loop.cycle(turn);
    for (int i = 0; i < 20; ++i)
      ASSERT_EQ(loop.cycle(turn), places);
    EXPECT_EQ(pool->counts().plans, 1U);
  }
}

TEST(Planned, ReservesWhatIsLiveAtMost) {
  const std::vector<std::pair<const char*, Turn>> turns = {
      {"token", testing::token(testing::random_sizes(1750, 1))},
      {"training", testing::training(50, 2)},
      {"deep training", testing::training(300, 3)},
  };
  for (const auto& [name, turn] : turns) {
    SCOPED_TRACE(name);
    const Ref<Planned> pool = make_planned();
    Loop loop(*pool);
    loop.cycles(turn, 3);
    pool->reset_peaks();
    loop.cycles(turn, 20);
    const std::size_t live = testing::peak_live(turn, granule);
    EXPECT_EQ(pool->stats().live_granted.peak, live);
    EXPECT_GE(pool->stats().reserved.peak, live);
    EXPECT_LE(static_cast<double>(pool->stats().reserved.peak), 1.01 * static_cast<double>(live));
    EXPECT_EQ(pool->stats().cached.peak, pool->slab_bytes());
  }
}

TEST(Planned, WhatACacheBelowKeptMakesRoomForTheSlab) {
  const Ref<Planned> pool = make<Planned>(make<Cache>(make<SimulatedDevice>(), Cache::Options{}));
  Loop loop(*pool);
  const Turn turn = testing::token(testing::random_sizes(100, 1));
  loop.cycle(turn);
  const std::size_t reserved = pool->stats().reserved.peak;
  loop.cycles(turn, 5);
  EXPECT_GT(pool->counts().served, 0U);
  EXPECT_LE(pool->stats().reserved.peak, reserved + reserved / 16);
  loop.cycles(testing::token({1000}), 1);  // what is passed on is kept below
  EXPECT_EQ(pool->stats().live_blocks.current, 0U);
}

TEST(Planned, PinnedAddressesAreKeptWhateverDeviates) {
  const Ref<Planned> pool = make_planned();
  EXPECT_FALSE(pool->pin());
  {
    Loop loop(*pool);
    loop.cycles(some_turn(), 2);
    const std::vector<void*> places = loop.cycle(some_turn());
    ASSERT_TRUE(pool->pin());
    pool->trim();
    EXPECT_EQ(loop.cycle(some_turn()), places);
    for (int i = 0; i < 5; ++i) {
      loop.cycles(testing::token({70'000, 3, 200'000}), 3);
      loop.cycle(some_turn());
      pool->trim();
    }
    EXPECT_EQ(loop.cycle(some_turn()), places);
    EXPECT_EQ(pool->counts().plans, 1U);
    pool->trim();
    EXPECT_GT(pool->slab_bytes(), 0U);
    EXPECT_EQ(pool->stats().reserved.current, pool->slab_bytes());
    EXPECT_EQ(pool->trimmable(), 0U);
    pool->unpin();
    EXPECT_EQ(pool->trimmable(), pool->slab_bytes());
    EXPECT_GT(pool->trim(), 0U);
    EXPECT_EQ(pool->stats().reserved.current, 0U);
    EXPECT_FALSE(pool->pin());
    loop.cycles(testing::token({70'000, 3, 200'000}), 3);
    EXPECT_EQ(pool->counts().plans, 2U);
  }
  testing::expect_all_accounted_for(*pool);
}

TEST(Planned, APinnedPlanDoesNotGrow) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycle(testing::token({1000, 10'000}));
  loop.cycle(testing::token({1000, 20'000}));
  const std::vector<void*> places = loop.cycle(testing::token({1000, 20'000}));
  ASSERT_TRUE(pool->pin());
  loop.cycles(testing::token({1000, 40'000}), 3);
  EXPECT_EQ(loop.cycle(testing::token({1000, 20'000})), places);
  EXPECT_EQ(pool->counts().plans, 1U);
}

TEST(Planned, TrimmedItServesAgainInALaterCycle) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 3);
  EXPECT_EQ(pool->trim(), pool->stats().reserved.peak);
  EXPECT_EQ(pool->stats().reserved.current, 0U);
  EXPECT_FALSE(pool->is_served_from_plan());
  loop.cycle(some_turn());
  EXPECT_EQ(pool->counts().served, 5U);
  loop.cycle(some_turn());
  EXPECT_EQ(pool->counts().served, 10U);
  EXPECT_EQ(pool->counts().plans, 1U);
}

TEST(Planned, TrimKeepsWhatItIsTold) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 3);
  EXPECT_EQ(pool->trim(pool->slab_bytes()), 0U);
  EXPECT_TRUE(pool->is_served_from_plan());
  EXPECT_GT(pool->trim(pool->slab_bytes() - 1), 0U);
}

TEST(Planned, TrimLeavesASlabInUse) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 3);
  const Block block = pool->allocate(1000);
  EXPECT_EQ(pool->trim(), 0U);
  EXPECT_EQ(pool->trimmable(), 0U);
  pool->deallocate(block);
  EXPECT_GT(pool->trim(), 0U);  // in the middle of the cycle: the rest of it is passed on
  const Block next = pool->allocate(5000);
  EXPECT_EQ(pool->stats().misses, 11U);
  pool->deallocate(next);
}

TEST(Planned, WhatIsLeftOfATrimmedCycleIsNotLearned) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 3);
  for (int i = 0; i < 3; ++i) {
    pool->deallocate(pool->allocate(1000));
    pool->trim();
    pool->deallocate(pool->allocate(5000));
    pool->cycle();
  }
  EXPECT_EQ(pool->counts().plans, 1U);
}

TEST(Planned, LargestAllocatableIsAllocatable) {
  const Ref<Planned> pool =
      make<Planned>(make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB}));
  Loop loop(*pool);
  loop.cycles(testing::token({300'000, 400'000}), 3);
  EXPECT_EQ(pool->largest_allocatable(), 1_MiB);
  {
    const Block small = pool->allocate(300'000);
    EXPECT_EQ(pool->largest_allocatable(), 1_MiB - pool->slab_bytes());
    EXPECT_FALSE(pool->try_allocate({.bytes = 500'000}));
    EXPECT_EQ(pool->stats().failures, 1U);
    pool->deallocate(small);
  }
  const Expected<Block> all = pool->try_allocate({.bytes = 1_MiB});
  ASSERT_TRUE(all);
  EXPECT_EQ(pool->slab_bytes(), 0U);
  EXPECT_EQ(pool->validate(), "");
  pool->deallocate(*all);
}

TEST(Planned, ARequestThatFailsIsExplained) {
  const Ref<Planned> pool =
      make<Planned>(make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB}));
  Loop loop(*pool);
  loop.cycles(testing::token({300'000, 400'000}), 3);
  const Block live = pool->allocate(300'000);
  Shortage shortage;
  pool->explain(shortage);
  EXPECT_EQ(shortage.sizes[0].bytes, live.bytes);
  EXPECT_EQ(shortage.sizes[0].live, live.bytes);
  pool->deallocate(live);
}

// --- What deviates. ---

// A list of keys and values grows by a little each token.
TEST(Planned, SizesThatGrowALittleEachCycleAreServed) {
  for (const bool ends_by_reset : {false, true}) {
    const Ref<Planned> pool = make_planned();
    Loop loop(*pool);
    const Served served(*pool);
    for (std::size_t cycle = 0; cycle < 500; ++cycle) {
      std::vector<std::size_t> sizes;
      for (std::size_t layer = 0; layer < 8; ++layer) {
        for (std::size_t tensor = 0; tensor < 20; ++tensor)
          sizes.push_back(tensor < 2 ? 16'384 + cycle * 512 : 4096 + 300 * tensor);
      }
      ends_by_reset ? loop.reset(testing::token(sizes)) : loop.cycle(testing::token(sizes));
    }
    EXPECT_GE(served.share(), 0.9);
    EXPECT_EQ(pool->counts().deviations, 0U);
    EXPECT_LE(pool->counts().plans, 30U);
  }
}

std::size_t allocations_before(const Turn& turn, std::ptrdiff_t place) {
  return static_cast<std::size_t>(std::count_if(
      turn.begin(), turn.begin() + place,
      [](const testing::Event& event) { return event.kind == testing::Event::Kind::allocate; }));
}

// One thing in the turn is another, at a random place.
Turn deviating(Turn turn, testing::Random& random) {
  for (;;) {
    const auto at = static_cast<std::ptrdiff_t>(random.below(turn.size()));
    testing::Event& event = turn[static_cast<std::size_t>(at)];
    const bool is_allocation = event.kind == testing::Event::Kind::allocate;
    const std::uint64_t how = random.below(5);
    if (how == 0 && is_allocation) {  // of another size
      event.request.bytes += 1 + random.size(14);
      return turn;
    }
    if (how == 1 && is_allocation) {  // left out
      const std::size_t number = allocations_before(turn, at);
      turn.erase(turn.begin() + at);
      std::erase_if(turn, [&](const testing::Event& other) {
        return other.kind == testing::Event::Kind::free && other.number == number;
      });
      for (testing::Event& other : turn) {
        if (other.kind == testing::Event::Kind::free && other.number > number) --other.number;
      }
      return turn;
    }
    if (how == 2) {  // inserted, and freed at the end
      const std::size_t number = allocations_before(turn, at);
      turn.insert(turn.begin() + at, allocates(random.size(16)));
      for (testing::Event& other : turn) {
        if (other.kind == testing::Event::Kind::free && other.number >= number) ++other.number;
      }
      turn.push_back(frees(number));
      return turn;
    }
    if (how == 3 && !is_allocation) {  // late
      const testing::Event moved = event;
      turn.erase(turn.begin() + at);
      turn.insert(turn.begin() + at +
                      static_cast<std::ptrdiff_t>(random.below(turn.size() - std::size_t(at) + 1)),
                  moved);
      return turn;
    }
    if (how == 4 && !is_allocation && at > 0 &&
        turn[static_cast<std::size_t>(at - 1)].kind == testing::Event::Kind::free) {
      std::swap(event, turn[static_cast<std::size_t>(at - 1)]);
      return turn;
    }
  }
}

TEST(Planned, MostIsServedWhereCyclesDeviateNowAndThen) {
  for (std::uint64_t seed = testing::seed_or(1), end = seed + 4; seed < end; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    testing::Random random(seed);
    for (const Turn& turn :
         {testing::token(testing::random_sizes(300, seed)), testing::training(60, seed)}) {
      const Ref<Planned> pool = make_planned();
      Loop loop(*pool);
      const Served served(*pool);
      std::uint64_t deviating_cycles = 0;
      for (int cycle = 0; cycle < 400; ++cycle) {
        const bool deviates = cycle > 2 && random.chance(5);
        deviating_cycles += deviates ? 1U : 0U;
        loop.cycle(deviates ? deviating(turn, random) : turn);
      }
      EXPECT_GE(served.share(), 0.97);
      EXPECT_GE(pool->counts().deviations, deviating_cycles / 2);
      EXPECT_LE(pool->counts().deviations, 2 * deviating_cycles + 1);
      EXPECT_LE(pool->counts().plans, 3U);
    }
  }
}

// Of a turn that deviates itself, too, most is served.
TEST(Planned, TheRestOfADeviatingCycleIsServed) {
  for (std::uint64_t seed = testing::seed_or(1), end = seed + 4; seed < end; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    testing::Random random(seed);
    for (const Turn& turn :
         {testing::token(testing::random_sizes(300, seed)), testing::training(60, seed)}) {
      const Ref<Planned> pool = make_planned();
      Loop loop(*pool);
      loop.cycles(turn, 3);
      const Served served(*pool);
      for (int cycle = 0; cycle < 100; ++cycle)
        loop.cycle(deviating(turn, random));
      EXPECT_GE(served.share(), 0.85);
    }
  }
}

TEST(Planned, ADeviationThatRepeatsIsLearned) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    testing::Random random(seed);
    const Turn turn = testing::training(10, seed);
    const Turn other = deviating(turn, random);
    const Ref<Planned> pool = make_planned();
    Loop loop(*pool);
    loop.cycles(turn, 10);
    EXPECT_EQ(pool->counts().plans, 1U);
    loop.cycles(other, 2);
    const Served served(*pool);
    const std::vector<void*> places = loop.cycle(other);
    EXPECT_EQ(loop.cycle(other), places);
    EXPECT_EQ(served.share(), 1);
    EXPECT_TRUE(pool->is_served_from_plan());
  }
}

TEST(Planned, FreesOfTheCycleBeforeInAnotherOrderAreLearned) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles({allocates(1000), frees(0), frees_of_turn_before(1), allocates(5000)}, 5);
  EXPECT_EQ(pool->counts().deviations, 0U);
  loop.cycles({allocates(1000), frees_of_turn_before(1), frees(0), allocates(5000)}, 2);
  EXPECT_EQ(pool->counts().plans, 2U);
}

TEST(Planned, CyclesThatAResetEndsEarlierAreLearned) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  for (int i = 0; i < 5; ++i)
    loop.reset({allocates(1000), allocates(5000), allocates(300)});
  EXPECT_EQ(pool->counts().deviations, 0U);
  const std::size_t former = pool->slab_bytes();
  loop.reset({allocates(1000), allocates(5000)});
  loop.events_of({allocates(1000), allocates(5000)});
  pool->reset_peaks();
  loop.reset({});
  EXPECT_EQ(pool->stats().cached.peak, former);
  EXPECT_EQ(pool->counts().deviations, 2U);
  EXPECT_EQ(pool->counts().plans, 2U);
  EXPECT_EQ(pool->slab_bytes(), 1024U + 5120U);
}

TEST(Planned, PatternsThatAlternateDoNotGrowMemoryOrRecords) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  const Turn a = testing::token(testing::random_sizes(20, 1));
  const Turn b = testing::training(8, 2);
  std::size_t reserved = 0;
  std::ptrdiff_t heap = 0;
  for (int i = 0; i < 1000; ++i) {
    loop.cycle(i % 4 < 2 ? a : b);
    if (i == 100) {
      reserved = pool->stats().reserved.peak;
      heap = testing::heap_blocks();
    }
  }
  EXPECT_LE(testing::heap_blocks(), heap + 20);
  EXPECT_EQ(pool->stats().reserved.peak, reserved);
  EXPECT_EQ(pool->stats().live_blocks.current, 0U);
  EXPECT_GE(pool->counts().plans, 400U);
}

TEST(Planned, AnOptionalBranchCostsLittle) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  std::vector<std::size_t> with = testing::random_sizes(100, 3);
  const std::vector<std::size_t> without(with);
  with.insert(with.begin() + 50, {40'000, 50'000});
  loop.cycles(testing::token(without), 3);
  const Served served(*pool);
  for (int i = 0; i < 200; ++i)
    loop.cycle(testing::token(i % 3 == 0 ? with : without));
  EXPECT_GE(served.share(), 0.95);
  EXPECT_TRUE(pool->stats().live_blocks.current == 0);
}

TEST(Planned, ARequestThatComesBeforeItsFreeDoesNotOverlap) {
  const Ref<Planned> pool = make<Planned>(make<HostDevice>());
  pool->check_owner(false);
  // The second has no place of its own: it is never freed within a cycle.
  const auto turn = [&](bool is_late, std::vector<Block>& kept) {
    testing::Ledger ledger(*pool);
    ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
    if (!is_late) ledger.free(0);
    kept.push_back(pool->allocate(5000));
    ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
    ledger.free_all();
  };
  std::vector<Block> kept;
  for (int i = 0; i < 20; ++i) {
    turn(i == 10, kept);
    EXPECT_EQ(pool->validate(), "");
    pool->cycle();
  }
  EXPECT_EQ(pool->counts().deviations, 1U);
  for (const Block& block : kept)
    pool->deallocate(block);
}

TEST(Planned, ABlockPassedOnIsNotTakenForAStepOfTheSameNumber) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  const Turn turn = {frees_of_turn_before(0), allocates(1000)};
  loop.cycles(turn, 5);
  ASSERT_TRUE(pool->is_served_from_plan());
  // The one inserted is the first of its cycle, and freed when the step's is awaited.
  const Block inserted = pool->allocate(50'000);
  const Block step = pool->allocate(1000);
  loop.free_all();
  pool->cycle();
  ASSERT_TRUE(pool->deallocate(inserted));
  const Block next = pool->allocate(1000);
  EXPECT_NE(next.memory, step.memory);
  EXPECT_EQ(pool->validate(), "");
  EXPECT_TRUE(pool->is_live(step));
  EXPECT_TRUE(pool->deallocate(step));
  EXPECT_TRUE(pool->deallocate(next));
}

// --- Blocks that outlive their cycle. ---

TEST(Planned, BlocksFreedInTheFollowingCycleHaveAPlace) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  // The third is freed before it is taken, the second is not.
  const Turn double_buffered = {allocates(1000),         allocates(3000), frees(0),
                                frees_of_turn_before(2), allocates(2000), allocates(100)};
  loop.cycles(double_buffered, 3);
  const std::vector<void*> places = loop.cycle(double_buffered);
  const Served served(*pool);
  for (int i = 0; i < 20; ++i) {
    const std::vector<void*> now = loop.cycle(double_buffered);
    EXPECT_EQ(now[0], places[0]);
    EXPECT_EQ(now[2], places[2]);
    EXPECT_NE(now[1], places[1]);  // lives on and on
  }
  EXPECT_EQ(served.share(), 0.5);
  EXPECT_EQ(pool->counts().deviations, 0U);
}

TEST(Planned, WhatIsFreedAfterTheNextIsTakenIsPassedOn) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  const Turn turn = {allocates(1000), frees_of_turn_before(0), allocates(2000), frees(1)};
  loop.cycles(turn, 30);
  EXPECT_EQ(pool->counts().deviations, 0U);
  EXPECT_EQ(pool->counts().plans, 1U);
  EXPECT_EQ(pool->counts().passed_on, 33U);
  EXPECT_EQ(pool->counts().served, 27U);
}

TEST(Planned, ACycleThatLeavesItsLastBlockOutDeviates) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  const Turn turn = {frees_of_turn_before(1), allocates(1000), frees(0), allocates(2000)};
  loop.cycles(turn, 5);
  EXPECT_EQ(pool->counts().deviations, 0U);
  loop.cycle({frees_of_turn_before(1), allocates(1000), frees(0)});
  EXPECT_EQ(pool->counts().deviations, 1U);
  loop.cycle(turn);  // there is nothing of the turn before to be freed
  EXPECT_EQ(pool->counts().deviations, 2U);
  loop.cycle(turn);
  EXPECT_EQ(pool->counts().deviations, 2U);
}

TEST(Planned, BlocksThatLiveForTwoCyclesArePassedOn) {
  const Ref<Planned> pool = make_planned();
  std::vector<Block> long_lived;
  for (std::size_t i = 0; i < 30; ++i) {
    if (i >= 2) pool->deallocate(long_lived[i - 2]);
    for (std::size_t more = i; more < 4; ++more)  // nothing is learned until what is old is freed
      pool->deallocate(pool->allocate(100));
    const Block block = pool->allocate(1000);
    long_lived.push_back(pool->allocate(2000));
    pool->deallocate(block);
    pool->cycle();
  }
  EXPECT_EQ(pool->counts().deviations, 0U);
  EXPECT_EQ(pool->counts().served, 24U);
  pool->reset();
}

TEST(Planned, GrowingDoubleBuffersAreServed) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  const Served served(*pool);
  for (std::size_t i = 0; i < 300; ++i)
    loop.cycle({frees_of_turn_before(1), allocates(1000), allocates(20'000 + 512 * i), frees(0),
                allocates(3000), frees(2)});
  EXPECT_GE(served.share(), 0.95);
  EXPECT_LE(pool->stats().reserved.peak, 3 * 200'000U);
}

TEST(Planned, WhatIsKeptForLongDoesNotTakeASlabEach) {
  const Ref<Planned> pool = make_planned();
  const Turn turn = testing::token({100'000, 200'000, 300'000, 1000});
  Loop loop(*pool);
  loop.cycles(turn, 3);
  Turn keeping = turn;
  keeping.pop_back();  // the last one is kept
  for (int i = 0; i < 10; ++i) {
    loop.cycle(keeping);
    loop.cycles(turn, 5);
  }
  EXPECT_LE(pool->stats().reserved.current, pool->slab_bytes() + 20 * 1024U);
  EXPECT_EQ(pool->counts().plans, 1U);
  loop.free_all();
  loop.cycle(turn);
  loop.cycle(turn);
  EXPECT_TRUE(pool->is_served_from_plan());
}

TEST(Planned, OneBlockKeepsTheSlabOfAPlanThatWasReplaced) {
  const auto spy = make<testing::Spy>(make<SimulatedDevice>());
  const Ref<Planned> pool = make<Planned>(spy);
  Loop loop(*pool);
  loop.cycles(some_turn(), 3);
  const Block kept = pool->allocate(1000);
  const std::size_t former = pool->slab_bytes();
  const Turn other = testing::token({9000, 10'000});
  loop.cycles(other, 4);
  EXPECT_EQ(pool->counts().plans, 2U);
  EXPECT_TRUE(pool->is_live(kept));
  EXPECT_TRUE(pool->also_used_on(kept, {.id = 1}));
  EXPECT_EQ(pool->outstanding().blocks, 1U);
  EXPECT_EQ(pool->stats().reserved.current, former + pool->slab_bytes());
  EXPECT_EQ(pool->stats().live_granted.current, kept.bytes);
  Shortage shortage;
  pool->explain(shortage);
  EXPECT_EQ(shortage.sizes[0].bytes, kept.bytes);
  EXPECT_EQ(shortage.sizes[0].live, kept.bytes);
  pool->deallocate(kept);
  EXPECT_EQ(pool->stats().reserved.current, pool->slab_bytes());
  EXPECT_FALSE(pool->is_live(kept));
}

// --- Handles. ---

TEST(Planned, RefusesWhatAResetHasEnded) {
  const testing::CaughtReports reports;
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  const Turn turn = {allocates(1000), allocates(2000)};
  for (int i = 0; i < 3; ++i)
    loop.reset(turn);
  const Block planned = pool->allocate(1000);
  const Block passed_on = pool->allocate(50'000);
  EXPECT_EQ(pool->reset(), 2U);
  for (const Block& block : {planned, passed_on}) {
    EXPECT_FALSE(pool->is_live(block));
    EXPECT_FALSE(pool->deallocate(block));
    EXPECT_EQ(pool->also_used_on(block, {}).error().code, Errc::invalid_block);
    EXPECT_EQ(pool->try_grow(block, 1).error().code, Errc::invalid_block);
  }
  EXPECT_EQ(pool->also_used_on(planned, {}).error().from_cycle, 4U);
  EXPECT_EQ(pool->stats().refused_frees, 2U);
  EXPECT_THAT(testing::CaughtReports::all().at(0),
              HasSubstr("of cycle 4, which a reset has ended"));
}

TEST(Planned, RefusesRepeatedAndForeignFrees) {
  const testing::CaughtReports reports;
  const Ref<Planned> pool = make_planned();
  const Ref<Planned> other = make_planned();
  Loop loop(*pool);
  Loop other_loop(*other);
  loop.cycles(some_turn(), 3);
  other_loop.cycles(some_turn(), 3);
  const Block block = pool->allocate(1000);
  EXPECT_FALSE(other->deallocate(block));
  EXPECT_TRUE(pool->deallocate(block));
  EXPECT_FALSE(pool->deallocate(block));
  const Block next = pool->allocate(5000);
  EXPECT_FALSE(pool->deallocate(block));
  pool->deallocate(next);
  EXPECT_FALSE(pool->deallocate(next));
  EXPECT_EQ(pool->stats().refused_frees, 3U);
  EXPECT_EQ(other->stats().refused_frees, 1U);
  loop.cycles(testing::token({10, 20, 30}), 5);  // another plan in the same records
  EXPECT_FALSE(pool->deallocate(block));
  EXPECT_FALSE(pool->deallocate(next));
  EXPECT_EQ(pool->stats().live_blocks.current, 0U);
}

TEST(Planned, GrowsWithinItsPlace) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 3);
  const Block block = pool->allocate(1000);
  const Expected<Block> grown = pool->try_grow(block, 1024);
  ASSERT_TRUE(grown);
  EXPECT_EQ(grown->memory, block.memory);
  EXPECT_EQ(grown->requested, 1024U);
  EXPECT_EQ(grown->bytes, block.bytes);
  EXPECT_FALSE(pool->is_live(block));
  EXPECT_EQ(pool->try_grow(*grown, 1025).error().code, Errc::cannot_grow);
  EXPECT_EQ(pool->stats().live_requested.current, 1024U);
  EXPECT_EQ(pool->try_grow(*grown, 10)->requested, 1024U);
  EXPECT_EQ(pool->try_grow({}, 10).error().code, Errc::cannot_grow);
  EXPECT_EQ(pool->validate(), "");
  EXPECT_EQ(pool->stats().failures, 0U);
  pool->reset();
}

TEST(Planned, ABlockCanGrowSoOftenThatItsLivesRunOut) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 3);
  Block block = pool->allocate(1);  // passed on, and grown upstream
  pool->deallocate(block);
  loop.cycles(some_turn(), 1);
  block = pool->allocate(900);
  std::set<std::uint64_t> generations;
  for (;;) {
    ASSERT_TRUE(generations.insert(block.generation).second);
    const Expected<Block> grown = pool->try_grow(block, 1000);
    if (!grown) break;
    block = *grown;
  }
  EXPECT_GT(generations.size(), 400U);
  EXPECT_LE(generations.size(), 512U);
  EXPECT_TRUE(pool->deallocate(block));
  loop.cycle(some_turn());
  EXPECT_FALSE(generations.contains(pool->allocate(1000).generation));
  pool->reset();
}

TEST(Planned, APassedOnBlockGrowsUpstream) {
  const Ref<Planned> pool =
      make<Planned>(make<SimulatedDevice>(SimulatedDevice::Options{.extensible = true}));
  const Block block = pool->allocate(1000);
  const Expected<Block> grown = pool->try_grow(block, 100'000);
  ASSERT_TRUE(grown);
  EXPECT_GE(grown->bytes, 100'000U);
  EXPECT_EQ(pool->validate(), "");
  EXPECT_EQ(pool->stats().live_requested.current, 100'000U);
  EXPECT_FALSE(pool->is_live(block));
  EXPECT_TRUE(pool->deallocate(*grown));
  EXPECT_EQ(pool->stats().reserved.current, 0U);
}

TEST(Planned, UpstreamIsAskedForThePlacesAndTheStreams) {
  const auto spy = make<testing::Spy>(make<SimulatedDevice>());
  const Ref<Planned> pool = make<Planned>(spy);
  Loop loop(*pool);
  Turn turn = testing::token({1000, 2000});
  turn[1].request.stream.id = 4;
  loop.cycles(turn, 2);
  EXPECT_EQ(spy->cycles, 2U);
  ASSERT_EQ(spy->requests.size(), 5U);
  EXPECT_EQ(spy->requests[1].stream.id, 4U);
  EXPECT_EQ(spy->requests[4].bytes, 1024U + 2048U);
}

// --- Whoever calls. ---

TEST(Planned, CheckingTheOwnerChangesNothingElse) {
  testing::Random random(testing::seed_or(11));
  const Ref<Planned> one = make_planned();
  const Ref<Planned> two = make_planned();
  two->check_owner(true);
  Loop loop_one(*one);
  Loop loop_two(*two);
  const Turn turn = testing::training(20, 4);
  for (int i = 0; i < 50; ++i) {
    const Turn now = random.chance(20) ? deviating(turn, random) : turn;
    ASSERT_EQ(loop_one.cycle(now), loop_two.cycle(now));
    if (i % 7 == 0) two->check_owner(i % 2 == 0);
  }
  EXPECT_EQ(one->counts().served, two->counts().served);
  EXPECT_EQ(one->counts().deviations, two->counts().deviations);
  const Stats a = one->stats();
  const Stats b = two->stats();
  EXPECT_EQ(a.allocations, b.allocations);
  EXPECT_EQ(a.live_granted, b.live_granted);
  EXPECT_EQ(a.cached, b.cached);
  EXPECT_EQ(a.hits, b.hits);
}

TEST(Planned, ClosedItLivesUntilItsLastBlockIsFreed) {
  const testing::CaughtReports reports;
  for (const std::size_t deviates : {0U, 1U, 2U}) {
    const auto device = make<SimulatedDevice>();
    Ref<Planned> pool = make<Planned>(device);
    Resource* const raw = &*pool;
    {
      Loop loop(*pool);
      loop.cycles(some_turn(), 3);
    }
    std::vector<Block> blocks = {pool->allocate(1000), pool->allocate(5000)};
    if (deviates > 0) blocks.push_back(pool->allocate(123'456));
    if (deviates == 2) std::ranges::reverse(blocks);
    pool = {};
    for (const Block& block : blocks) {
      EXPECT_GT(device->used(), 0U);
      EXPECT_TRUE(raw->deallocate(block));
    }
    EXPECT_EQ(device->used(), 0U);
    EXPECT_EQ(device->validate(), "");
  }
}

TEST(Planned, ClosedPinnedItGivesItsSlabBack) {
  const auto device = make<SimulatedDevice>();
  {
    const Ref<Planned> pool = make<Planned>(device);
    Loop loop(*pool);
    loop.cycles(some_turn(), 3);
    ASSERT_TRUE(pool->pin());
  }
  EXPECT_EQ(device->used(), 0U);
}

TEST(Planned, PeaksAreThoseBetweenTwoLooks) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 3);
  pool->reset_peaks();
  const Block first = pool->allocate(1000);
  const Block second = pool->allocate(5000);
  pool->deallocate(first);
  EXPECT_EQ(pool->stats().live_blocks.peak, 2U);
  EXPECT_EQ(pool->stats().live_requested.peak, 6000U);
  pool->reset_peaks();
  EXPECT_EQ(pool->stats().live_blocks.peak, 1U);
  const std::size_t cached = pool->stats().cached.current;
  EXPECT_EQ(pool->stats().cached.peak, cached);
  pool->deallocate(second);
  const Block third = pool->allocate(300);
  EXPECT_EQ(pool->stats().live_blocks.peak, 1U);
  EXPECT_EQ(pool->stats().live_requested.peak, 5000U);
  EXPECT_EQ(pool->stats().cached.peak, pool->slab_bytes());
  pool->deallocate(third);
}

TEST(Planned, ASlabIsCachedUntilItIsUsed) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(some_turn(), 2);
  const Block first = pool->allocate(1000);
  const Block other = pool->allocate(123);
  EXPECT_EQ(pool->stats().cached.peak, pool->slab_bytes());
  pool->deallocate(first);
  pool->deallocate(other);
}

TEST(Planned, ACycleInAnotherOrderIsServed) {
  const Ref<Planned> pool = make_planned();
  Loop loop(*pool);
  loop.cycles(testing::token({1000, 2000, 3000, 4000}), 3);
  const Served served(*pool);
  loop.cycle(testing::token({3000, 4000, 1000, 2000}));
  loop.cycle(testing::token({4000, 3000, 2000, 1000}));
  EXPECT_EQ(served.share(), 1);
}

TEST(Planned, SaysWhatItIs) {
  const Ref<Planned> pool = make_planned();
  EXPECT_EQ(pool->slab_bytes(), 0U);
  EXPECT_FALSE(pool->is_served_from_plan());
  EXPECT_EQ(pool->try_allocate({.bytes = std::size_t{1} << 62U}).error().code, Errc::too_large);
  EXPECT_EQ(pool->stats().failures, 1U);
  EXPECT_EQ(pool->cycles(), 1U);
  pool->cycle();
  EXPECT_EQ(pool->cycles(), 2U);
}

}  // namespace
}  // namespace cistern
