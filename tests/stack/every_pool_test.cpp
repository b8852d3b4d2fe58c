// What a user may expect of every pool, whatever its design: the properties that the allocators of
// this field promise, and the faults that some of them have and these must not.
#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/device.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/cuda.hpp"
#include "cistern/device/opencl.hpp"
#include "cistern/stack/stack.hpp"
#include "support/fake_cuda.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;

struct PoolOnDevice {
  const char* pool = "";
  const char* device = "";  // in the place of the one that a test asks for, if any
  bool is_real = false;     // a GPU is there, and no other driver in its place
};

class EveryPool : public ::testing::TestWithParam<PoolOnDevice> {
 protected:
  void SetUp() override {
    std::string why;
    if (is_on("opencl") && find_opencl_devices(why).empty()) GTEST_SKIP() << why;
    if (GetParam().is_real) {
      if (find_cuda_devices(why).empty()) GTEST_SKIP() << "no CUDA device: " << why;
      if (open(GetParam().device)->device().free_memory() < 20_GiB)
        GTEST_SKIP() << "a GPU with 20 GiB free is needed";
    } else if (is_on("cuda")) {
      machine_ = std::make_unique<testing::FakeCuda>();
    }
  }
  void TearDown() override {
    if (machine_ == nullptr) return;
    EXPECT_EQ(machine_->leaks(), "");
    EXPECT_EQ(machine_->misuses(), std::vector<std::string>());
  }

  [[nodiscard]] static bool is_on(const char* device) {
    return std::string(GetParam().device).starts_with(device);
  }
  [[nodiscard]] static bool is_on_another() { return *GetParam().device != '\0'; }
  [[nodiscard]] static bool is_of(const char* pool) {
    return std::string(GetParam().pool).starts_with(pool);
  }

  [[nodiscard]] static Stack over(const std::string& device) { return open(text_over(device)); }
  /// On memory of at most so much.
  [[nodiscard]] static Stack over_capacity(const std::string& bytes, const char* options = "") {
    if (is_on("cuda")) return open(text_over("host", "ceiling=" + bytes));
    return over(is_on_another() ? "limit(" + bytes + ") > host"
                                : "simulated(capacity=" + bytes + options + ")");
  }

 private:
  std::unique_ptr<testing::FakeCuda> machine_;

  /// With one more argument of the device, perhaps.
  [[nodiscard]] static std::string text_over(std::string device, const std::string& more = "") {
    if (is_on_another()) {
      const std::size_t last = device.rfind("> ");
      device.replace(last == std::string::npos ? 0 : last + 2, std::string::npos,
                     GetParam().device);
      if (!more.empty()) device.insert(device.size() - 1, ", " + more);
    }
    return std::string(GetParam().pool) + " > " + device;
  }
};

constexpr PoolOnDevice pools_anywhere[] = {  // NOLINT(modernize-avoid-c-arrays): for ValuesIn
    {"cache"},
    {"coalesce"},
    {"coalesce(place=first)"},
    {"virtual(page=64KiB)"},
    {"pytorch"},
    {"cupy"},
    {"rmm_pool"},
    {"bfc"},
    {"mlx"},
    {"netcl"},
    {"tier(A)"},
    {"tier(B)"},
    {"retry(attempts=2, window=1s) > cache"},
    {"arena(warn_bytes=none)"},
    {"arena(chunk=1MiB, warn_bytes=none)"},
    {"planned > cache"}};
INSTANTIATE_TEST_SUITE_P(All, EveryPool, ::testing::ValuesIn(pools_anywhere));

constexpr PoolOnDevice pools_on_opencl[] = {  // NOLINT(modernize-avoid-c-arrays): for ValuesIn
    {"cache", "opencl(memory=buffer)"},
    {"cache", "opencl(memory=svm)"},
    {"cache", "opencl(memory=pinned)"},
    {"coalesce", "opencl(memory=buffer)"},
    {"coalesce", "opencl(memory=svm)"},
    {"coalesce", "opencl(memory=pinned)"},
    {"arena(warn_bytes=none)", "opencl(memory=buffer)"},
    {"arena(warn_bytes=none)", "opencl(memory=svm)"},
    {"arena(warn_bytes=none)", "opencl(memory=pinned)"}};
INSTANTIATE_TEST_SUITE_P(OnOpenCl, EveryPool, ::testing::ValuesIn(pools_on_opencl));

