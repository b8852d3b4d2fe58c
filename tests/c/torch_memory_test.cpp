// What PyTorch asks of its memory, over GPUs that are not there.
#include "c/torch_memory.hpp"

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "support/cuda_machine.hpp"
#include "support/environment.hpp"
#include "support/failing_new.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;

/// What two tests ask for is managed memory: the streams are known there, too.
constexpr const char* on_second = "fallback(limit(1MiB) > cuda, cache > cuda(memory=managed))";

class TorchOnFakeCuda : public testing::OnFakeCuda {
 protected:
  void stand_on(const char* stack) {
    environment_.reset();
    environment_ = std::make_unique<testing::Environment>("CISTERN_STACK", stack);
  }
  void use(CUstream_st* stream, void* memory, std::size_t bytes) {
    fake().launch(stream, {{.block = {.memory = memory, .bytes = bytes},
                            .access = SimulatedQueues::Access::write}});
  }
  /// What is wrong with the first request.
  [[nodiscard]] static std::string refusal(int gpu = 0) {
    TorchMemory memory;
    try {
      memory.free(memory.allocate(1_MiB, gpu, nullptr), gpu, nullptr);
      return "";
    } catch (const std::exception& error) {
      return error.what();
    }
  }

 private:
  std::unique_ptr<testing::Environment> environment_;
};

TEST_F(TorchOnFakeCuda, EachGpuHasAStackFromTheFirstRequestOn) {
  on({.gpus = 2});
  TorchMemory memory;
  EXPECT_EQ(memory.stats(1), Stats{});
  EXPECT_EQ(fake().figures().contexts, 0U);
  void* const second = memory.allocate(1_MiB, 1, nullptr);
  EXPECT_EQ(fake().figures().contexts, 1U);
  EXPECT_EQ(memory.stats(0), Stats{});
  void* const first = memory.allocate(3_MiB, 0, nullptr);
  EXPECT_EQ(fake().figures().contexts, 2U);
  EXPECT_EQ(memory.stats(0).live_requested.current, 3_MiB);
  EXPECT_EQ(memory.stats(1).live_requested.current, 1_MiB);
  memory.free(first, 0, nullptr);
  memory.free(second, 1, nullptr);
  EXPECT_GT(memory.stats(0).reserved.current, 0U) << "a pool keeps it";
  memory.trim();
  EXPECT_EQ(memory.stats(0).reserved.current, 0U);
  EXPECT_EQ(memory.stats(1).reserved.current, 0U);
}

TEST_F(TorchOnFakeCuda, NoBytesAreNoMemory) {
  TorchMemory memory;
  EXPECT_EQ(memory.allocate(0, 0, nullptr), nullptr);
  memory.free(nullptr, 0, nullptr);
  EXPECT_EQ(fake().calls(), 0U);
}

TEST_F(TorchOnFakeCuda, AStreamWaitsForTheOneThatFreed) {
  for (const char* stack : {"cache > cuda", "coalesce > cuda", "virtual > cuda", on_second}) {
    SCOPED_TRACE(stack);
    stand_on(stack);
    TorchMemory memory;
    CUstream_st* const streams[] = {fake().make_stream(false), fake().make_stream(false), nullptr};
    for (int turn = 0; turn < 12; ++turn) {
      CUstream_st* const stream = streams[turn % 3];
      void* const tensor = memory.allocate(2_MiB, 0, stream);
      use(stream, tensor, 2_MiB);
      memory.free(tensor, 0, stream);
    }
    EXPECT_LE(memory.stats(0).device_allocations, 2U) << "it is the same memory";
  }
}

