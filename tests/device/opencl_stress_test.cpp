// What the device's own kernels see of the memory that pools pass from queue to queue: four threads
// write and check patterns in their blocks on four queues, one of them out of order, and free them
// while kernels that use them still stand in a queue. Some queues are held back for a while, so
// that whoever does not wait is too early. CISTERN_STRESS_SECONDS makes it longer.
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/device/opencl.hpp"
#include "cistern/stack/stack.hpp"
#include "device/opencl_api.hpp"
#include "support/opencl_kernels.hpp"
#include "support/seed.hpp"
#include "support/stress.hpp"

namespace cistern {
namespace {

using namespace literals;

/// A stack on a device whose own entry points are `api`, with the streams and kernels of a program
/// that uses the real ones.
class StressedOpenCl {
 public:
  StressedOpenCl(const std::string& pools, const OpenClApi& real, const OpenClApi& api)
      : real_(real),
        device_(make<OpenClDevice>(api, OpenClDevice::Options{})),
        patterns_(std::make_unique<testing::OpenClPatterns>(device_->context(), device_->id())),
        stack_(open(pools + " > mine", {{"mine", device_}})) {
    streams_[0] = device_->stream(device_->queue());
    for (std::size_t i = 1; i < streams_.size(); ++i) {
      cl_int code = CL_SUCCESS;
      const cl_command_queue queue =
          real_.create_command_queue(device_->context(), device_->id(),
                                     i == 1 ? CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE : 0, &code);
      testing::check_kernel_call(code, "clCreateCommandQueue");
      streams_[i] = device_->stream(queue);
      real_.release_command_queue(queue);
    }
  }

  [[nodiscard]] static cl_command_queue queue(Stream stream) {
    return static_cast<cl_command_queue>(stream.handle);
  }
  [[nodiscard]] Stream any_stream(testing::Random& random) const {
    return streams_[random.below(streams_.size())];
  }
  [[nodiscard]] Stream stream(std::size_t i) const { return streams_.at(i); }

  /// The program's own waits, which are never dropped. In a queue out of order a barrier for one
  /// event is not enough (see OpenClDevice::Order).
  void wait(Stream waiter, Stream on) const {
    if (!StreamOrder::needs_wait(on, waiter)) return;
    cl_event passed = nullptr;
    testing::check_kernel_call(real_.enqueue_marker(queue(on), 0, nullptr, &passed), "marker");
    testing::check_kernel_call(real_.flush(queue(on)), "clFlush");
    if (waiter.runs_out_of_order()) {
      real_.enqueue_marker(queue(waiter), 1, &passed, nullptr);
      real_.enqueue_barrier(queue(waiter), 0, nullptr, nullptr);
    } else {
      real_.enqueue_barrier(queue(waiter), 1, &passed, nullptr);
    }
    real_.release_event(passed);
  }
  void finish() const {
    for (const Stream& stream : streams_)
      testing::check_kernel_call(real_.finish(queue(stream)), "clFinish");
  }
  [[nodiscard]] OpenClObject object(const Block& block) const {
    Expected<OpenClObject> object = device_->object(block);
    if (!object) throw std::runtime_error(describe(object.error()));
    return std::move(*object);
  }
  [[nodiscard]] std::unique_ptr<testing::OpenClGate> hold(Stream stream) const {
    return std::make_unique<testing::OpenClGate>(real_, device_->context(), queue(stream));
  }

  [[nodiscard]] const OpenClApi& real() const { return real_; }
  [[nodiscard]] const testing::OpenClPatterns& patterns() const { return *patterns_; }
  [[nodiscard]] OpenClDevice& device() const { return *device_; }
  [[nodiscard]] Resource& stack() const { return *stack_; }

 private:
  const OpenClApi& real_;
  const Ref<OpenClDevice> device_;
  const std::unique_ptr<testing::OpenClPatterns> patterns_;
  const Stack stack_;
  std::array<Stream, 4> streams_;
};

/// What one thread does. It keeps the rules: what it uses on a stream that it did not write on, it
/// waits for, and tells the pool of.
class PatternWorker {
 public:
  PatternWorker(const StressedOpenCl& on, std::uint64_t seed)
      : on_(on),
        kernels_(on.real(), on.patterns()),
        random_(seed),
        next_(static_cast<cl_uint>(seed * 1'000'003)) {}

