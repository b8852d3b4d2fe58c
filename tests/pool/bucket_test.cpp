// Which request goes to which bucket, number by number, and what a best fit takes.
#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;

std::size_t capacity_for(const BucketMap& map, std::size_t bytes) {
  const std::size_t bucket = map.bucket_for(bytes);
  return bucket < map.size() ? map.capacity(bucket) : 0;
}

TEST(BucketMap, PowersOfTwo) {
  const BucketMap map(Geometric{1}, 64);
  EXPECT_EQ(capacity_for(map, 1), 64U);
  EXPECT_EQ(capacity_for(map, 64), 64U);
  EXPECT_EQ(capacity_for(map, 65), 128U);
  EXPECT_EQ(capacity_for(map, 1_MiB), 1_MiB);
  EXPECT_EQ(capacity_for(map, 1_MiB + 1), 2_MiB);
  EXPECT_EQ(capacity_for(map, std::size_t{1} << 63), std::size_t{1} << 63);
  EXPECT_EQ(capacity_for(map, (std::size_t{1} << 63) + 1), 0U);
  EXPECT_EQ(capacity_for(map, unbounded), 0U);
}

TEST(BucketMap, EightPerDoubling) {
  const BucketMap map(Geometric{8}, 512);
  EXPECT_EQ(capacity_for(map, 1), 512U);
  EXPECT_EQ(capacity_for(map, 513), 1024U);
  EXPECT_EQ(capacity_for(map, 4_KiB), 4_KiB);
  EXPECT_EQ(capacity_for(map, 4_KiB + 1), 4_KiB + 512);
  EXPECT_EQ(capacity_for(map, 8_KiB + 1), 9_KiB);
  EXPECT_EQ(capacity_for(map, 15_KiB + 1), 16_KiB);
  EXPECT_EQ(capacity_for(map, 16_KiB + 1), 18_KiB);
  EXPECT_EQ(capacity_for(map, unbounded), 0U);
}

TEST(BucketMap, NetclsTable) {
  const BucketMap map(quadrupling_table(), 64);
  EXPECT_EQ(capacity_for(map, 1), 1_KiB);
  EXPECT_EQ(capacity_for(map, 1_KiB + 1), 4_KiB);
  EXPECT_EQ(capacity_for(map, 70_KiB), 256_KiB);
  EXPECT_EQ(capacity_for(map, 256_MiB), 256_MiB);
  EXPECT_EQ(capacity_for(map, 256_MiB + 1), 512_MiB);
  EXPECT_EQ(capacity_for(map, 3_GiB), 4_GiB);
}

TEST(BucketMap, ATableIsRoundedToTheGranularity) {
  const BucketMap map(Table{{100, 200, 600, 3000}}, 512);
  EXPECT_EQ(capacity_for(map, 1), 512U);
  EXPECT_EQ(capacity_for(map, 513), 1024U);
  EXPECT_EQ(capacity_for(map, 1025), 3072U);
  EXPECT_EQ(capacity_for(map, 3073), 4096U);
}

TEST(BucketMap, CapacitiesRise) {
  for (const Table& table : {Table{{100, 200}}, Table{{100, 600, 700, 1024}}}) {
    const BucketMap map(table, 512);
    for (std::size_t bucket = 1; bucket < map.size(); ++bucket)
      EXPECT_LT(map.capacity(bucket - 1), map.capacity(bucket));
  }
}

TEST(BucketMap, AGranularityThatLeavesNoRoomForBucketsIsRefused) {
  const std::size_t granularity = std::size_t{1} << 60;
  EXPECT_THROW(BucketMap(Geometric{64}, granularity), std::invalid_argument);
  EXPECT_THROW(BucketMap(Geometric{16}, granularity), std::invalid_argument);
  EXPECT_EQ(capacity_for(BucketMap(Geometric{8}, granularity), granularity + 1), 2 * granularity);
}