TEST_F(TorchOnFakeCuda, AFreeOnAnotherStreamWaitsForTheOneOfTheRequest) {
  for (const char* stack :
       {"cache > cuda", "coalesce > cuda", "virtual > cuda", "cuda", on_second}) {
    SCOPED_TRACE(stack);
    stand_on(stack);
    TorchMemory memory;
    CUstream_st* const requested = fake().make_stream(false);
    CUstream_st* const freed = fake().make_stream(false);
    CUstream_st* const next = fake().make_stream(false);
    void* const tensor = memory.allocate(2_MiB, 0, requested);
    use(requested, tensor, 2_MiB);
    memory.free(tensor, 0, freed);
    void* const same = memory.allocate(2_MiB, 0, freed);
    use(freed, same, 2_MiB);
    memory.free(same, 0, requested);
    void* const third = memory.allocate(2_MiB, 0, next);
    use(next, third, 2_MiB);
    memory.free(third, 0, next);
  }
}

TEST_F(TorchOnFakeCuda, AStreamThatIsRecordedIsWaitedFor) {
  on({.gpus = 2});
  TorchMemory memory;
  CUstream_st* const home = fake().make_stream(false);
  CUstream_st* const side = fake().make_stream(false);
  void* const tensor = memory.allocate(2_MiB, 0, home);
  use(home, tensor, 2_MiB);
  fake().wait(side, home);
  use(side, tensor, 2_MiB);
  memory.also_used_on(tensor, side);
  memory.free(tensor, 0, home);
  void* const same = memory.allocate(2_MiB, 0, home);
  EXPECT_EQ(same, tensor);
  use(home, same, 2_MiB);
  memory.free(same, 0, home);
}

TEST_F(TorchOnFakeCuda, AThreadsDefaultStreamIsNotAnothers) {
  auto* const per_thread =
      reinterpret_cast<CUstream_st*>(cuda_per_thread_stream);  // NOLINT(performance-no-int-to-ptr)
  stand_on("cache > cuda");
  TorchMemory memory;
  void* const tensor = memory.allocate(2_MiB, 0, per_thread);
  use(per_thread, tensor, 2_MiB);
  std::thread([&] {
    fake().wait(per_thread, nullptr);  // and so for the other thread's
    use(per_thread, tensor, 2_MiB);
    memory.free(tensor, 0, per_thread);
  }).join();
  void* const same = memory.allocate(2_MiB, 0, per_thread);
  EXPECT_EQ(same, tensor);
  use(per_thread, same, 2_MiB);
  memory.free(same, 0, per_thread);
}

TEST_F(TorchOnFakeCuda, AStreamThatIsRetiredMayBeDestroyed) {
  for (const char* stack : {"cache > cuda", "coalesce > cuda", "virtual > cuda"}) {
    SCOPED_TRACE(stack);
    stand_on(stack);
    TorchMemory memory;
    CUstream_st* const own = fake().make_stream(false);
    memory.retire(0, own);  // of which nothing is known yet
    memory.retire(-1, own);
    void* const tensor = memory.allocate(2_MiB, 0, own);
    void* const recorded = memory.allocate(2_MiB, 0, nullptr);
    use(own, tensor, 2_MiB);
    memory.also_used_on(recorded, own);
    memory.free(tensor, 0, own);
    memory.retire(0, own);
    fake().destroy_stream(own);
    memory.free(recorded, 0, nullptr);
    void* const next = memory.allocate(2_MiB, 0, nullptr);
    use(nullptr, next, 2_MiB);
    memory.free(next, 0, nullptr);
    memory.trim();
  }
}

