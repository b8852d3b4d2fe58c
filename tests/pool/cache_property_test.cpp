// Long random runs with the validator after every step.
#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "support/caches.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;

class CacheProperty : public testing::EveryCache {};
CISTERN_INSTANTIATE_EVERY_CACHE(CacheProperty);

void random_run(Cache& cache, std::uint64_t seed) {
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  testing::Ledger ledger(cache);
  for (int step = 0; step < 1500; ++step) {
    const std::uint64_t what = random.below(100);
    if (what < 50 || ledger.size() == 0) {
      ASSERT_TRUE(ledger.allocate({.bytes = random.size(18), .stream = {.id = random.below(3)}}));
    } else if (what < 90) {
      ledger.free(random.below(ledger.size()), {.id = random.below(3)});
    } else if (what < 93) {
      cache.trim(random.size(20));
    } else if (what < 95) {
      cache.set_max_bytes(random.chance(20) ? unbounded : random.size(22));
    } else if (what < 97) {
      cache.set_per_bucket(random.chance(20) ? Cache::any_number : random.below(6));
    } else if (what < 98) {
      cache.set_idle_ratio(static_cast<double>(random.below(200)) / 100);
    } else {
      ASSERT_TRUE(ledger.allocate(
          {.bytes = random.size(16), .alignment = std::size_t{1} << random.below(16)}));
    }
    ledger.expect_in_order();
    if (::testing::Test::HasFailure()) return;
  }
  ledger.free_all();
  testing::expect_all_accounted_for(cache);
}

TEST_P(CacheProperty, EvictingCachesKeepTheirLaws) {
  for (std::uint64_t seed = testing::seed_or(100), end = seed + 3; seed < end; ++seed) {
    random_run(*make_cache({.max_bytes = 1_MiB}), seed);
  }
}

TEST_P(CacheProperty, RejectingCachesKeepTheirLaws) {
  for (std::uint64_t seed = testing::seed_or(200), end = seed + 3; seed < end; ++seed) {
    random_run(*make_cache({.max_bytes = 1_MiB, .when_full = WhenFull::reject}), seed);
  }
}

}  // namespace
}  // namespace cistern
