// The two ways to find a hole, each against a search of them all.
#include "cistern/pool/hole_index.hpp"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;

/// Holes that are compared by what the model orders them by: (size, address) or the address.
class Holes {
 public:
  explicit Holes(std::size_t number) : chunks_(number) {}
  Chunk& operator[](std::size_t i) { return chunks_[i]; }
  [[nodiscard]] std::size_t size() const { return chunks_.size(); }

 private:
  std::vector<Chunk> chunks_;
};

/// What a policy should find among the holes that are in.
template <class Index>
const Chunk* expected(const std::set<const Chunk*>& in, std::size_t bytes) {
  const Chunk* best = nullptr;
  for (const Chunk* hole : in) {
    if (hole->bytes < bytes) continue;
    const bool is_better =
        best == nullptr || (std::is_same_v<Index, BestFit> ? std::pair(hole->bytes, hole->start) <
                                                                 std::pair(best->bytes, best->start)
                                                           : hole->start < best->start);
    if (is_better) best = hole;
  }
  return best;
}

template <class Index>
class HoleIndexTest : public ::testing::Test {};
using Policies = ::testing::Types<BestFit, FirstFit>;
TYPED_TEST_SUITE(HoleIndexTest, Policies);

template <class Index>
void random_run(std::uint64_t seed, unsigned max_bits) {
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  Holes holes(60);
  for (std::size_t i = 0; i < holes.size(); ++i)
    holes[i].start = (i * 37 % 61 + 1) * 4096;
  const auto index = std::make_unique<Index>();
  std::set<const Chunk*> in;
  for (int step = 0; step < 2000; ++step) {
    Chunk& hole = holes[random.below(holes.size())];
    if (in.contains(&hole)) {
      index->erase(&hole);
      in.erase(&hole);
    } else {
      hole.bytes = random.chance(30) ? 1000 : random.size(max_bits);
      index->insert(&hole);
      in.insert(&hole);
    }
    ASSERT_EQ(index->validate(), "");
    ASSERT_EQ(index->empty(), in.empty());
    std::size_t largest = 0;
    for (const Chunk* each : in)
      largest = std::max(largest, each->bytes);
    ASSERT_EQ(index->largest(), largest);
    for (const std::size_t bytes :
         {random.size(max_bits), std::size_t{1}, std::size_t{1000}, std::size_t{1001},
          std::max<std::size_t>(largest, 1), largest + 1})
      ASSERT_EQ(index->find(bytes), (expected<Index>(in, bytes))) << bytes;
    std::set<const Chunk*> visited;
    index->each([&](const Chunk& each) { visited.insert(&each); });
    ASSERT_EQ(visited, in);
  }
}

TYPED_TEST(HoleIndexTest, FindsWhatASearchOfAllFinds) {
  for (std::uint64_t seed = testing::seed_or(1), end = seed + 4; seed < end; ++seed)
    for (const unsigned max_bits : {6U, 12U, 30U, 63U})
      random_run<TypeParam>(seed, max_bits);
}

TYPED_TEST(HoleIndexTest, AnEmptyOneFindsNothing) {
  const auto index = std::make_unique<TypeParam>();
  EXPECT_EQ(index->find(1), nullptr);
  EXPECT_EQ(index->find(unbounded), nullptr);
  EXPECT_EQ(index->largest(), 0U);
  EXPECT_TRUE(index->empty());
}

TYPED_TEST(HoleIndexTest, EverySizeFromOneByteToTheLargestIsFoundExactly) {
  for (unsigned bit = 0; bit < 64; ++bit) {
    for (const std::size_t bytes : {(std::size_t{1} << bit), (std::size_t{1} << bit) * 2 - 1}) {
      const auto index = std::make_unique<TypeParam>();
      Chunk hole;
      hole.start = 4096;
      hole.bytes = bytes;
      index->insert(&hole);
      EXPECT_EQ(index->find(bytes), &hole) << bytes;
      EXPECT_EQ(index->find(1), &hole) << bytes;
      EXPECT_EQ(index->largest(), bytes);
      if (bytes < unbounded) {
        EXPECT_EQ(index->find(bytes + 1), nullptr) << bytes;
      }
      EXPECT_EQ(index->validate(), "");
      index->erase(&hole);
      EXPECT_TRUE(index->empty());
      EXPECT_EQ(index->find(1), nullptr);
    }
  }
}

TEST(BestFit, OfEqualOnesTakesTheLowestAddress) {
  const auto index = std::make_unique<BestFit>();
  Holes holes(8);
  for (std::size_t i = 0; i < holes.size(); ++i) {
    holes[i].start = (i * 3 % 8 + 1) * 1_MiB;
    holes[i].bytes = 64_KiB;
    index->insert(&holes[i]);
  }
  for (std::size_t place = 1; place <= holes.size(); ++place) {
    Chunk* found = index->find(60_KiB);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->start, place * 1_MiB);
    index->erase(found);
  }
}

TEST(BestFit, TellsSizesOfOneBinApart) {
  const auto index = std::make_unique<BestFit>();
  Holes holes(2);
  holes[0].bytes = 1_MiB + 2;
  holes[0].start = 1_MiB;
  holes[1].bytes = 1_MiB + 1;
  holes[1].start = 4_MiB;
  index->insert(&holes[0]);
  index->insert(&holes[1]);
  EXPECT_EQ(index->find(1_MiB), &holes[1]);
  EXPECT_EQ(index->find(1_MiB + 1), &holes[1]);
  EXPECT_EQ(index->find(1_MiB + 2), &holes[0]);
  EXPECT_EQ(index->find(1_MiB + 3), nullptr);
  EXPECT_EQ(index->largest(), 1_MiB + 2);
}

TEST(HoleIndex, IsOfThePolicyItWasMadeWith) {
  Holes holes(2);
  holes[0].start = 4096;
  holes[0].bytes = 2000;
  holes[1].start = 8192;
  holes[1].bytes = 1000;
  for (const Placement placement : {Placement::packed, Placement::best, Placement::first}) {
    HoleIndex index(placement);
    index.insert(&holes[0]);
    index.insert(&holes[1]);
    EXPECT_EQ(index.find(1000), &holes[placement == Placement::first ? 0 : 1]);
    EXPECT_EQ(index.largest(), 2000U);
    EXPECT_EQ(index.validate(), "");
    index.erase(&holes[0]);
    index.erase(&holes[1]);
    EXPECT_TRUE(index.empty());
  }
}

}  // namespace
}  // namespace cistern