TEST_F(TorchOnFakeCuda, WhatIsNotLiveIsReportedAndLeftAlone) {
  on({.gpus = 2});
  const testing::CaughtReports reports;
  TorchMemory memory;
  void* const tensor = memory.allocate(1_MiB, 0, nullptr);
  void* const other = memory.allocate(1_MiB, 1, nullptr);
  const auto refused = [&](void* address, int gpu) {
    const std::size_t before = testing::CaughtReports::all().size();
    memory.free(address, gpu, nullptr);
    return testing::CaughtReports::all().size() == before + 1 &&
           testing::CaughtReports::all().back().starts_with("refused to free ");
  };
  EXPECT_TRUE(refused(static_cast<char*>(tensor) + 1, 0));
  EXPECT_TRUE(refused(tensor, 1)) << "another GPU's";
  EXPECT_TRUE(refused(tensor, 7)) << "of which nothing was requested";
  EXPECT_TRUE(refused(tensor, -1));
  EXPECT_EQ(memory.stats(0).live_blocks.current, 1U);
  memory.free(tensor, 0, nullptr);
  EXPECT_TRUE(refused(tensor, 0)) << "a second time";
  memory.free(other, 1, nullptr);
  EXPECT_EQ(memory.stats(1).live_blocks.current, 0U);
  EXPECT_EQ(testing::CaughtReports::all().size(), 5U);
  memory.also_used_on(tensor, nullptr);
  memory.also_used_on(nullptr, nullptr);
  EXPECT_EQ(testing::CaughtReports::all().size(), 5U) << "PyTorch does that with others' memory";
}

TEST_F(TorchOnFakeCuda, AForeignStreamIsRefusedByARequestAndReportedByAFree) {
  const testing::CaughtReports reports;
  TorchMemory memory;
  void* const tensor = memory.allocate(1_MiB, 0, nullptr);
  fake().push(fake().make_context());
  CUstream_st* const foreign = fake().make_stream();
  fake().pop();
  EXPECT_THROW((void)memory.allocate(1_MiB, 0, foreign), std::invalid_argument);
  memory.free(tensor, 0, foreign);
  EXPECT_EQ(memory.stats(0).live_blocks.current, 0U);
  ASSERT_EQ(testing::CaughtReports::all().size(), 1U);
  EXPECT_NE(testing::CaughtReports::all()[0].find("another context"), std::string::npos)
      << testing::CaughtReports::all()[0];
}

TEST_F(TorchOnFakeCuda, NothingIsGivenOutInACapture) {
  TorchMemory memory;
  CUstream_st* const stream = fake().make_stream(false);
  memory.free(memory.allocate(1_MiB, 0, stream), 0, stream);
  void* const before = memory.allocate(1_MiB, 0, stream);
  fake().begin_capture(stream);
  try {
    (void)memory.allocate(1_MiB, 0, stream);
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("torch.cuda.graph"), std::string::npos);
  }
  EXPECT_EQ(memory.stats(0).live_blocks.current, 1U);
  memory.free(before, 0, stream);
  EXPECT_TRUE(fake().end_capture(stream)) << "it is as it was";
  memory.free(memory.allocate(1_MiB, 0, stream), 0, stream);
}

TEST_F(TorchOnFakeCuda, AFreeOnTheStreamOfTheRequestAsksNothingOfTheDriver) {
  const testing::CaughtReports reports;
  TorchMemory memory;
  CUstream_st* const stream = fake().make_stream(false);
  void* const tensor = memory.allocate(1_MiB, 0, stream);
  memory.free(memory.allocate(1_MiB, 0, stream), 0, stream);
  const auto calls = fake().calls();
  memory.free(tensor, 0, stream);
  EXPECT_EQ(fake().calls(), calls) << "the stream is known";
  EXPECT_EQ(testing::CaughtReports::all(), std::vector<std::string>());
}

TEST_F(TorchOnFakeCuda, OutOfMemorySaysWhatStoodInTheWay) {
  stand_on("limit(4MiB) > cache > cuda");
  TorchMemory memory;
  void* const tensor = memory.allocate(3_MiB, 0, nullptr);
  try {
    (void)memory.allocate(2_MiB, 0, nullptr);
    FAIL();
  } catch (const std::bad_alloc& error) {
    EXPECT_TRUE(
        std::string(error.what()).starts_with("CUDA out of memory. limit refused 2097152 bytes: "))
        << error.what();
  }
  memory.free(tensor, 0, nullptr);
  for (const char* stack : {"limit(4MiB) > cache > cuda", "", "virtual > cuda"}) {
    stand_on(stack);
    for (const std::size_t bytes : {1024 * 1_GiB, unbounded}) {  // more than any GPU has
      TorchMemory other;
      try {
        (void)other.allocate(bytes, 0, nullptr);
        FAIL();
      } catch (const OutOfMemory& error) {
        EXPECT_TRUE(std::string(error.what()).starts_with("CUDA out of memory. ")) << error.what();
      }
    }
  }
}

