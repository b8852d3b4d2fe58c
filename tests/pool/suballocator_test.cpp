// How blocks are cut out of regions and holes grow together again.
#include "cistern/pool/suballocator.hpp"

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "support/failing_new.hpp"
#include "support/parts.hpp"
#include "support/streams.hpp"

namespace cistern {
namespace {

using testing::FailingNew;
using testing::Parts;
using testing::Places;
using testing::stream_one;
using testing::stream_two;

class SuballocatorTest : public ::testing::TestWithParam<Placement> {
 public:
  Parts parts{{.placement = GetParam()}};
};
INSTANTIATE_TEST_SUITE_P(Placements, SuballocatorTest,
                         ::testing::Values(Placement::packed, Placement::best, Placement::first));

TEST_P(SuballocatorTest, ABlockIsCutFromTheFrontOfAHole) {
  parts.add(4096, 1000);
  const Chunk* block = parts.take(300);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(block->start, 4096U);
  EXPECT_EQ(block->bytes, 300U);
  EXPECT_EQ(parts.holes(), (Places{{4396, 700}}));
  EXPECT_EQ(parts->idle_bytes(), 0U);
  EXPECT_EQ(parts->bytes(), 1000U);
  EXPECT_EQ(parts.take(701), nullptr);
  EXPECT_NE(parts.take(700), nullptr);
  EXPECT_EQ(parts.holes(), Places{});
  EXPECT_EQ(parts.take(1), nullptr);
}

TEST_P(SuballocatorTest, AFreedBlockMergesWithTheHoleBehindIt) {
  parts.add(4096, 1000);
  Chunk* a = parts.take(300);
  parts.put(a);
  EXPECT_EQ(parts.holes(), (Places{{4096, 1000}}));
  EXPECT_EQ(parts->idle_bytes(), 1000U);
}

TEST_P(SuballocatorTest, AFreedBlockMergesWithTheHoleBeforeIt) {
  parts.add(4096, 1000);
  Chunk* a = parts.take(300);
  Chunk* b = parts.take(300);
  Chunk* c = parts.take(400);
  parts.put(a);
  parts.put(b);
  EXPECT_EQ(parts.holes(), (Places{{4096, 600}}));
  EXPECT_EQ(c->before->bytes, 600U);
}

TEST_P(SuballocatorTest, AFreedBlockMergesWithBothHolesBesideIt) {
  parts.add(4096, 1000);
  Chunk* a = parts.take(300);
  Chunk* b = parts.take(300);
  parts.put(a);
  EXPECT_EQ(parts.holes(), (Places{{4096, 300}, {4696, 400}}));
  parts.put(b);
  EXPECT_EQ(parts.holes(), (Places{{4096, 1000}}));
}

TEST_P(SuballocatorTest, OnceAllIsFreedOneHoleSpansEachRegionAndAllCanBeGrantedAgain) {
  parts.add(4096, 1000);
  parts.add(8192, 500);
  for (int turn = 0; turn < 3; ++turn) {
    std::vector<Chunk*> blocks;
    while (Chunk* block = parts.take(100))
      blocks.push_back(block);
    EXPECT_EQ(blocks.size(), 15U);
    for (std::size_t i = 0; i < blocks.size(); i += 2)
      parts.put(blocks[i]);
    for (std::size_t i = 1; i < blocks.size(); i += 2)
      parts.put(blocks[i]);
    EXPECT_EQ(parts.holes(), (Places{{4096, 1000}, {8192, 500}}));
    EXPECT_EQ(parts->idle_bytes(), 1500U);
    EXPECT_EQ(parts->largest_hole(), 1000U);
    Chunk* whole = parts.take(1000);
    ASSERT_NE(whole, nullptr);
    parts.put(whole);
  }
}

TEST_P(SuballocatorTest, WhatAlignmentSkipsStaysAHole) {
  parts.add(4096, 3000);
  Chunk* a = parts.take(100);
  const Chunk* aligned = parts.take({.bytes = 200, .alignment = 1024});
  ASSERT_NE(aligned, nullptr);
  EXPECT_EQ(aligned->start, 5120U);
  EXPECT_EQ(parts.holes(), (Places{{4196, 924}, {5320, 1776}}));
  EXPECT_NE(parts.take(924), nullptr);
  EXPECT_EQ(parts.take({.bytes = 1, .alignment = 4096}), nullptr);
  parts.put(a);
}

TEST_P(SuballocatorTest, AHoleThatIsTooShortBehindItsSkipIsPassedOver) {
  parts.add(4096, 100);
  parts.add(8192 + 64, 1000);
  Chunk* a = parts.take({.bytes = 10});  // of the smaller, whose rest begins unaligned
  ASSERT_EQ(a->start, 4096U);
  const Chunk* b = parts.take({.bytes = 85, .alignment = 64});
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->start, 8192U + 64);
}

TEST_P(SuballocatorTest, AnAlignmentBeyondAllAddressesIsRefused) {
  parts.add(4096 + 1, 5000);
  EXPECT_EQ(parts.take({.bytes = unbounded, .alignment = 4096}), nullptr);
  EXPECT_EQ(parts.take({.bytes = 4000, .alignment = std::size_t{1} << 63}), nullptr);
}

TEST_P(SuballocatorTest, ARestThatIsTooSmallStaysWithItsBlock) {
  parts.add(4096, 1000);
  Chunk* a = parts.take({.bytes = 801, .least_rest = 200});
  EXPECT_EQ(a->bytes, 1000U);
  parts.put(a);
  a = parts.take({.bytes = 800, .least_rest = 200});
  EXPECT_EQ(a->bytes, 800U);
  EXPECT_EQ(parts.holes(), (Places{{4896, 200}}));
}

TEST_P(SuballocatorTest, ClassesHaveHolesOfTheirOwn) {
  Parts of_two({.size_classes = 2, .placement = GetParam()});
  of_two.add(4096, 1000, {}, 0);
  of_two.add(8192, 2000, {}, 1);
  EXPECT_EQ(of_two.take(1001), nullptr);
  EXPECT_EQ(of_two.take({.bytes = 500, .size_class = 1})->start, 8192U);
  EXPECT_EQ(of_two->largest_hole(0, true), 1000U);
  EXPECT_EQ(of_two->largest_hole(1, true), 1500U);
  EXPECT_EQ(of_two.begin(of_two->take_of_another_class({.bytes = 1001}))->start, 8692U);
}

TEST_P(SuballocatorTest, HolesOfTwoStreamsTouchAndAreMergedOnDemand) {
  parts.add(4096, 1000, stream_one);
  parts->know(stream_one);
  Chunk* a = parts.take(600, stream_one);
  parts.put(a, stream_two);
  parts->know(stream_two);
  EXPECT_EQ(parts.holes(), (Places{{4096, 600}, {4696, 400}}));
  EXPECT_EQ(parts->idle_bytes(), 1000U);
  EXPECT_EQ(parts.take(401, stream_one), nullptr);
  EXPECT_EQ(parts.take(601, stream_two), nullptr);
  EXPECT_TRUE(parts->merge_streams(stream_two));
  parts.expect_lawful();
  EXPECT_EQ(parts.holes(), (Places{{4096, 1000}}));
  EXPECT_FALSE(parts->merge_streams(stream_two));
  EXPECT_EQ(parts.take(1000, stream_one), nullptr);
  EXPECT_NE(parts.take(1000, stream_two), nullptr);  // who asked for it
}

TEST_P(SuballocatorTest, ABlockOfAnotherStreamIsTakenOnlyWhenAskedFor) {
  parts.add(4096, 1000, stream_one);
  parts->know(stream_one);
  parts->know(stream_two);
  EXPECT_EQ(parts.take(100, stream_two), nullptr);
  EXPECT_EQ(parts->take_of_another_class({.bytes = 100, .stream = stream_two}), nullptr);
  Chunk* block = parts.begin(parts->take_of_any_stream({.bytes = 100, .stream = stream_two}));
  ASSERT_NE(block, nullptr);
  parts.put(block, stream_two);
  EXPECT_EQ(parts.holes(), (Places{{4096, 100}, {4196, 900}}));
  EXPECT_NE(parts.begin(parts->take_of_another_class(
                {.bytes = 900, .stream = stream_two, .shares_streams = true})),
            nullptr);
}

TEST_P(SuballocatorTest, OfOtherStreamsTheSmallestHoleIsTaken) {
  parts.add(4096, 3000, {.id = 1});
  parts.add(8192, 1000, {.id = 2});
  parts.add(16384, 2000, {.id = 3});
  for (std::uint64_t id = 1; id <= 3; ++id)
    parts->know({.id = id});
  const Chunk* block = parts.begin(parts->take_of_any_stream({.bytes = 900, .stream = {.id = 9}}));
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(block->start, 8192U);
}

TEST_P(SuballocatorTest, HolesOfStreamsThatAreNotKnownAreFoundByEveryOther) {
  parts.add(4096, 1000, stream_one);  // none is known but the default
  EXPECT_EQ(parts.take(100, stream_one), nullptr);
  Chunk* a = parts.begin(parts->take_of_any_stream({.bytes = 100, .stream = stream_one}));
  ASSERT_NE(a, nullptr);
  parts.put(a, stream_two);
  EXPECT_EQ(parts.holes().size(), 2U);
  EXPECT_TRUE(parts->merge_streams(stream_two));
  parts.expect_lawful();
}

TEST_P(SuballocatorTest, AStreamThatBecomesKnownFindsWhatItFreedBefore) {
  parts.add(4096, 1000, stream_one);
  Chunk* a = parts.begin(parts->take_of_any_stream({.bytes = 100, .stream = stream_one}));
  parts.put(a, stream_one);
  parts->know(stream_one);
  parts.expect_lawful();
  EXPECT_NE(parts.take(1000, stream_one), nullptr);
}

TEST_P(SuballocatorTest, AStreamThatIsKnownStaysSoWithoutMemoryForMore) {
  parts.add(4096, 1000, stream_one);
  parts.add(8192, 1000, {});
  parts->know(stream_one);
  {
    const FailingNew failing(1);
    parts->know(stream_two);
    parts->know({.id = 3});
    EXPECT_TRUE(FailingNew::has_failed());
  }
  parts.expect_lawful();
  EXPECT_EQ(parts.take(10, stream_two), nullptr);
  EXPECT_NE(parts.take(10, stream_one), nullptr);
  EXPECT_NE(parts.take(10), nullptr);
}

TEST_P(SuballocatorTest, ABlockGrowsIntoTheHoleBehindIt) {
  parts.add(4096, 1000);
  Chunk* a = parts.take(300);
  EXPECT_TRUE(parts->grow(*a, 500));
  parts.expect_lawful();
  EXPECT_EQ(a->bytes, 500U);
  EXPECT_EQ(parts.holes(), (Places{{4596, 500}}));
  EXPECT_FALSE(parts->grow(*a, 1001));
  EXPECT_TRUE(parts->grow(*a, 1000));
  parts.expect_lawful();
  EXPECT_EQ(parts.holes(), Places{});
  EXPECT_FALSE(parts->grow(*a, 1001));
  parts.put(a);
  EXPECT_EQ(parts->idle_bytes(), 1000U);
}

TEST_P(SuballocatorTest, ABlockDoesNotGrowOverAnotherNorIntoAnotherStreamsHole) {
  parts.add(4096, 1000);
  Chunk* a = parts.take(300);
  Chunk* b = parts.take(300);
  EXPECT_FALSE(parts->grow(*a, 301));
  parts.put(b, stream_one);
  EXPECT_FALSE(parts->grow(*a, 301));
  parts.put(a, stream_one);
}

TEST_P(SuballocatorTest, TakesABlockWhereItIsTold) {
  parts.add(4096, 1000);
  Chunk* middle = parts.begin(parts->take_at(4196, 100));
  ASSERT_NE(middle, nullptr);
  EXPECT_EQ(middle->start, 4196U);
  EXPECT_EQ(middle->bytes, 100U);
  EXPECT_EQ(parts.holes(), (Places{{4096, 100}, {4296, 800}}));
  EXPECT_EQ(parts->take_at(4196, 1), nullptr);   // taken
  EXPECT_EQ(parts->take_at(4195, 2), nullptr);   // reaches into it
  EXPECT_EQ(parts->take_at(5000, 97), nullptr);  // beyond the end
  EXPECT_EQ(parts->take_at(4095, 1), nullptr);
  EXPECT_EQ(parts->take_at(5096, 1), nullptr);
  EXPECT_EQ(parts->take_at(4300, unbounded), nullptr);
  const Chunk* front = parts.begin(parts->take_at(4096, 100));
  const Chunk* back = parts.begin(parts->take_at(4996, 100));
  ASSERT_TRUE(front != nullptr && back != nullptr);
  EXPECT_EQ(parts.holes(), (Places{{4296, 700}}));
  parts.put(middle);
}

TEST_P(SuballocatorTest, WithoutMemoryForARestTheBlockKeepsIt) {
  parts.add(4096, 100'000);
  std::vector<Chunk*> blocks;
  blocks.reserve(100);
  Chunk* last = nullptr;
  {
    const FailingNew failing(1);
    while ((last = parts.take(100)) != nullptr)
      blocks.push_back(last);
    EXPECT_TRUE(FailingNew::has_failed());
  }
  EXPECT_EQ(blocks.size(), 32U);  // as many as there are records
  EXPECT_EQ(blocks.back()->bytes, 100'000U - 31 * 100);
  for (Chunk* block : blocks)
    parts.put(block);
  EXPECT_EQ(parts.holes(), (Places{{4096, 100'000}}));
}

TEST_P(SuballocatorTest, WithoutMemoryForASkipNothingIsTakenAndNothingChanges) {
  parts.add(4096, 100'000);
  for (int i = 0; i < 31; ++i)
    ASSERT_NE(parts.take(100), nullptr);
  const Places before = parts.holes();
  {
    const FailingNew failing(1);
    EXPECT_EQ(parts.take({.bytes = 100, .alignment = 4096}), nullptr);
    EXPECT_EQ(parts.add(1'000'000, 100), nullptr);
    EXPECT_FALSE(parts->extend(*parts.region_at(4096), {.bytes = 100'100}, {.bytes = 1}));
    EXPECT_EQ(parts->take_at(50'000, 100), nullptr);
    const std::uintptr_t hole = before.front().first;
    EXPECT_EQ(parts->take_at(hole, 100), nullptr);
  }
  parts.expect_lawful();
  EXPECT_EQ(parts.holes(), before);
  EXPECT_EQ(parts->bytes(), 100'000U);
  EXPECT_NE(parts.take({.bytes = 100, .alignment = 4096}), nullptr);
}

TEST_P(SuballocatorTest, WithOneRecordLeftABlockInTheMiddleOfAHoleIsNotTaken) {
  parts.add(4096, 100'000);
  for (int i = 0; i < 30; ++i)
    ASSERT_NE(parts.take(100), nullptr);
  const Places before = parts.holes();
  {
    const FailingNew failing(1);
    EXPECT_EQ(parts->take_at(50'000, 100), nullptr);  // would need two
  }
  parts.expect_lawful();
  EXPECT_EQ(parts.holes(), before);
  EXPECT_NE(parts.begin(parts->take_at(50'000, 100)), nullptr);
}

TEST_P(SuballocatorTest, ARegionIsIdleWhileNoBlockTouchesIt) {
  Region* first = parts.add(4096, 1000);
  Region* second = parts.add(16384, 1000);
  EXPECT_EQ(parts->oldest_idle(), first);
  EXPECT_EQ(Suballocator::next_idle(first), second);
  Chunk* a = parts.begin(parts->take_at(4096, 10));
  Chunk* b = parts.begin(parts->take_at(4106, 10));
  EXPECT_EQ(parts->oldest_idle(), second);
  EXPECT_EQ(parts->idle_bytes(), 1000U);
  parts.put(b);
  EXPECT_EQ(parts->idle_bytes(), 1000U);
  parts.put(a);
  EXPECT_EQ(parts->idle_bytes(), 2000U);
  EXPECT_EQ(parts->oldest_idle(), second);  // for longest
  EXPECT_TRUE(parts.remove(second));
  EXPECT_EQ(parts->bytes(), 1000U);
  EXPECT_EQ(parts->idle_bytes(), 1000U);
  EXPECT_TRUE(parts.remove(first));
  EXPECT_EQ(parts->bytes(), 0U);
  EXPECT_EQ(parts->oldest_idle(), nullptr);
}

TEST(Packed, SparesIdleRegionsWhileAHoleBesideABlockWillDo) {
  Parts parts({.placement = Placement::packed});
  parts.add(4096, 1000);
  const Chunk* block = parts.take(100);
  parts.add(65536, 500);
  const Chunk* beside = parts.take(400);
  ASSERT_TRUE(block != nullptr && beside != nullptr);
  EXPECT_EQ(beside->start, 4196U);  // though the idle region fits better
  EXPECT_EQ(parts.take(501), nullptr);
  EXPECT_EQ(parts.take(499)->start, 4596U);
  EXPECT_EQ(parts.take(499)->start, 65536U);
}

TEST(Packed, ItsOwnIdleRegionComesBeforeThoseOfOtherStreams) {
  Parts parts({.placement = Placement::packed});
  parts.add(4096, 1000, stream_two);
  parts.add(65536, 2000, stream_one);
  parts->know(stream_one);
  parts->know(stream_two);
  const Parts::Want want{.bytes = 900, .stream = stream_one, .shares_streams = true};
  EXPECT_EQ(parts.take(want), nullptr);  // a hole of another stream may do better
  EXPECT_EQ(parts.begin(parts->take_of_any_stream(want))->start, 65536U);
  EXPECT_EQ(parts.begin(parts->take_of_any_stream(want))->start, 66436U);
  EXPECT_EQ(parts.begin(parts->take_of_any_stream(want))->start, 4096U);
}

TEST(Packed, OfIdleRegionsTakesOneAsLargeAsWouldBeObtained) {
  Parts parts({.placement = Placement::packed});
  parts.add(4096, 500);
  parts.add(65536, 2000);
  parts.add(131072, 1000);
  EXPECT_EQ(parts.take({.bytes = 100, .region = 1000})->start, 131072U);
  EXPECT_EQ(parts.take({.bytes = 950, .region = 3000})->start, 65536U);  // there is none
  EXPECT_EQ(parts.take({.bytes = 400, .region = 400})->start, 131172U);
  EXPECT_EQ(parts.take({.bytes = 501, .region = 501})->start, 66'486U);
}

TEST(Packed, SparesTheEndOfARegionThatCanBeExtended) {
  Parts parts({.placement = Placement::packed, .extends = true});
  parts.add(4096, 10'000);
  Chunk* a = parts.take(300);
  const Chunk* b = parts.take(300);
  ASSERT_NE(b, nullptr);
  parts.put(a);
  EXPECT_EQ(parts.take(200)->start, 4096U);
  EXPECT_EQ(parts.take(200)->start, 4696U);  // the end, where nothing else will do
}

}  // namespace
}  // namespace cistern