TEST(BucketMap, TheBucketIsAlwaysTheSmallestThatIsLargeEnough) {
  const std::uint64_t seed = testing::seed_or(11);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  for (const std::size_t granularity : {std::size_t{1}, std::size_t{64}, 4_KiB, 2_MiB}) {
    for (const unsigned per_doubling : {1U, 2U, 8U, 64U}) {
      const BucketMap map(Geometric{per_doubling}, granularity);
      for (int i = 0; i < 2'000; ++i) {
        const std::size_t bytes = random.size(62);
        const std::size_t bucket = map.bucket_for(bytes);
        ASSERT_LT(bucket, map.size());
        ASSERT_GE(map.capacity(bucket), bytes);
        if (bucket > 0) {
          ASSERT_LT(map.capacity(bucket - 1), bytes);
        }
        ASSERT_EQ(map.capacity(bucket) % granularity, 0U);
        const std::size_t most = std::max(granularity, bytes / per_doubling) + bytes;
        ASSERT_LE(map.capacity(bucket), most);
      }
    }
  }
}

Ref<Cache> best_fit(Fit fit) {
  return make<Cache>(
      make<SimulatedDevice>(SimulatedDevice::Options{.granularity = 64, .alignment = 64}),
      Cache::Options{.buckets = fit, .idle_ratio = Cache::no_ratio});
}

