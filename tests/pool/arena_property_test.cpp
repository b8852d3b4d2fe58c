// Long random runs with the validator after every step.
#include <gtest/gtest.h>

#include "support/arenas.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;

class ArenaProperty : public testing::EveryArena {};
CISTERN_INSTANTIATE_EVERY_ARENA(ArenaProperty);

/// A request of some size, stream and alignment.
Request any_request(testing::Random& random) {
  return {.bytes = random.chance(2) ? 0 : random.size(14),
          .alignment = random.chance(10) ? std::size_t{1} << random.below(12) : 0,
          .stream = {.id = random.chance(10) ? random.below(3) : 0}};
}

void random_step(Arena& arena, testing::Ledger& ledger, testing::Random& random) {
  const std::uint64_t what = random.below(1000);
  if (what < 500 || ledger.size() == 0) {
    ASSERT_TRUE(ledger.allocate(any_request(random)));
  } else if (what < 530) {
    ASSERT_TRUE(ledger.allocate_held(any_request(random)));
  } else if (what < 700) {
    ledger.free(random.below(ledger.size()));
  } else if (what < 850) {
    ledger.free(ledger.size() - 1);  // often the last of the chunk
  } else if (what < 900) {
    ledger.grow(random.chance(50) ? ledger.size() - 1 : random.below(ledger.size()),
                random.size(14));
  } else if (what < 930) {
    std::vector<Request> requests(random.below(5));
    for (Request& request : requests)
      request = any_request(random);
    std::vector<Block> blocks(requests.size());
    ASSERT_TRUE(arena.try_allocate_batch(requests, blocks));
    for (std::size_t i = 0; i < requests.size(); ++i)
      ledger.add(requests[i], blocks[i]);
  } else if (what < 940) {
    arena.cycle();
  } else if (what < 950) {
    ledger.free_all();
  } else if (what < 960) {
    arena.trim(random.size(18));
  } else if (what < 965) {
    arena.clear();
  } else if (what < 970) {
    arena.check_owner(random.chance(50));
  } else if (what < 975) {
    arena.reset_peaks();
  } else if (what < 980) {
    const std::size_t index = random.below(ledger.size());
    testing::on_another_thread([&] { ledger.free(index); });
  } else {
    ledger.reset();
  }
}

void random_run(Arena& arena, std::uint64_t seed) {
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  testing::Ledger ledger(arena);
  std::size_t highest = 0;
  for (int step = 0; step < 2000; ++step) {
    random_step(arena, ledger, random);
    ledger.expect_in_order();
    highest = std::max(highest, ledger.size());
    EXPECT_GE(arena.stats().live_blocks.peak, ledger.size());
    EXPECT_LE(arena.stats().live_blocks.peak, highest + 4);  // a batch that is one step here
    if (::testing::Test::HasFailure()) return;
  }
  ledger.free_all();
  testing::expect_all_accounted_for(arena);
}

TEST_P(ArenaProperty, LearningItsChunkItKeepsItsLaws) {
  for (std::uint64_t seed = testing::seed_or(100), end = seed + 5; seed < end; ++seed)
    random_run(*make_arena({.warn_cycles = unbounded, .warn_bytes = unbounded}), seed);
}

TEST_P(ArenaProperty, WithAChunkFromTheStartItKeepsItsLaws) {
  for (std::uint64_t seed = testing::seed_or(200), end = seed + 5; seed < end; ++seed) {
    random_run(*make_arena({.chunk = 64_KiB, .warn_cycles = unbounded, .warn_bytes = unbounded}),
               seed);
  }
}

}  // namespace
}  // namespace cistern