TEST_F(TorchOnFakeCuda, AStackThatCannotBeOpenedSaysWhyAndIsTriedAgain) {
  on({.gpus = 2});
  EXPECT_EQ(refusal(-1), "cistern: there is no GPU -1, their numbers are at most 63");
  EXPECT_EQ(refusal(64), "cistern: there is no GPU 64, their numbers are at most 63");
  EXPECT_EQ(refusal(5), "there is no cuda device: no GPU has the number 5; there are 2, from 0 on");
  stand_on("cache > kuda");
  EXPECT_TRUE(refusal().starts_with("in the environment variable CISTERN_STACK: there is no stage"))
      << refusal();
  stand_on("cache > cuda(device=1)");
  EXPECT_EQ(refusal(1), "");
  EXPECT_EQ(
      refusal(0),
      "cistern: PyTorch asks for memory of GPU 0, and the stack names GPU 1; without device=1 "
      "each GPU has a stack of its own");
  stand_on("fallback(cache > cuda, cuda(device=1))");
  EXPECT_NE(refusal().find("the stack names GPU 1"), std::string::npos) << refusal();
  for (const char* stack : {"arena > cuda", "planned > cache > cuda"}) {
    stand_on(stack);
    EXPECT_NE(refusal().find("are of one thread"), std::string::npos) << refusal();
  }
  for (const char* stack : {"cache > simulated", "fallback(cache > simulated, cuda)"}) {
    stand_on(stack);
    EXPECT_EQ(refusal(), "cistern: no GPU of PyTorch's can use memory of simulated");
  }
  stand_on("cache > opencl(memory=buffer)");
  TorchMemory memory;
  EXPECT_THROW((void)memory.allocate(1, 0, nullptr), std::exception) << "objects, or none";
  stand_on("");
  memory.free(memory.allocate(1, 0, nullptr), 0, nullptr);
}

TEST_F(TorchOnFakeCuda, MemoryThatMostGpusCannotUseIsSaidToBeSuch) {
  const testing::CaughtReports reports;
  stand_on("fallback(cuda, host)");
  TorchMemory memory;
  memory.free(memory.allocate(1_MiB, 0, nullptr), 0, nullptr);
  memory.free(memory.allocate(1_MiB, 0, nullptr), 0, nullptr);
  ASSERT_EQ(testing::CaughtReports::all().size(), 1U);
  EXPECT_NE(testing::CaughtReports::all()[0].find("memory of 'host'"), std::string::npos)
      << testing::CaughtReports::all()[0];
}

TEST_F(TorchOnFakeCuda, WhatIsDeferredStandsOnItsGpuToo) {
  on({.gpus = 2});
  stand_on("tier(C) > cuda");
  TorchMemory memory;
  CUstream_st* const stream = [&] {
    fake().push(fake().primary_context(1));
    CUstream_st* const made = fake().make_stream(false);
    fake().pop();
    return made;
  }();
  void* const tensor = memory.allocate(1_MiB, 1, stream);
  EXPECT_EQ(fake().figures().managed, 1_MiB);
  use(stream, tensor, 1_MiB);
  memory.free(tensor, 1, stream);
}