TEST(BestFit, TakesTheSmallestThatIsLargeEnoughAndTheOldestOfEqualOnes) {
  const Ref<Cache> cache = best_fit({});
  const Block large = cache->allocate(100'032);
  const Block older = cache->allocate(97'024);
  const Block newer = cache->allocate(97'024);
  for (const Block& block : {older, large, newer})
    cache->deallocate(block);
  std::vector<Block> taken;
  for (int i = 0; i < 3; ++i)
    taken.push_back(cache->allocate(96'000));
  EXPECT_EQ(taken[0].memory, older.memory);
  EXPECT_EQ(taken[1].memory, newer.memory);
  EXPECT_EQ(taken[2].memory, large.memory);
  for (const Block& block : taken)
    cache->deallocate(block);
}

TEST(BestFit, LeavesABlockThatIsTooLargeForTheRequest) {
  const Ref<Cache> cache = best_fit({});  // below twice the size, and below two pages more
  cache->deallocate(cache->allocate(1_MiB));
  const Block far_smaller = cache->allocate(1_MiB - 8_KiB);  // exactly two pages more: not below
  EXPECT_EQ(cache->stats().hits, 0U);
  const Block little_smaller = cache->allocate(1_MiB - 8_KiB + 64);
  EXPECT_EQ(cache->stats().hits, 1U);
  cache->deallocate(cache->allocate(4_KiB));
  const Block half = cache->allocate(2_KiB);  // half the size: not below
  EXPECT_EQ(cache->stats().hits, 1U);
  const Block more_than_half = cache->allocate(2_KiB + 64);
  EXPECT_EQ(cache->stats().hits, 2U);
  for (const Block& block : {far_smaller, little_smaller, half, more_than_half})
    cache->deallocate(block);
  testing::expect_all_accounted_for(*cache);
}

TEST(BestFit, WithoutSlackServesExactSizesOnly) {
  const Ref<Cache> cache = best_fit({.slack = 1, .slack_bytes = 0});
  const Block larger = cache->allocate(1_MiB);
  const Block block = cache->allocate(1_MiB - 64);
  cache->deallocate(larger);
  cache->deallocate(block);
  const Block same = cache->allocate(1_MiB - 100);  // rounded, exactly
  EXPECT_EQ(same.memory, block.memory);
  const Block other = cache->allocate(1_MiB - 64);
  EXPECT_NE(other.memory, larger.memory);
  cache->deallocate(same);
  cache->deallocate(other);
}

TEST(BestFit, HoldingMoreAtOnceThanEverBeforeUsesNoHeapWhereAllAreHits) {
  const Ref<Cache> cache = best_fit({});
  std::vector<Block> blocks(100);
  for (std::size_t i = 1; i <= blocks.size(); ++i)
    cache->deallocate(cache->allocate(i * 20'000));  // one at a time
  const testing::FailingNew failing(1);
  for (std::size_t i = 1; i <= blocks.size(); ++i)
    blocks[i - 1] = cache->allocate(i * 20'000);
  EXPECT_FALSE(testing::FailingNew::has_failed());
  EXPECT_EQ(cache->stats().hits, 100U);
  for (const Block& block : blocks)
    cache->deallocate(block);
}

TEST(IdleIndex, LooksAtThirtyTwoBlocksForOneThatIsAligned) {
  for (const BucketPolicy& policy : {BucketPolicy(Geometric{}), BucketPolicy(Fit{})}) {
    for (const std::size_t others : {31U, 32U}) {
      const Ref<Cache> cache =
          make<Cache>(make<SimulatedDevice>(),
                      Cache::Options{.buckets = policy, .idle_ratio = Cache::no_ratio});
      std::vector<Block> blocks = {cache->allocate({.bytes = 64_KiB, .alignment = 64_KiB})};
      const Block gap = cache->allocate(512);  // so that none of the next is aligned
      for (std::size_t i = 0; i < others; ++i)
        blocks.push_back(cache->allocate(64_KiB));
      // Buckets are searched from the newest, a fit from the oldest.
      if (std::holds_alternative<Fit>(policy)) std::swap(blocks.front(), blocks.back());
      for (const Block& block : blocks)
        cache->deallocate(block);
      cache->deallocate(cache->allocate({.bytes = 64_KiB, .alignment = 64_KiB}));
      EXPECT_EQ(cache->stats().hits, others < 32 ? 1U : 0U);
      cache->deallocate(gap);
    }
  }
}

TEST(Buckets, AreLastInFirstOut) {
  const Ref<Cache> cache =
      make<Cache>(make<SimulatedDevice>(), Cache::Options{.idle_ratio = Cache::no_ratio});
  const Block a = cache->allocate(1_MiB);
  const Block b = cache->allocate(1_MiB);
  cache->deallocate(a);
  cache->deallocate(b);
  const Block first = cache->allocate(1_MiB);
  EXPECT_EQ(first.memory, b.memory);
  cache->deallocate(first);
}

TEST(Buckets, WhereBothBoundsAreMetOneEvictionMayDoForBoth) {
  const Ref<Cache> cache = make<Cache>(
      make<SimulatedDevice>(),
      Cache::Options{.max_bytes = 2_MiB, .per_bucket = 1, .idle_ratio = Cache::no_ratio});
  const Block elsewhere = cache->allocate(1_MiB);
  const Block peer = cache->allocate(896_KiB);
  const Block block = cache->allocate(896_KiB);
  cache->deallocate(elsewhere);  // the least recently used
  cache->deallocate(peer);
  cache->deallocate(block);  // takes the place of its peer, and that is room enough
  EXPECT_EQ(cache->stats().device_frees, 1U);
  EXPECT_EQ(cache->stats().cached.current, 1_MiB + 896_KiB);
}

TEST(Buckets, OfABoundedNumberEvictTheirOldest) {
  const Ref<Cache> cache = make<Cache>(
      make<SimulatedDevice>(), Cache::Options{.per_bucket = 2, .idle_ratio = Cache::no_ratio});
  std::vector<Block> blocks;
  for (int i = 0; i < 3; ++i)
    blocks.push_back(cache->allocate(1_MiB));
  const Block elsewhere = cache->allocate(64_KiB);
  cache->deallocate(elsewhere);
  for (const Block& block : blocks)
    cache->deallocate(block);
  const std::vector<BucketStats> buckets = cache->buckets();
  ASSERT_EQ(buckets.size(), 2U);  // the other bucket's block is older, but has room
  EXPECT_EQ(buckets[1].cached_blocks, 2U);
  const Block first = cache->allocate(1_MiB);
  const Block second = cache->allocate(1_MiB);
  EXPECT_EQ(first.memory, blocks[2].memory);
  EXPECT_EQ(second.memory, blocks[1].memory);
  EXPECT_EQ(cache->stats().device_frees, 1U);
  cache->deallocate(first);
  cache->deallocate(second);
}

}  // namespace
}  // namespace cistern
