#include "cistern/core/address_map.hpp"

#include <map>

#include <gtest/gtest.h>

#include "support/addresses.hpp"
#include "support/failing_new.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using testing::address;

Block block_at(std::uintptr_t number, std::size_t bytes = 64) {
  return {.memory = address(number),
          .offset = 0,
          .bytes = bytes,
          .requested = bytes,
          .node = nullptr,
          .generation = 1};
}

TEST(AddressMap, GivesBackWhatWasPutIn) {
  AddressMap map;
  EXPECT_TRUE(map.insert(block_at(4096, 100), {.handle = nullptr, .id = 3}));
  EXPECT_TRUE(map.insert(block_at(8192, 200)));
  EXPECT_EQ(map.size(), 2U);
  EXPECT_FALSE(map.take(address(4097)));
  EXPECT_FALSE(map.take(nullptr));
  EXPECT_EQ(map.find(address(8192))->block.bytes, 200U);
  EXPECT_FALSE(map.find(address(8193)));
  EXPECT_FALSE(map.find(nullptr));
  EXPECT_EQ(map.size(), 2U);
  const auto entry = map.take(address(4096));
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->block.bytes, 100U);
  EXPECT_EQ(entry->stream.id, 3U);
  EXPECT_FALSE(map.find(address(4096)));
  EXPECT_FALSE(map.take(address(4096))) << "only once";
  EXPECT_EQ(map.size(), 1U);
}

TEST(AddressMap, AnAddressIsThereOnce) {
  AddressMap map;
  EXPECT_TRUE(map.insert(block_at(64, 1)));
  EXPECT_FALSE(map.insert(block_at(64, 2)));
  EXPECT_EQ(map.take(address(64))->block.bytes, 1U);
  EXPECT_TRUE(map.insert(block_at(64, 3)));
}

TEST(AddressMap, DrainingVisitsEachBlockOnce) {
  AddressMap map;
  for (std::uintptr_t i = 1; i <= 1000; ++i)
    ASSERT_TRUE(map.insert(block_at(i * 64)));
  std::map<void*, int> seen;
  map.drain([&](const AddressMap::Entry& entry) { ++seen[entry.block.memory]; });
  EXPECT_EQ(seen.size(), 1000U);
  for (const auto& [memory, times] : seen)
    EXPECT_EQ(times, 1) << memory;
  EXPECT_EQ(map.size(), 0U);
  map.drain([](const AddressMap::Entry&) { FAIL(); });
  EXPECT_TRUE(map.insert(block_at(64)));
}

TEST(AddressMap, TheNullAddressIsNotPutIn) {
  AddressMap map;
  EXPECT_FALSE(map.insert(Block{}));
  EXPECT_TRUE(map.insert(block_at(64)));
  EXPECT_FALSE(map.insert(Block{}));
  EXPECT_FALSE(map.take(nullptr));
  EXPECT_EQ(map.size(), 1U);
}

TEST(AddressMap, AFailedInsertionChangesNothing) {
  for (int n = 1;; ++n) {
    AddressMap map;
    bool inserted = false;
    bool failed = false;
    {
      const testing::FailingNew failing(n);
      inserted = map.insert(block_at(4096));
      failed = testing::FailingNew::has_failed();
    }
    EXPECT_NE(inserted, failed) << n;
    EXPECT_EQ(map.size(), inserted ? 1U : 0U) << n;
    EXPECT_EQ(map.take(address(4096)).has_value(), inserted) << n;
    EXPECT_TRUE(map.insert(block_at(4096))) << "and the next one may succeed";
    if (!failed) break;
    ASSERT_LT(n, 100);
  }
}

TEST(AddressMap, AtRestNothingIsAllocated) {
  AddressMap map;
  const auto turn = [&] {
    for (std::uintptr_t i = 1; i <= 100; ++i)
      ASSERT_TRUE(map.insert(block_at(i * 4096)));
    for (std::uintptr_t i = 1; i <= 100; ++i)
      ASSERT_TRUE(map.take(address(i * 4096)));
  };
  turn();
  const testing::FailingNew failing(1);
  turn();
}

TEST(AddressMap, AgreesWithAnOrdinaryMap) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  AddressMap map;
  std::map<void*, std::size_t> expected;
  for (int i = 0; i < 100'000; ++i) {
    const std::uintptr_t number = (1 + random.below(2000)) << (random.chance(50) ? 6U : 21U);
    if (random.chance(50)) {
      ASSERT_EQ(map.insert(block_at(number, static_cast<std::size_t>(i))),
                expected.emplace(address(number), static_cast<std::size_t>(i)).second);
    } else {
      const auto entry = map.take(address(number));
      const auto found = expected.find(address(number));
      ASSERT_EQ(entry.has_value(), found != expected.end());
      if (entry) {
        ASSERT_EQ(entry->block.bytes, found->second);
        expected.erase(found);
      }
    }
    if (i > 2000 && i % 1000 != 0) continue;  // the law is dear to check
    ASSERT_EQ(map.validate(), "");
    ASSERT_EQ(map.size(), expected.size());
  }
}

}  // namespace
}  // namespace cistern