constexpr PoolOnDevice pools_on_cuda[] = {  // NOLINT(modernize-avoid-c-arrays): for ValuesIn
    {"cache", "cuda(memory=device)"},
    {"cache", "cuda(memory=managed)"},
    {"cache", "cuda(memory=pinned)"},
    {"cache", "cuda(memory=async)"},
    {"coalesce", "cuda(memory=device)"},
    {"coalesce", "cuda(memory=managed)"},
    {"coalesce", "cuda(memory=pinned)"},
    {"coalesce", "cuda(memory=async)"},
    {"virtual(page=2MiB)", "cuda(memory=device)"},
    {"arena(warn_bytes=none)", "cuda(memory=device)"},
    {"planned > cache", "cuda(memory=device)"},
    {"pytorch", "cuda(memory=device)"},
    {"rmm_pool", "cuda(memory=device)"},
    {"tier(A)", "cuda(memory=device)"},
    {"tier(B)", "cuda(memory=device)"}};
INSTANTIATE_TEST_SUITE_P(OnCuda, EveryPool, ::testing::ValuesIn(pools_on_cuda));

constexpr PoolOnDevice pools_on_gpu[] = {  // NOLINT(modernize-avoid-c-arrays): for ValuesIn
    {"cache", "cuda(memory=device)", true},
    {"cache", "cuda(memory=pinned)", true},
    {"cache", "cuda(memory=async)", true},
    {"coalesce", "cuda(memory=device)", true},
    {"virtual(page=2MiB)", "cuda(memory=device)", true},
    {"arena(warn_bytes=none)", "cuda(memory=device)", true},
    {"planned > cache", "cuda(memory=device)", true},
    {"tier(B)", "cuda(memory=device)", true}};
INSTANTIATE_TEST_SUITE_P(OnGpu, EveryPool, ::testing::ValuesIn(pools_on_gpu));

TEST_P(EveryPool, TakesEverySizeAndRefusesTheImpossible) {
  const Stack stack = over_capacity("16GiB");
  EXPECT_TRUE(stack->allocate(0).empty());
  for (const std::size_t bytes : {std::size_t{4}, 1_KiB, 1_MiB, 1_GiB}) {
    const Block block = stack->allocate(bytes);
    EXPECT_GE(block.bytes, bytes);
    EXPECT_TRUE(stack->deallocate(block));
  }
  Stats before = stack->stats();
  for (const std::size_t bytes : {1_GiB << 20U, std::numeric_limits<std::size_t>::max() - 1,
                                  std::numeric_limits<std::size_t>::max()}) {
    EXPECT_FALSE(stack->try_allocate({.bytes = bytes}).has_value());
    EXPECT_THROW(stack->allocate(bytes), OutOfMemory);
  }
  before.failures += 6;
  EXPECT_EQ(stack->stats(), before);
  EXPECT_TRUE(stack->deallocate(stack->allocate(1_KiB)));  // a failure poisons nothing
  testing::expect_nothing_held(*stack);
}

TEST_P(EveryPool, AHundredPairsOfALargeBlockWork) {
  const Stack stack = over("host");
  // Shared memory is touched when it is obtained.
  const std::size_t bytes = is_on("opencl") ? 16_MiB : 1_GiB;
  for (int i = 0; i < 100; ++i)
    stack->deallocate(stack->allocate(bytes));
  EXPECT_EQ(stack->stats().live_granted.current, 0U);
  testing::expect_nothing_held(*stack);
}

