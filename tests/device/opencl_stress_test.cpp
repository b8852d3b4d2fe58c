// Kernels on four queues, enqueued by four threads, in memory that pools hand from one to another:
// what a kernel wrote is there when the next one looks, and nobody else's. The time is in seconds,
// CISTERN_STRESS_SECONDS or one.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/core/transfer.hpp"
#include "cistern/device/opencl.hpp"
#include "cistern/stack/stack.hpp"
#include "device/opencl_api.hpp"
#include "support/opencl_kernels.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;

std::chrono::milliseconds stress_time() {
  const char* const asked = std::getenv("CISTERN_STRESS_SECONDS");  // NOLINT(concurrency-mt-unsafe)
  return std::chrono::seconds(asked != nullptr ? std::atoi(asked) : 1);
}

/// A queue, its stream and what its kernels found wrong.
struct StressQueue {
  cl_command_queue queue = nullptr;
  Stream stream;
  Block wrong;
};

class OpenClStress : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::string why;
    if (find_opencl_devices(why).empty()) GTEST_SKIP() << why;
    api_ = *OpenClApi::system(why);
  }

  /// How often a cell was not what it should be.
  std::uint64_t run(std::chrono::milliseconds time) {
    const auto device = make<OpenClDevice>(api_, OpenClDevice::Options{});
    const Stack stack = open(std::string(GetParam()) + " > mine", {{"mine", device}});
    std::vector<StressQueue> queues(4);
    for (StressQueue& each : queues) {
      cl_int code = CL_SUCCESS;
      each.queue = api_.create_command_queue(device->context(), device->id(), 0, &code);
      each.stream = device->stream(each.queue);
      each.wrong = device->allocate(4_KiB);
      EXPECT_TRUE(device->transfer()->fill(each.wrong, 0, 4, {}, each.stream));
    }
    const auto end = std::chrono::steady_clock::now() + time;
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < queues.size(); ++i) {
      threads.emplace_back([&, i] {
        use_queue(*device, *stack, queues[i], queues[(i + 1) % queues.size()], i, end);
      });
    }
    for (std::thread& thread : threads)
      thread.join();
    std::uint64_t wrong = 0;
    for (const StressQueue& each : queues) {
      std::uint32_t found = 0;
      EXPECT_TRUE(device->stream_order()->synchronize(each.stream));
      EXPECT_TRUE(device->transfer()->download(std::as_writable_bytes(std::span(&found, 1)),
                                               each.wrong, 0, each.stream));
      wrong += found;
    }
    for (const StressQueue& each : queues) {
      device->deallocate(each.wrong, each.stream);
      api_.release_command_queue(each.queue);
    }
    EXPECT_EQ(stack->validate(), "");
    return wrong;
  }

  // Nothing is waited for by the host but, now and then, so much that the driver's queue is full.
  void use_queue(OpenClDevice& device, Resource& stack, const StressQueue& own,
                 const StressQueue& next, std::uint64_t number,
                 std::chrono::steady_clock::time_point end) const {
    testing::OpenClKernels kernels(device.context(), device.id());
    testing::Random random(testing::seed_or(3) + number);
    const auto wrong_of = [](const StressQueue& queue) {
      return static_cast<cl_mem>(queue.wrong.memory);
    };
    std::uint32_t turn = 0;
    while (std::chrono::steady_clock::now() < end) {
      const std::size_t bytes = 4 * (1 + random.below(16_KiB));
      const Block block = stack.allocate({.bytes = bytes, .stream = own.stream});
      const auto cells = static_cast<cl_uint>(bytes / 4);
      const auto value = static_cast<cl_uint>(random.below(1U << 30U));
      const Expected<OpenClObject> object = device.object(block);
      ASSERT_TRUE(object);
      ASSERT_TRUE(kernels.put(own.queue, object->get(), cells, value));
      ASSERT_TRUE(kernels.look(own.queue, object->get(), cells, value, wrong_of(own)));
      if (random.chance(30)) {
        // Handed on to another queue, which the program makes wait; the pool is told.
        ASSERT_TRUE(device.stream_order()->wait(next.stream, own.stream));
        ASSERT_TRUE(stack.also_used_on(block, next.stream));
        ASSERT_TRUE(kernels.look(next.queue, object->get(), cells, value, wrong_of(own)));
      }
      stack.deallocate(block, own.stream);
      if (++turn % 32 == 0) {
        ASSERT_EQ(api_.finish(own.queue), CL_SUCCESS);
      }
      if (turn % 8 == 0) {
        ASSERT_EQ(api_.flush(own.queue), CL_SUCCESS);
      }
    }
  }

  OpenClApi api_;
};

INSTANTIATE_TEST_SUITE_P(Pools, OpenClStress, ::testing::Values("cache", "coalesce"));

TEST_P(OpenClStress, NothingIsOverwrittenWhileItIsUsed) {
  EXPECT_EQ(run(stress_time()), 0U);
}

// Where waits are dropped, memory that is still in use is handed out.
TEST_P(OpenClStress, WithoutWaitsItWouldBe) {
  api_.enqueue_barrier = [](cl_command_queue, cl_uint, const cl_event*, cl_event*) -> cl_int {
    return CL_SUCCESS;
  };
  std::uint64_t wrong = 0;
  for (int attempt = 0; attempt < 20 && wrong == 0; ++attempt)
    wrong = run(std::chrono::milliseconds(500));
  EXPECT_GT(wrong, 0U);
}

}  // namespace
}  // namespace cistern
