// Threads on one CUDA device, over a driver that is not there: streams come and go, graphs are
// captured, the first requests race to choose the context.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/core/transfer.hpp"
#include "cistern/stack/stack.hpp"
#include "support/cuda_machine.hpp"
#include "support/seed.hpp"
#include "support/threads.hpp"

namespace cistern {
namespace {

using namespace literals;
using CudaKind = CudaDevice::Memory;

/// A thread's program: a stream of its own that is retired and made anew, and the blocks on it.
class CudaWorker {
 public:
  CudaWorker(testing::FakeCuda& fake, CudaDevice& device, Resource& stack, std::uint64_t seed)
      : fake_(fake), device_(device), stack_(stack), random_(seed) {
    begin();
  }

  void run(int steps) {
    for (int i = 0; i < steps; ++i)
      step();
    end();
  }

 private:
  void begin() {
    handle_ = fake_.make_stream(random_.chance(50));
    stream_ = device_.stream(handle_);
  }
  void end() {
    for (const Block& block : blocks_)
      EXPECT_TRUE(stack_.deallocate(block, stream_));
    blocks_.clear();
    device_.stream_order()->retire(stream_);
    fake_.destroy_stream(handle_);
  }

  void step() {
    const std::uint64_t choice = random_.below(100);
    if (choice < 50 || blocks_.empty()) {
      allocate();
    } else if (choice < 90) {
      EXPECT_TRUE(stack_.deallocate(blocks_.back(), stream_));
      blocks_.pop_back();
    } else if (choice < 94) {
      EXPECT_TRUE(device_.stream_order()->synchronize(stream_));
    } else if (choice < 96) {
      stack_.trim();
    } else if (choice < 98) {
      capture();
    } else {
      end();
      begin();
    }
  }

  void allocate() {
    const Expected<Block> block =
        stack_.try_allocate({.bytes = 1 + random_.below(64_KiB), .stream = stream_});
    if (!block) return;
    fake_.launch(handle_, {{.block = *block, .access = SimulatedQueues::Access::write}});
    if (random_.chance(20)) {
      const std::vector<std::byte> sent(100, std::byte('s'));
      EXPECT_TRUE(device_.transfer()->upload(*block, 0, std::span(sent).first(1), stream_));
    }
    blocks_.push_back(*block);
  }

  // By the thread alone, as a library captures that does not know of the others.
  void capture() {
    fake_.begin_capture(handle_, CudaCaptureMode::global);
    EXPECT_TRUE(stack_.deallocate(blocks_.back(), stream_));
    blocks_.pop_back();
    if (const Expected<Block> block = stack_.try_allocate({.bytes = 1_KiB, .stream = stream_})) {
      EXPECT_TRUE(stack_.deallocate(*block, stream_));
    }
    EXPECT_TRUE(fake_.end_capture(handle_));
  }

  testing::FakeCuda& fake_;
  CudaDevice& device_;
  Resource& stack_;
  testing::Random random_;
  CUstream_st* handle_ = nullptr;
  Stream stream_;
  std::vector<Block> blocks_;
};

struct CudaRaceStack {
  const char* pools = "";
  CudaKind memory = CudaKind::device;
};

class CudaRace : public testing::OnFakeCuda, public ::testing::WithParamInterface<CudaRaceStack> {};

INSTANTIATE_TEST_SUITE_P(
    All, CudaRace,
    ::testing::Values(CudaRaceStack{.pools = "limit(1GiB) > mine"},
                      CudaRaceStack{.pools = "cache > mine"},
                      CudaRaceStack{.pools = "coalesce > mine", .memory = CudaKind::managed},
                      CudaRaceStack{.pools = "virtual(page=2MiB) > mine"},
                      CudaRaceStack{.pools = "limit(1GiB) > mine", .memory = CudaKind::async}));

TEST_P(CudaRace, ThreadsWithStreamsOfTheirOwnLoseNothing) {
  const std::uint64_t seed = testing::seed_or(3);
  SCOPED_TRACE(testing::replay_hint(seed));
  {
    const auto opened = device({.memory = GetParam().memory, .staging = 16_KiB});
    const Stack stack = open(GetParam().pools, {{"mine", opened}});
    testing::on_threads(4, [&](unsigned index) {
      CudaWorker worker(fake(), *opened, *stack, seed + index);
      worker.run(200);
      EXPECT_EQ(fake().current(), nullptr);
    });
    EXPECT_EQ(stack->validate(), "");
    EXPECT_EQ(stack->stats().live_blocks.current, 0U);
    stack->trim();
    EXPECT_EQ(stack->stats().reserved.current, 0U);
  }
}

}  // namespace
}  // namespace cistern