TEST_P(EveryPool, HonoursEveryAlignment) {
  const Stack stack = over("host");
  testing::Ledger ledger(*stack);
  const std::size_t most = std::min(1_MiB, stack->device().limits().max_alignment);
  for (std::size_t alignment = 1; alignment <= most; alignment *= 2) {
    ASSERT_TRUE(ledger.allocate({.bytes = 1000, .alignment = alignment}));
    ASSERT_TRUE(ledger.allocate({.bytes = 100'000, .alignment = alignment}));
  }
  ledger.expect_in_order();
  ledger.free_all();
}

TEST_P(EveryPool, RefusesWhatIsNoAlignment) {
  const Stack stack = over("host");
  stack->deallocate(stack->allocate(1000));
  const Block block = stack->allocate(1000);
  stack->reset();
  for (const std::size_t alignment : {3U, 5U, 48U, 96U}) {
    const Expected<Block> refused = stack->try_allocate({.bytes = 1000, .alignment = alignment});
    ASSERT_FALSE(refused.has_value()) << alignment;
    EXPECT_EQ(refused.error().code, Errc::bad_alignment);
  }
  if (stack->is_live(block)) stack->deallocate(block);
}

TEST_P(EveryPool, HasTheSameFiguresAndCanBeEmptied) {
  const Stack stack = over_capacity("1GiB");
  std::array<Block, 2> blocks{stack->allocate(10_KiB), stack->allocate(3_MiB)};
  const Stats live = stack->stats();
  EXPECT_EQ(live.live_blocks.current, 2U);
  EXPECT_EQ(live.live_requested.current, 3_MiB + 10_KiB);
  EXPECT_EQ(live.allocations, 2U);
  EXPECT_GE(live.reserved.current, live.live_granted.current);
  for (const Block& block : blocks)
    stack->deallocate(block);
  EXPECT_EQ(stack->stats().live_blocks.current, 0U);
  stack->trim();
  EXPECT_EQ(stack->stats().reserved.current, 0U);
  EXPECT_EQ(stack->stats().cached.current, 0U);
}

// After a trim as before it: what is freed is kept again.
TEST_P(EveryPool, KeepsWhatIsFreedAfterATrimToo) {
  if (is_of("arena")) {
    GTEST_SKIP() << "an arena that is never reset keeps nothing";
  }
  const Stack stack = over_capacity("1GiB");
  const auto turn = [&] {
    for (int i = 0; i < 10; ++i)
      stack->deallocate(stack->allocate(1_MiB));
  };
  turn();
  stack->trim();
  turn();
  const Stats before = stack->stats();
  turn();
  EXPECT_EQ(stack->stats().device_allocations, before.device_allocations);
}

// A pool that cannot take more under a ceiling still serves what is small.
TEST_P(EveryPool, ASmallRequestFitsUnderASmallCeiling) {
  if (is_of("virtual")) GTEST_SKIP() << "it has a ceiling of its own";
  const Stack stack = over("limit(8MiB) > host");
  const Block small = stack->allocate(1_KiB);
  EXPECT_FALSE(stack->try_allocate({.bytes = 9_MiB}).has_value());
  const Block another = stack->allocate(1_KiB);
  stack->deallocate(small);
  stack->deallocate(another);
}

// Four sizes in turn, each of which needs most of the device.
TEST_P(EveryPool, ASequenceThatFitsOnceFitsForEver) {
  const Stack stack = over_capacity("64MiB", ", granularity=64KiB");
  for (int turn = 0; turn < 10; ++turn) {
    for (const std::size_t bytes : {40_MiB, 33_MiB, 50_MiB, 60_MiB}) {
      const Expected<Block> block = stack->try_allocate({.bytes = bytes});
      ASSERT_TRUE(block.has_value()) << bytes << " in turn " << turn;
      stack->deallocate(*block);
    }
    std::vector<Block> parts;
    for (int i = 0; i < 15; ++i) {
      const Expected<Block> block = stack->try_allocate({.bytes = 4_MiB});
      ASSERT_TRUE(block.has_value()) << "part " << i << " in turn " << turn;
      parts.push_back(*block);
    }
    for (const Block& part : parts)
      stack->deallocate(part);
  }
  testing::expect_nothing_held(*stack);
}

// What one stream freed is there for the other, where the device is full.
TEST_P(EveryPool, TwoStreamsShareADevice) {
  const Stack stack = over_capacity("64MiB", ", granularity=64KiB");
  for (std::uint64_t turn = 0; turn < 20; ++turn) {
    const Stream stream{.handle = nullptr, .id = turn % 2 + 1};
    std::vector<Block> blocks;
    for (int i = 0; i < 3; ++i) {
      const Expected<Block> block = stack->try_allocate({.bytes = 16_MiB, .stream = stream});
      ASSERT_TRUE(block.has_value()) << "block " << i << " in turn " << turn;
      blocks.push_back(*block);
    }
    for (const Block& block : blocks)
      stack->deallocate(block, stream);
  }
  testing::expect_nothing_held(*stack);
}

TEST_P(EveryPool, AForeignOrRepeatedFreeChangesNothing) {
  const testing::CaughtReports reports;
  const Stack stack = over("simulated");
  const Stack other = over("simulated");
  const Block block = stack->allocate(1_MiB);
  EXPECT_FALSE(other->deallocate(block));
  EXPECT_TRUE(stack->deallocate(block));
  EXPECT_FALSE(stack->deallocate(block));
  EXPECT_EQ(stack->stats().live_granted.current, 0U);
  EXPECT_EQ(stack->validate(), "");
  EXPECT_EQ(other->validate(), "");
}

}  // namespace
}  // namespace cistern