  /// Returns the words that were found wrong.
  cl_uint run(std::chrono::steady_clock::time_point until) {
    for (std::size_t step = 1; std::chrono::steady_clock::now() < until; ++step) {
      if (step % 64 == 0) {
        gate_.reset();  // this thread waits, and others may stand behind it
        on_.finish();
      }
      if (random_.chance(10)) gate_ = on_.hold(on_.any_stream(random_));
      if (random_.chance(20)) gate_.reset();
      if (live_.size() < 12 && (live_.empty() || random_.chance(55))) {
        begin();
      } else {
        const std::size_t i = random_.below(live_.size());
        random_.chance(50) ? use(live_[i]) : end(i);
      }
    }
    gate_.reset();
    while (!live_.empty())
      end(live_.size() - 1);
    on_.finish();
    return kernels_.wrong(StressedOpenCl::queue(on_.stream(0)));
  }

  [[nodiscard]] std::size_t blocks() const { return blocks_; }

 private:
  struct Pattern {
    Block block;
    Stream home;
    cl_uint seed = 0;
  };

  void begin() {
    Pattern fresh{.block = {}, .home = on_.any_stream(random_), .seed = next_++};
    fresh.block =
        on_.stack().allocate({.bytes = 256 + random_.below(random_.chance(10) ? 512_KiB : 16_KiB),
                              .stream = fresh.home});
    kernels_.write(StressedOpenCl::queue(fresh.home), on_.object(fresh.block).get(), fresh.seed,
                   fresh.block.bytes);
    ++blocks_;
    live_.push_back(fresh);
  }

  void check(const Pattern& pattern, Stream stream) {
    on_.wait(stream, pattern.home);
    kernels_.check(StressedOpenCl::queue(stream), on_.object(pattern.block).get(), pattern.seed,
                   pattern.block.bytes);
  }

  void use(const Pattern& pattern) {
    const Stream stream = on_.any_stream(random_);
    check(pattern, stream);
    EXPECT_TRUE(on_.stack().also_used_on(pattern.block, stream));
  }

  void end(std::size_t i) {
    const Pattern pattern = live_[i];
    live_[i] = live_.back();
    live_.pop_back();
    const Stream stream = on_.any_stream(random_);
    check(pattern, stream);
    EXPECT_TRUE(on_.stack().deallocate(pattern.block, stream));
  }

  const StressedOpenCl& on_;
  testing::OpenClKernels kernels_;
  testing::Random random_;
  cl_uint next_;
  std::vector<Pattern> live_;
  std::unique_ptr<testing::OpenClGate> gate_;
  std::size_t blocks_ = 0;
};

class OpenClStressTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (find_opencl_devices(why).empty()) GTEST_SKIP() << why;
    real_ = OpenClApi::system(why);
  }

  const OpenClApi* real_ = nullptr;
};

class OpenClStress : public OpenClStressTest, public ::testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(Pools, OpenClStress,
                         ::testing::Values("cache", "coalesce", "coalesce(place=first)",
                                           "limit(1GiB) > cache > coalesce"));

TEST_P(OpenClStress, PatternsStayWhatTheyAre) {
  const std::uint64_t seed = testing::seed_or(11);
  SCOPED_TRACE(testing::replay_hint(seed));
  const StressedOpenCl on(GetParam(), *real_, *real_);
  const auto until =
      std::chrono::steady_clock::now() + testing::stress_time_or(std::chrono::seconds(2));
  std::array<cl_uint, 4> wrong{};
  std::array<std::size_t, 4> blocks{};
  {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < wrong.size(); ++i) {
      threads.emplace_back([&, i] {
        PatternWorker worker(on, seed + i);
        wrong.at(i) = worker.run(until);
        blocks.at(i) = worker.blocks();
      });
    }
    for (std::thread& thread : threads)
      thread.join();
  }
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    EXPECT_EQ(wrong.at(i), 0U) << "words of thread " << i;
    EXPECT_GT(blocks.at(i), 0U);
  }
  EXPECT_EQ(on.stack().validate(), "");
  EXPECT_EQ(on.stack().stats().live_blocks.current, 0U);
  on.stack().trim();
  EXPECT_EQ(on.stack().stats().reserved.current, 0U);
  EXPECT_EQ(on.device().validate(), "");
}

