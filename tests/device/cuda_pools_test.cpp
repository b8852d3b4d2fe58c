// Every pool on a GPU that is not there, with every call of the driver failing in turn: a request
// that fails says so, whatever happens the figures balance, and in the end nothing is left.
#include <array>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/stack/stack.hpp"
#include "support/cuda_machine.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;

class PoolsOnFailingCuda : public testing::OnFakeCuda,
                           public ::testing::WithParamInterface<const char*> {
 protected:
  /// A program of four turns on two streams; false if a request failed.
  bool run() {
    const auto opened = device();
    const ProgramStream side(fake());
    const Stack stack = open(std::string(GetParam()) + " > mine", {{"mine", opened}});
    const Sides sides{name(*opened, nullptr), name(*opened, side.handle)};
    bool is_done = sides[1].stream.id != 0;
    for (int turn = 0; turn < 4; ++turn)
      is_done = run_turn(*stack, sides) && is_done;
    EXPECT_EQ(stack->validate(), "");
    EXPECT_EQ(stack->stats().live_blocks.current, 0U);
    EXPECT_EQ(stack->stats().live_granted.current, 0U);
    stack->reset();
    stack->trim();
    EXPECT_EQ(opened->stats().live_granted.current, 0U);
    EXPECT_EQ(opened->stats().reserved.current, 0U);
    EXPECT_EQ(fake().figures().used, 0U);
    const std::size_t free = opened->free_memory();
    if (!fake().failed_call().starts_with("cuMemGetInfo")) {
      EXPECT_EQ(free, opened->limits().total_memory) << fake().failed_call();
    }
    EXPECT_EQ(opened->validate(), "");
    if (sides[1].stream.id != 0) opened->stream_order()->retire(sides[1].stream);
    return is_done;
  }

 private:
  /// A stream that ends with the program's use of it.
  struct ProgramStream {
    explicit ProgramStream(testing::FakeCuda& fake)
        : machine(fake), handle(fake.make_stream(false)) {}
    ProgramStream(const ProgramStream&) = delete;
    ProgramStream& operator=(const ProgramStream&) = delete;
    ProgramStream(ProgramStream&&) = delete;
    ProgramStream& operator=(ProgramStream&&) = delete;
    ~ProgramStream() { machine.destroy_stream(handle); }
    testing::FakeCuda& machine;
    CUstream_st* handle;
  };
  struct Side {
    CUstream_st* handle = nullptr;
    Stream stream;
  };
  using Sides = std::array<Side, 2>;

  /// The default stream where the driver fails to say what stream it is.
  static Side name(CudaDevice& device, CUstream_st* handle) {
    try {
      return {.handle = handle, .stream = device.stream(handle)};
    } catch (const std::runtime_error&) {
      return {};
    }
  }

  bool run_turn(Resource& stack, const Sides& sides) {
    struct Used {
      Block block;
      Side side;
    };
    std::vector<Used> used;
    bool is_done = true;
    std::size_t i = 0;
    for (const std::size_t bytes : {100_KiB, 3_MiB, 6_MiB, 64_KiB, 3_MiB, 1_MiB}) {
      const Side& side = sides[i++ % 2];
      const Expected<Block> block = stack.try_allocate({.bytes = bytes, .stream = side.stream});
      if (block) {
        fake().launch(side.handle, {{.block = *block, .access = SimulatedQueues::Access::write}});
        used.push_back({*block, side});
      } else {
        is_done = false;
      }
    }
    for (const auto& [block, side] : used)
      EXPECT_TRUE(stack.deallocate(block, side.stream));
    stack.cycle();
    return is_done;
  }
};

INSTANTIATE_TEST_SUITE_P(All, PoolsOnFailingCuda,
                         ::testing::Values("limit(1GiB)", "cache", "coalesce", "virtual(page=2MiB)",
                                           "arena(warn_bytes=none)", "arena > coalesce",
                                           "planned > cache", "planned > coalesce", "tier(B)"));

TEST_P(PoolsOnFailingCuda, NothingIsLeftWhicheverCallFails) {
  const testing::CaughtReports reports;
  for (const CudaResult code : {CudaResult::out_of_memory, CudaResult::unknown}) {
    std::size_t failed = 0;
    for (std::size_t n = 1;; ++n) {
      ASSERT_LT(n, 2000U);
      fake().fail_next(n, code);
      bool is_done = false;
      try {
        is_done = run();
      } catch (const std::runtime_error&) {  // no device could be made
      }
      const std::string call = fake().failed_call();
      fake().fail_next(0, CudaResult::success);
      ASSERT_EQ(fake().leaks(), "") << call << ", the " << n << "-th call";
      ASSERT_EQ(fake().misuses(), std::vector<std::string>()) << call << ", the " << n << "-th";
      ASSERT_FALSE(HasFailure()) << call << ", the " << n << "-th call";
      if (!is_done) ++failed;
      if (call.empty()) {
        EXPECT_TRUE(is_done) << "nothing failed";
        break;
      }
    }
    EXPECT_GT(failed, 5U);
  }
}

}  // namespace
}  // namespace cistern
