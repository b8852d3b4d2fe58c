// Regions that touch and are used as one: blocks across them, what remains when one of them is
// given back, and regions that are extended.
#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/pool/suballocator.hpp"
#include "support/failing_new.hpp"
#include "support/parts.hpp"
#include "support/seed.hpp"
#include "support/streams.hpp"

namespace cistern {
namespace {

using testing::FailingNew;
using testing::Parts;
using testing::Places;
using testing::stream_one;
using testing::stream_two;

class JoinTest : public ::testing::TestWithParam<Placement> {
 public:
  /// Regions of 1000 bytes from address 10000 on, one behind the other.
  void add_row(std::size_t number, Stream stream = {}) {
    for (std::size_t i = 0; i < number; ++i)
      ASSERT_NE(parts.add(10'000 + i * 1000, 1000, stream), nullptr);
  }
  Region* region(std::size_t i) const { return parts.region_at(10'000 + i * 1000); }
  Chunk* take_at(std::uintptr_t start, std::size_t bytes) {
    return parts.begin(parts->take_at(start, bytes));
  }

  Parts parts{{.size_classes = 2, .placement = GetParam(), .joins = true}};
};
INSTANTIATE_TEST_SUITE_P(Placements, JoinTest,
                         ::testing::Values(Placement::packed, Placement::best, Placement::first));

TEST_P(JoinTest, RegionsThatTouchAreOneHole) {
  parts.add(11'000, 1000);
  parts.add(13'000, 1000);
  EXPECT_EQ(parts.holes(), (Places{{11'000, 1000}, {13'000, 1000}}));
  parts.add(12'000, 1000);  // fills the gap
  EXPECT_EQ(parts.holes(), (Places{{11'000, 3000}}));
  parts.add(10'000, 1000);  // before all
  EXPECT_EQ(parts.holes(), (Places{{10'000, 4000}}));
  Chunk* all = parts.take(4000);
  ASSERT_NE(all, nullptr);
  EXPECT_EQ(parts->idle_bytes(), 0U);
  parts.put(all);
  EXPECT_EQ(parts->idle_bytes(), 4000U);
}

TEST_P(JoinTest, WithoutJoiningTheyStayApart) {
  Parts apart({.placement = GetParam()});
  apart.add(10'000, 1000);
  apart.add(11'000, 1000);
  EXPECT_EQ(apart.holes(), (Places{{10'000, 1000}, {11'000, 1000}}));
  EXPECT_EQ(apart.take(1001), nullptr);
}

TEST_P(JoinTest, RegionsOfTwoClassesStayApart) {
  parts.add(10'000, 1000, {}, 0);
  parts.add(12'000, 1000, {}, 0);
  parts.add(11'000, 1000, {}, 1);
  EXPECT_EQ(parts.holes().size(), 3U);
  EXPECT_EQ(parts.take(1001), nullptr);
}

TEST_P(JoinTest, HolesOfTwoStreamsAreJoinedButNotMerged) {
  parts.add(10'000, 1000, stream_one);
  parts->know(stream_one);
  parts.add(11'000, 1000, stream_two);
  parts->know(stream_two);
  EXPECT_EQ(parts.holes().size(), 2U);
  EXPECT_EQ(parts.take(1001, stream_one), nullptr);
  EXPECT_TRUE(parts->merge_streams(stream_one));
  EXPECT_EQ(parts.holes(), (Places{{10'000, 2000}}));
}

TEST_P(JoinTest, ABlockAcrossTwoRegionsKeepsBoth) {
  add_row(3);
  Chunk* across = take_at(10'900, 200);
  ASSERT_NE(across, nullptr);
  EXPECT_EQ(across->region, region(0));
  EXPECT_EQ(across->after->region, region(1));
  EXPECT_EQ(parts->idle_bytes(), 1000U);
  EXPECT_EQ(parts->oldest_idle(), region(2));
  EXPECT_EQ(Suballocator::next_idle(region(2)), nullptr);
  parts.put(across);
  EXPECT_EQ(parts->idle_bytes(), 3000U);
}

TEST_P(JoinTest, ABlockThatEndsWithARegionDoesNotTouchTheNext) {
  add_row(3);
  Chunk* whole = take_at(11'000, 1000);
  EXPECT_EQ(parts->idle_bytes(), 2000U);
  EXPECT_EQ(whole->after->region, region(2));
  parts.put(whole);
}

TEST_P(JoinTest, ARegionLeavesFromTheMiddleOfAHole) {
  add_row(3);
  ASSERT_TRUE(parts.remove(region(1)));
  EXPECT_EQ(parts.holes(), (Places{{10'000, 1000}, {12'000, 1000}}));
  EXPECT_EQ(parts.take(1001), nullptr);
  EXPECT_EQ(parts->bytes(), 2000U);
  EXPECT_EQ(parts->idle_bytes(), 2000U);
  parts.add(11'000, 1000);  // and comes back
  EXPECT_EQ(parts.holes(), (Places{{10'000, 3000}}));
}

TEST_P(JoinTest, ARegionLeavesFromTheStartAndFromTheEnd) {
  add_row(4);
  ASSERT_TRUE(parts.remove(region(0)));
  EXPECT_EQ(parts.holes(), (Places{{11'000, 3000}}));
  ASSERT_TRUE(parts.remove(region(3)));
  EXPECT_EQ(parts.holes(), (Places{{11'000, 2000}}));
  ASSERT_TRUE(parts.remove(region(1)));
  ASSERT_TRUE(parts.remove(region(2)));
  EXPECT_EQ(parts.holes(), Places{});
  EXPECT_EQ(parts->bytes(), 0U);
}

TEST_P(JoinTest, ARegionLeavesFromBetweenBlocks) {
  add_row(3);
  Chunk* before = take_at(10'000, 1000);
  Chunk* after = take_at(12'000, 1000);
  ASSERT_TRUE(parts.remove(region(1)));
  EXPECT_EQ(parts.holes(), Places{});
  parts.put(before);
  parts.put(after);
  EXPECT_EQ(parts.holes(), (Places{{10'000, 1000}, {12'000, 1000}}));
}

TEST_P(JoinTest, OfAHoleThatReachesIntoItsNeighboursTheyKeepTheirParts) {
  add_row(3);
  Chunk* before = take_at(10'000, 400);
  Chunk* after = take_at(12'600, 400);
  ASSERT_TRUE(parts.remove(region(1)));
  EXPECT_EQ(parts.holes(), (Places{{10'400, 600}, {12'000, 600}}));
  EXPECT_EQ(parts.take(601), nullptr);
  parts.put(before);
  parts.put(after);
  EXPECT_EQ(parts.holes(), (Places{{10'000, 1000}, {12'000, 1000}}));
}

TEST_P(JoinTest, PartsOfHolesOfSeveralStreamsStayTheirStreams) {
  add_row(3);
  Chunk* const first = take_at(10'000, 400);
  Chunk* const a = take_at(10'400, 700);  // reaches into the region that will leave
  Chunk* const b = take_at(11'100, 700);
  Chunk* const c = take_at(11'800, 500);  // reaches out of it
  Chunk* const last = take_at(12'300, 700);
  parts.put(a, stream_one);
  parts.put(b, {});
  parts.put(c, stream_two);
  parts->know(stream_one);
  parts->know(stream_two);
  EXPECT_EQ(parts.holes(), (Places{{10'400, 700}, {11'100, 700}, {11'800, 500}}));
  EXPECT_EQ(parts->oldest_idle(), region(1));
  ASSERT_TRUE(parts.remove(region(1)));
  EXPECT_EQ(parts.holes(), (Places{{10'400, 600}, {12'000, 300}}));
  EXPECT_EQ(parts.take(1, {}), nullptr);
  EXPECT_EQ(parts.take(600, stream_one)->start, 10'400U);
  EXPECT_EQ(parts.take(300, stream_two)->start, 12'000U);
  parts.put(first);
  parts.put(last);
}

TEST_P(JoinTest, WithoutMemoryToCutAHoleItsRegionStays) {
  add_row(3);
  parts.add(50'000, 100'000, {}, 1);
  std::vector<Chunk*> blocks;
  blocks.reserve(100);
  {
    const FailingNew failing(1);
    while (Chunk* block = parts->take({.bytes = 10, .size_class = 1})) {
      block->begin_life();
      blocks.push_back(block);
    }
    EXPECT_FALSE(parts->remove(*region(1)));
  }
  parts.expect_lawful();
  EXPECT_EQ(parts.holes(), (Places{{10'000, 3000}}));
  EXPECT_EQ(parts->oldest_idle(), region(0));
  {
    const FailingNew failing(1);
    EXPECT_TRUE(parts->remove(*region(0)));  // what stands at an end needs none
  }
  EXPECT_TRUE(parts.remove(region(1)));
  for (Chunk* block : blocks)
    parts.put(block);
}

TEST_P(JoinTest, ARegionThatLeavesLeavesItsRecords) {
  add_row(2);
  ASSERT_TRUE(parts.remove(region(0)));
  const FailingNew failing(1);
  for (int i = 0; i < 100; ++i) {
    ASSERT_NE(parts.add(50'000, 1000), nullptr) << i;
    ASSERT_TRUE(parts.remove(parts.region_at(50'000)));
  }
}

TEST_P(JoinTest, ABlockGrowsAcrossIntoTheNextRegion) {
  add_row(2);
  Chunk* block = take_at(10'500, 100);
  EXPECT_EQ(parts->idle_bytes(), 1000U);
  EXPECT_TRUE(parts->grow(*block, 600));
  parts.expect_lawful();
  EXPECT_EQ(parts->idle_bytes(), 0U);
  EXPECT_EQ(parts.holes(), (Places{{10'000, 500}, {11'100, 900}}));
  EXPECT_TRUE(parts->grow(*block, 1500));
  parts.expect_lawful();
  parts.put(block);
  EXPECT_EQ(parts.holes(), (Places{{10'000, 2000}}));
}

TEST_P(JoinTest, AnExtendedRegionEndsInAHole) {
  Region* region = parts.add(10'000, 1000);
  EXPECT_TRUE(parts->extend(*region, {.bytes = 1500}, {.bytes = 1}));
  parts.expect_lawful();
  EXPECT_EQ(parts.holes(), (Places{{10'000, 1500}}));
  EXPECT_EQ(parts->idle_bytes(), 1500U);
  Chunk* block = parts.take(1500);
  EXPECT_TRUE(parts->extend(*region, {.bytes = 2000}, {.bytes = 1}));
  parts.expect_lawful();
  EXPECT_EQ(parts.holes(), (Places{{11'500, 500}}));
  EXPECT_EQ(parts->idle_bytes(), 0U);
  EXPECT_EQ(parts->bytes(), 2000U);
  EXPECT_TRUE(parts->extend(*region, {.bytes = 2000}, {.bytes = 1}));  // by nothing
  EXPECT_EQ(parts->bytes(), 2000U);
  parts.put(block);
  EXPECT_EQ(parts.holes(), (Places{{10'000, 2000}}));
  EXPECT_TRUE(parts.remove(region));
}

TEST_P(JoinTest, SaysHowFarARegionMustReach) {
  Region* region = parts.add(10'000, 1000);
  EXPECT_EQ(Suballocator::bytes_to_hold(*region, {.bytes = 1500}), 1500U);
  Chunk* block = parts.take(600);
  EXPECT_EQ(Suballocator::bytes_to_hold(*region, {.bytes = 1500}), 2100U);
  EXPECT_EQ(Suballocator::bytes_to_hold(*region, {.bytes = 100, .alignment = 1024}), 1364U);
  EXPECT_EQ(Suballocator::bytes_to_hold(*region, {.bytes = unbounded}), unbounded);
  static_cast<void>(parts.take(400));
  EXPECT_EQ(Suballocator::bytes_to_hold(*region, {.bytes = 1500}), 2500U);
  EXPECT_EQ(parts->take_at_end(*region, {.bytes = 1}), nullptr);
  parts.put(block);
  EXPECT_EQ(parts->take_at_end(*region, {.bytes = 1}), nullptr);
}

TEST_P(JoinTest, TheEndOfARegionIsItsStreamsOrEverybodys) {
  Region* region = parts.add(10'000, 1000, stream_one);
  parts->know(stream_one);
  parts->know(stream_two);
  const Parts::Want own{.bytes = 1500, .stream = stream_two};
  const Parts::Want any{.bytes = 1500, .stream = stream_two, .shares_streams = true};
  EXPECT_EQ(parts->take_at_end(*region, {.bytes = 1, .stream = stream_two}), nullptr);
  EXPECT_EQ(Suballocator::bytes_to_hold(*region, own), 2500U);
  EXPECT_EQ(Suballocator::bytes_to_hold(*region, any), 1500U);
  EXPECT_TRUE(parts->extend(*region, {.bytes = 1200}, own));
  parts.expect_lawful();
  EXPECT_EQ(parts.holes(), (Places{{10'000, 1000}, {11'000, 200}}));
  EXPECT_EQ(Suballocator::bytes_to_hold(*region, own), 2500U);
  EXPECT_TRUE(parts->extend(*region, {.bytes = 1500},
                            {.bytes = 500, .stream = stream_one, .shares_streams = true}));
  parts.expect_lawful();
  EXPECT_EQ(parts.holes(), (Places{{10'000, 1000}, {11'000, 500}}));
  const Chunk* block = parts.begin(
      parts->take_at_end(*region, {.bytes = 500, .stream = stream_one, .shares_streams = true}));
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(block->start, 11'000U);
}

TEST_P(JoinTest, WhereStreamsNeedNotWaitHolesThatTouchMergeAtOnce) {
  Parts merging({.placement = GetParam(), .joins = true, .merges_streams = true});
  merging.add(10'000, 1000, stream_one);
  merging->know(stream_one);
  Chunk* a = merging.take(600, stream_one);
  ASSERT_NE(a, nullptr);
  merging.put(a, stream_two);
  EXPECT_EQ(merging.holes(), (Places{{10'000, 1000}}));
  merging.add(11'000, 1000, {});
  EXPECT_EQ(merging.holes(), (Places{{10'000, 2000}}));
  Chunk* b = merging.begin(merging->take_at(10'000, 100));
  EXPECT_TRUE(merging->grow(*b, 2000));  // whosesoever the hole is
  merging.expect_lawful();
  merging.put(b, stream_one);
  EXPECT_FALSE(merging->merge_streams(stream_one));
  Chunk* c = merging.begin(merging->take_at(10'000, 1000));
  Chunk* d = merging.begin(merging->take_at(11'000, 1000));
  merging.put(c, stream_one);
  merging.put(d, stream_two);
  merging->each_hole(
      [](const Chunk& hole) { EXPECT_EQ(hole.stream.id, stream_two.id); });  // the last
}

TEST_P(JoinTest, TheRegionThatEndsInTheLargestHoleIsTheOneToExtend) {
  EXPECT_EQ(parts->most_extensible(0), nullptr);
  Region* a = parts.add(10'000, 1000);
  Region* b = parts.add(20'000, 1000);
  Region* c = parts.add(30'000, 1000, {}, 1);
  static_cast<void>(take_at(10'000, 900));
  static_cast<void>(take_at(20'000, 700));
  EXPECT_EQ(parts->most_extensible(0), b);
  EXPECT_EQ(parts->most_extensible(1), c);
  b->is_growing = true;
  EXPECT_EQ(parts->most_extensible(0), a);
  parts.add(11'000, 1000);  // is joined behind it
  EXPECT_EQ(parts->most_extensible(0), parts.region_at(11'000));
  EXPECT_EQ(parts->take_at_end(*a, {.bytes = 1}), nullptr);
}

TEST_P(JoinTest, ARandomRunKeepsItsLaws) {
  for (std::uint64_t seed = testing::seed_or(1), end = seed + 10; seed < end; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    testing::Random random(seed);
    Parts all({.placement = GetParam(), .joins = true});
    std::vector<Chunk*> blocks;
    std::size_t live = 0;
    for (int step = 0; step < 500; ++step) {
      const Stream stream{.id = random.below(3)};
      const std::uint64_t what = random.below(100);
      if (what < 20) {
        const std::uintptr_t start = (10 + random.below(12)) * 1024;
        if (all.region_at(start) == nullptr) all.add(start, 1024, stream);
      } else if (what < 35) {
        std::vector<Region*> idle;
        for (Region* at = all->oldest_idle(); at != nullptr; at = Suballocator::next_idle(at))
          idle.push_back(at);
        if (!idle.empty()) {
          ASSERT_TRUE(all.remove(idle[random.below(idle.size())]));
        }
      } else if (what < 70) {
        const std::size_t bytes = 1 + random.below(random.chance(10) ? 3000 : 600);
        Chunk* block = all.take({.bytes = bytes,
                                 .alignment = std::size_t{1} << random.below(8),
                                 .least_rest = 1 + random.below(40),
                                 .stream = stream});
        if (block != nullptr) blocks.push_back(block);
        if (block != nullptr) live += block->bytes;
      } else if (what < 95 && !blocks.empty()) {
        std::swap(blocks[random.below(blocks.size())], blocks.back());
        live -= blocks.back()->bytes;
        all.put(blocks.back(), stream);
        blocks.pop_back();
      } else if (what >= 97) {
        random.chance(50) ? static_cast<void>(all->merge_streams(stream)) : all->know(stream);
      }
      all.expect_lawful();
      std::size_t in_holes = 0;
      for (const auto& [start, bytes] : all.holes())
        in_holes += bytes;
      ASSERT_EQ(in_holes + live, all->bytes());
      if (::testing::Test::HasFailure()) return;
    }
    for (Chunk* block : blocks)
      all.put(block, {});
    EXPECT_EQ(all->idle_bytes(), all->bytes());
  }
}

}  // namespace
}  // namespace cistern