/// And is known for what it is once it can be set up.
TEST_F(TorchOnFakeCuda, WhatIsDeferredIsSetUpBeforeAnythingIsGivenOut) {
  const testing::CaughtReports reports;
  CUstream_st* const stream = fake().make_stream(false);
  CUstream_st* const other = fake().make_stream(false);
  const auto init = fake().api().init;
  for (const char* stack :
       {"deferred(coalesce > cuda, otherwise=cuda)",
        "fallback(limit(1KiB) > host, deferred(cache > cuda, otherwise=cuda))"}) {
    SCOPED_TRACE(stack);
    stand_on(stack);
    TorchMemory memory;
    fake().changeable_api().init = [](unsigned) { return CudaResult::no_device; };
    EXPECT_THROW((void)memory.allocate(1_MiB, 0, stream), std::runtime_error);
    fake().changeable_api().init = init;
    for (CUstream_st* const each : {stream, other, stream}) {
      void* const tensor = memory.allocate(1_MiB, 0, each);
      use(each, tensor, 1_MiB);
      memory.free(tensor, 0, each);
    }
    EXPECT_EQ(memory.stats(0).device_allocations, 1U);
  }
}

TEST_F(TorchOnFakeCuda, WhatIsStillOutInTheEndGoesBack) {
  const testing::CaughtReports reports;
  TorchMemory memory;
  for (int i = 0; i < 100; ++i)
    EXPECT_NE(memory.allocate(1_MiB, 0, nullptr), nullptr);
}

/// False if a call failed that can say so.
bool train(testing::FakeCuda& fake) {
  CUstream_st* const side = fake.make_stream(false);
  TorchMemory memory;
  bool is_done = true;
  for (CUstream_st* const stream : {static_cast<CUstream_st*>(nullptr), side}) {
    std::vector<void*> tensors;
    for (int i = 0; i < 3; ++i) {
      try {
        tensors.push_back(memory.allocate(2_MiB, 0, stream));
        memory.also_used_on(tensors.back(), side);
      } catch (const std::exception&) {
        is_done = false;
      }
    }
    for (void* const tensor : tensors)
      memory.free(tensor, 0, side);
    EXPECT_EQ(memory.stats(0).live_blocks.current, 0U);
  }
  memory.trim();
  return is_done;
}

TEST_F(TorchOnFakeCuda, AFailureOfAnyCallLeavesNothingBehind) {
  const testing::CaughtReports reports;
  for (const char* stack : {"", "cache > cuda", "virtual > cuda", "cuda(memory=async)"}) {
    SCOPED_TRACE(stack);
    stand_on(stack);
    std::size_t failed = 0;
    for (std::size_t n = 1;; ++n) {
      ASSERT_LT(n, 1000U);
      fake().fail_next(n, CudaResult::out_of_memory);
      const bool is_done = train(fake());
      const std::string call = fake().failed_call();
      fake().fail_next(0, CudaResult::success);
      ASSERT_EQ(fake().leaks(), "") << call << ", the " << n << "-th call";
      ASSERT_EQ(fake().misuses(), std::vector<std::string>()) << call << ", the " << n << "-th";
      if (!is_done) ++failed;
      if (call.empty()) break;
    }
    EXPECT_GT(failed, 5U);
  }
}

TEST_F(TorchOnFakeCuda, TheHostsRunningOutOfMemoryFailsARequestAndNoFree) {
  TorchMemory memory;
  memory.free(memory.allocate(1_MiB, 0, nullptr), 0, nullptr);
  int refused = 0;
  std::vector<void*> tensors;
  tensors.reserve(1000);
  for (int i = 0; i < 1000; ++i) {
    try {
      const testing::FailingNew failing(1 + i % 3);
      tensors.push_back(memory.allocate(1_KiB, 0, nullptr));
    } catch (const std::bad_alloc&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 0);
  const testing::FailingNew failing(1);
  for (void* const tensor : tensors)
    memory.free(tensor, 0, nullptr);
  EXPECT_EQ(memory.stats(0).live_blocks.current, 0U);
}

}  // namespace
}  // namespace cistern