/// Entry points of a driver that takes the device's waits and does not wait.
OpenClApi without_waits(const OpenClApi& real) {
  OpenClApi api = real;
  api.enqueue_barrier = [](cl_command_queue, cl_uint, const cl_event*, cl_event*) -> cl_int {
    return CL_SUCCESS;
  };
  return api;
}

/// One block from stream to stream, with the first held back: a check of what was written there
/// stands in the queue when the second writes. Returns the words found wrong.
cl_uint pass_on_behind_a_gate(const StressedOpenCl& on, Stream first, Stream second) {
  testing::OpenClKernels kernels(on.real(), on.patterns());
  const cl_command_queue last = StressedOpenCl::queue(first);
  const cl_command_queue next = StressedOpenCl::queue(second);
  const Block written = on.stack().allocate({.bytes = 64_KiB, .stream = first});
  kernels.write(last, on.object(written).get(), 1, written.bytes);
  std::unique_ptr<testing::OpenClGate> gate = on.hold(first);
  kernels.check(last, on.object(written).get(), 1, written.bytes);
  on.stack().deallocate(written, first);
  const Block taken = on.stack().allocate({.bytes = 64_KiB, .stream = second});
  EXPECT_EQ(taken.memory, written.memory) << "the one that was freed";
  EXPECT_EQ(taken.offset, written.offset);
  kernels.write(next, on.object(taken).get(), 2, taken.bytes);
  on.real().flush(next);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // in which it could be too early
  gate.reset();
  on.finish();
  kernels.check(next, on.object(taken).get(), 2, taken.bytes);
  on.stack().deallocate(taken, second);
  on.finish();
  return kernels.wrong(next);
}

TEST_P(OpenClStress, ABlockWaitsForWhatStillUsesIt) {
  for (const auto& [first, second] : {std::pair{0U, 2U}, {2U, 3U}, {3U, 0U}, {0U, 1U}, {1U, 2U}}) {
    const StressedOpenCl on(GetParam(), *real_, *real_);
    EXPECT_EQ(pass_on_behind_a_gate(on, on.stream(first), on.stream(second)), 0U)
        << first << " to " << second;
  }
}

/// Each wait of a stream holds, whatever it is made to wait for next.
TEST_F(OpenClStressTest, OneWaitDoesNotReplaceAnother) {
  const StressedOpenCl on("cache", *real_, *real_);
  testing::OpenClKernels kernels(on.real(), on.patterns());
  for (const std::size_t waiter : {1U, 3U}) {
    SCOPED_TRACE(waiter);
    const Block block = on.stack().allocate({.bytes = 64_KiB, .stream = on.stream(0)});
    kernels.write(StressedOpenCl::queue(on.stream(0)), on.object(block).get(), 1, block.bytes);
    std::unique_ptr<testing::OpenClGate> gate = on.hold(on.stream(0));
    kernels.check(StressedOpenCl::queue(on.stream(0)), on.object(block).get(), 1, block.bytes);
    StreamOrder& order = *on.device().stream_order();
    ASSERT_TRUE(order.wait(on.stream(waiter), on.stream(0)));
    ASSERT_TRUE(order.wait(on.stream(waiter), on.stream(2)));
    const cl_command_queue queue = StressedOpenCl::queue(on.stream(waiter));
    kernels.write(queue, on.object(block).get(), 2, block.bytes);
    on.real().flush(queue);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    gate.reset();
    on.finish();
    EXPECT_EQ(kernels.wrong(queue), 0U);
    on.stack().deallocate(block, on.stream(waiter));
  }
}

TEST_F(OpenClStressTest, AWaitThatIsDroppedIsSeen) {
  const OpenClApi api = without_waits(*real_);
  const StressedOpenCl on("cache", *real_, api);
  EXPECT_GT(pass_on_behind_a_gate(on, on.stream(0), on.stream(2)), 0U);
}

}  // namespace
}  // namespace cistern
