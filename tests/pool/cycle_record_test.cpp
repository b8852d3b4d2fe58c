// What the record of a cycle tells, and when it gives up.
#include "cistern/pool/cycle_record.hpp"

#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/failing_new.hpp"

namespace cistern {
namespace {

using Kind = CycleRecord::Kind;
using ::testing::ElementsAre;

CycleRecord some_record(std::size_t bytes) {
  CycleRecord record;
  record.add_allocation({.bytes = bytes});
  record.add_allocation({.bytes = 2 * bytes, .alignment = 4096, .stream = {.id = 5}});
  record.add_free(Kind::free, 0);
  record.add_free(Kind::free_of_cycle_before, 1);
  return record;
}

TEST(CycleRecord, NotesWhatHappens) {
  const CycleRecord record = some_record(100);
  EXPECT_TRUE(record.is_whole());
  EXPECT_EQ(record.allocations(), 2U);
  EXPECT_THAT(record.bytes(), ElementsAre(100U, 200U));
  EXPECT_THAT(record.events(),
              ElementsAre(CycleRecord::Event{.kind = Kind::allocate, .bytes = 100},
                          CycleRecord::Event{.kind = Kind::allocate,
                                             .alignment_bits = 13,
                                             .allocation = 1,
                                             .stream = 5,
                                             .bytes = 200},
                          CycleRecord::Event{.kind = Kind::free},
                          CycleRecord::Event{.kind = Kind::free_of_cycle_before, .allocation = 1}));
}

TEST(CycleRecord, TheLargestAlignmentIsToldFromNone) {
  const std::size_t largest = std::size_t{1} << (std::numeric_limits<std::size_t>::digits - 1U);
  CycleRecord record;
  record.add_allocation({.bytes = 1, .alignment = largest});
  record.add_allocation({.bytes = 1, .alignment = 1});
  record.add_allocation({.bytes = 1});
  EXPECT_EQ(record.events()[0].alignment_bits, 64U);
  EXPECT_EQ(record.events()[1].alignment_bits, 1U);
  EXPECT_EQ(record.events()[2].alignment_bits, 0U);
}

TEST(CycleRecord, SizesAloneMakeNoDifference) {
  const CycleRecord record = some_record(100);
  EXPECT_TRUE(record.is_like(some_record(100)));
  EXPECT_TRUE(record.is_like(some_record(7)));
  CycleRecord other = some_record(7);
  other.set_bytes({100, 200});
  EXPECT_EQ(other.events(), record.events());
}

TEST(CycleRecord, AllElseDoes) {
  const CycleRecord record = some_record(100);
  CycleRecord longer = some_record(100);
  longer.add_free(Kind::free, 1);
  EXPECT_FALSE(record.is_like(longer));
  EXPECT_FALSE(longer.is_like(record));

  const auto with = [](const Request& request, Kind kind, std::uint32_t freed) {
    CycleRecord one;
    one.add_allocation({.bytes = 1});
    one.add_allocation(request);
    one.add_free(kind, freed);
    return one;
  };
  const CycleRecord one = with({.bytes = 1}, Kind::free, 0);
  EXPECT_TRUE(one.is_like(with({.bytes = 1}, Kind::free, 0)));
  EXPECT_FALSE(one.is_like(with({.bytes = 1, .alignment = 64}, Kind::free, 0)));
  EXPECT_FALSE(one.is_like(with({.bytes = 1, .stream = {.id = 1}}, Kind::free, 0)));
  EXPECT_FALSE(one.is_like(with({.bytes = 1}, Kind::free_of_cycle_before, 0)));
  EXPECT_FALSE(one.is_like(with({.bytes = 1}, Kind::free, 1)));
}

TEST(CycleRecord, WithoutAllocationsIsLikeNone) {
  CycleRecord record;
  EXPECT_FALSE(record.is_like(record));
  record.add_free(Kind::free_of_cycle_before, 0);
  EXPECT_FALSE(record.is_like(record));
}

TEST(CycleRecord, GivenUpIsLikeNoneUntilItBeginsAnew) {
  CycleRecord record = some_record(100);
  record.give_up();
  EXPECT_FALSE(record.is_whole());
  EXPECT_FALSE(record.is_like(some_record(100)));
  EXPECT_FALSE(some_record(100).is_like(record));
  EXPECT_EQ(record.add_allocation({.bytes = 1}), 2U);  // numbers go on
  EXPECT_EQ(record.events().size(), 4U);
  record.clear();
  EXPECT_TRUE(record.is_whole());
  EXPECT_TRUE(record.events().empty());
  EXPECT_EQ(record.add_allocation({.bytes = 1}), 0U);
}

TEST(CycleRecord, GivesUpWhereTooMuchHappens) {
  CycleRecord record;
  for (std::size_t i = 0; i < CycleRecord::most_events; ++i)
    record.add_allocation({.bytes = 1});
  EXPECT_TRUE(record.is_whole());
  record.add_allocation({.bytes = 1});
  EXPECT_FALSE(record.is_whole());
  EXPECT_EQ(record.events().size(), CycleRecord::most_events);
}

TEST(CycleRecord, GivesUpWhereMemoryRunsOut) {
  CycleRecord record;
  const testing::FailingNew failing(1);
  record.add_allocation({.bytes = 1});
  EXPECT_FALSE(record.is_whole());
}

}  // namespace
}  // namespace cistern
