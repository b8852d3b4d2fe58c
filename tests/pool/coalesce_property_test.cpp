// Long random runs with the validator after every step.
#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "support/coalesces.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

class CoalesceProperty : public testing::EveryCoalesce {};
CISTERN_INSTANTIATE_EVERY_COALESCE(CoalesceProperty);

void random_run(Coalesce& pool, std::uint64_t streams, std::uint64_t seed) {
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  testing::Ledger ledger(pool);
  for (int step = 0; step < 1200; ++step) {
    const std::uint64_t what = random.below(100);
    if (what < 45 || ledger.size() == 0) {
      ASSERT_TRUE(
          ledger.allocate({.bytes = random.size(18), .stream = {.id = random.below(streams)}}));
    } else if (what < 85) {
      ledger.free(random.below(ledger.size()), {.id = random.below(streams)});
    } else if (what < 88) {
      pool.trim(random.size(20));
    } else if (what < 90) {
      pool.set_max_idle(random.chance(50) ? unbounded : random.size(20));
    } else if (what < 92) {
      pool.set_idle_ratio(static_cast<double>(random.below(200)) / 100);
    } else {
      ASSERT_TRUE(ledger.allocate({.bytes = random.size(14),
                                   .alignment = std::size_t{1} << random.below(16),
                                   .stream = {.id = random.below(streams)}}));
    }
    ledger.expect_in_order();
    if (::testing::Test::HasFailure()) return;
  }
  ledger.free_all();
  testing::expect_all_accounted_for(pool);
}

TEST_P(CoalesceProperty, KeepsItsLawsOnOneStream) {
  for (std::uint64_t seed = testing::seed_or(100), end = seed + testing::seeds_at_a_time(3);
       seed < end; ++seed)
    random_run(*make_pool(), 1, seed);
}

TEST_P(CoalesceProperty, KeepsItsLawsOnManyStreams) {
  for (std::uint64_t seed = testing::seed_or(200), end = seed + testing::seeds_at_a_time(3);
       seed < end; ++seed)
    random_run(*make_pool(), 5, seed);
}

}  // namespace
}  // namespace cistern
