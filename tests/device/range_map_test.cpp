#include "device/range_map.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

#include <gtest/gtest.h>

#include "support/seed.hpp"

namespace cistern {
namespace {

TEST(RangeMap, KnowsOfEachAddressWhatItWasTold) {
  const std::uint64_t seed = testing::seed_or(7);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  constexpr std::size_t addresses = 64;
  for (int turn = 0; turn < 50; ++turn) {
    RangeMap<int> map;
    std::array<int, addresses> expected{};
    for (int i = 0; i < 100; ++i) {
      const std::uintptr_t begin = random.below(addresses);
      const std::uintptr_t end = begin + random.below(addresses - begin + 1);
      const int value = static_cast<int>(random.below(3));
      std::uintptr_t at = begin;
      map.update(begin, end, [&](std::uintptr_t from, std::uintptr_t to, int& known) {
        EXPECT_EQ(from, at);
        EXPECT_LT(from, to);
        for (; at < to; ++at)
          EXPECT_EQ(expected[at], known);
        known = value;
      });
      EXPECT_EQ(at, end);
      std::fill(expected.begin() + static_cast<std::ptrdiff_t>(begin),
                expected.begin() + static_cast<std::ptrdiff_t>(end), value);

      at = 0;
      map.read(0, addresses, [&](std::uintptr_t from, std::uintptr_t to, int known) {
        EXPECT_EQ(from, at);
        for (; at < to; ++at)
          EXPECT_EQ(expected[at], known);
      });
      EXPECT_EQ(at, addresses);
      std::size_t stretches = expected[0] != 0 ? 1U : 0U;
      for (std::size_t k = 1; k < addresses; ++k)
        stretches += expected[k] != 0 && expected[k] != expected[k - 1] ? 1U : 0U;
      EXPECT_EQ(map.size(), stretches);
    }
    map.erase(0, addresses);
    EXPECT_EQ(map.size(), 0U);
  }
}

}  // namespace
}  // namespace cistern
