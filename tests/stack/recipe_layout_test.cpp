// Where the models of other allocators put blocks, computed by hand from what those allocators do.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/stack/stack.hpp"
#include "support/ledger.hpp"

namespace cistern {
namespace {

using namespace literals;

constexpr std::uintptr_t first_region = 4_GiB;  // regions stand there one behind the other

class RecipeLayout : public ::testing::Test {
 public:
  void open(const char* recipe) { stack = cistern::open(std::string(recipe) + " > simulated"); }
  Block take(std::size_t bytes, std::uint64_t stream = 0) {
    held_.push_back(stack->allocate({.bytes = bytes, .stream = {.id = stream}}));
    return held_.back();
  }
  void free(const Block& block, std::uint64_t stream = 0) {
    EXPECT_TRUE(stack->deallocate(block, {.id = stream}));
    std::erase_if(held_, [&](const Block& each) { return each.node == block.node; });
  }
  void TearDown() override {
    for (const Block& block : held_)
      stack->deallocate(block);
    testing::expect_all_accounted_for(*stack);
  }
  static std::uintptr_t place(const Block& block) {
    return reinterpret_cast<std::uintptr_t>(block.memory) - first_region;
  }
  [[nodiscard]] std::size_t reserved() const { return stack->stats().reserved.current; }

  Stack stack;

 private:
  std::vector<Block> held_;
};

TEST_F(RecipeLayout, PyTorchRoundsTo512AndKeepsSmallBlocksApart) {
  open("pytorch");
  const Block a = take(1);
  EXPECT_EQ(place(a), 0U);
  EXPECT_EQ(a.bytes, 512U);
  const Block b = take(513);
  EXPECT_EQ(place(b), 512U);
  EXPECT_EQ(b.bytes, 1024U);
  EXPECT_EQ(reserved(), 2_MiB);
  const Block c = take(1_MiB);  // the largest small one
  EXPECT_EQ(place(c), 1536U);
  EXPECT_EQ(reserved(), 2_MiB);
  const Block d = take(1_MiB);  // too large for what is left
  EXPECT_EQ(place(d), 2_MiB);
  EXPECT_EQ(reserved(), 4_MiB);
  const Block e = take(1_MiB + 1);
  EXPECT_EQ(place(e), 4_MiB);
  EXPECT_EQ(e.bytes, 1_MiB + 512);
  EXPECT_EQ(reserved(), 24_MiB);  // a region of 20 MiB
  const Block f = take(10_MiB);
  EXPECT_EQ(place(f), 4_MiB + 1_MiB + 512);
  const Block g = take(10_MiB + 1);
  EXPECT_EQ(place(g), 24_MiB);  // in a region of its own, of the next 2 MiB
  EXPECT_EQ(g.bytes, 10_MiB + 512);
  EXPECT_EQ(reserved(), 36_MiB);
}

TEST_F(RecipeLayout, PyTorchSplitsSmallBlocksAtOnceAndLargeOnesBeyondAMebibyte) {
  open("pytorch");
  take(1_MiB - 512);
  const Block rest = take(1_MiB);
  EXPECT_EQ(place(rest), 1_MiB - 512);
  const Block last = take(512);  // exactly what is left
  EXPECT_EQ(place(last), 2_MiB - 512);
  const Block large = take(19_MiB);
  EXPECT_EQ(large.bytes, 20_MiB);  // 1 MiB is no rest
  free(large);
  const Block less = take(19_MiB - 512);
  EXPECT_EQ(less.bytes, 19_MiB - 512);
  EXPECT_EQ(place(less), place(large));
}

TEST_F(RecipeLayout, PyTorchTakesTheBestFitOfTheStream) {
  open("pytorch");
  const Block a = take(4096);
  take(512);
  const Block c = take(2048);
  take(512);
  free(a);
  free(c);
  EXPECT_EQ(place(take(2000)), place(c));
  EXPECT_EQ(place(take(2000)), place(a));
  EXPECT_EQ(place(take(100, 7)), 2_MiB);  // another stream has regions of its own
  EXPECT_EQ(reserved(), 4_MiB);
}

TEST_F(RecipeLayout, CuPyAsksForWhatIsRequestedAndSplitsAnyRest) {
  open("cupy");
  const Block a = take(10'000);
  EXPECT_EQ(a.bytes, 10'240U);
  EXPECT_EQ(reserved(), 10'240U);
  free(a);
  const Block b = take(9'000);
  EXPECT_EQ(place(b), 0U);
  EXPECT_EQ(b.bytes, 9'216U);
  const Block c = take(1'024);
  EXPECT_EQ(place(c), 9'216U);
  EXPECT_EQ(reserved(), 10'240U);
  take(1, 5);
  EXPECT_EQ(reserved(), 10'752U);
}

TEST_F(RecipeLayout, RmmDoublesAndSharesStreams) {
  open("rmm_pool");
  take(1_MiB);
  EXPECT_EQ(reserved(), 1_MiB);
  take(512);
  EXPECT_EQ(reserved(), 2_MiB);
  take(1_MiB);
  EXPECT_EQ(reserved(), 4_MiB);
  const Block d = take(10_MiB);
  EXPECT_EQ(reserved(), 14_MiB);
  free(d, 1);
  const Block e = take(10_MiB, 2);
  EXPECT_EQ(place(e), place(d));
}

TEST_F(RecipeLayout, BfcBeginsWithTwoMebibytesAndDoubles) {
  open("bfc");
  take(1_KiB);
  EXPECT_EQ(reserved(), 2_MiB);
  take(2_MiB);
  EXPECT_EQ(reserved(), 4_MiB);
  take(3_MiB);
  EXPECT_EQ(reserved(), 8_MiB);
  take(20_MiB);
  EXPECT_EQ(reserved(), 28_MiB);
}

TEST_F(RecipeLayout, BfcSplitsWhatIsTwiceTheRequest) {
  open("bfc");
  const Block a = take(1_MiB);
  EXPECT_EQ(a.bytes, 1_MiB);
  const Block b = take(512_KiB + 512);
  EXPECT_EQ(b.bytes, 1_MiB);
  const Block c = take(200_MiB);
  EXPECT_EQ(c.bytes, 200_MiB);
  free(c);
  const Block d = take(120_MiB);  // not twice, and not 128 MiB larger
  EXPECT_EQ(d.bytes, 200_MiB);
  free(d);
  const Block e = take(100_MiB);
  EXPECT_EQ(e.bytes, 100_MiB);
  free(e);
  const Block f = take(400_MiB);
  free(f);
  const Block g = take(272_MiB);  // 128 MiB are left
  EXPECT_EQ(g.bytes, 272_MiB);
  free(g);
  const Block h = take(273_MiB);
  EXPECT_EQ(h.bytes, 400_MiB);
}

}  // namespace
}  // namespace cistern
