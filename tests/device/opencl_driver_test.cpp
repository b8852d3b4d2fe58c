// The OpenCL device over drivers that differ from the one at hand: that fail late, have less
// memory, other kinds of it or nothing at all; and in programs whose queues stand still.
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/residency.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/core/transfer.hpp"
#include "cistern/device/opencl.hpp"
#include "cistern/stack/stack.hpp"
#include "device/opencl_api.hpp"
#include "support/opencl_calls.hpp"
#include "support/opencl_kernels.hpp"

namespace cistern {
namespace {

using namespace literals;

/// What the driver is made to say. Entry points are plain functions, so it is global.
struct OtherDriver {
  std::optional<cl_int> late;  // how commands of the device's own queue end
  std::optional<cl_ulong> total_memory;
  std::optional<cl_device_svm_capabilities> svm;
  std::optional<cl_int> no_platform;
  std::atomic<int> sub_buffers{0};
  std::atomic<int> barriers{0};

  static OtherDriver& instance() {
    static OtherDriver driver;
    return driver;
  }
  static const OpenClApi& real() {
    std::string why;
    return *OpenClApi::system(why);
  }
  static OpenClApi api() {
    OpenClApi api = real();
    api.get_event_info = [](cl_event event, cl_event_info key, std::size_t size, void* value,
                            std::size_t* needed) -> cl_int {
      const cl_int code = real().get_event_info(event, key, size, value, needed);
      if (instance().late) std::memcpy(value, &*instance().late, sizeof(cl_int));
      return code;
    };
    api.get_device_info = [](cl_device_id device, cl_device_info key, std::size_t size, void* value,
                             std::size_t* needed) -> cl_int {
      const cl_int code = real().get_device_info(device, key, size, value, needed);
      const auto answer = [&](const auto& other) {
        if (other && value != nullptr) std::memcpy(value, &*other, sizeof *other);
      };
      if (key == CL_DEVICE_GLOBAL_MEM_SIZE) answer(instance().total_memory);
      if (key == CL_DEVICE_SVM_CAPABILITIES) answer(instance().svm);
      return code;
    };
    api.get_platform_ids = [](cl_uint size, cl_platform_id* ids, cl_uint* count) -> cl_int {
      if (instance().no_platform) return *instance().no_platform;
      return real().get_platform_ids(size, ids, count);
    };
    api.enqueue_barrier = [](cl_command_queue queue, cl_uint size, const cl_event* waits,
                             cl_event* event) -> cl_int {
      ++instance().barriers;
      return real().enqueue_barrier(queue, size, waits, event);
    };
    api.create_sub_buffer = [](cl_mem root, cl_mem_flags flags, cl_buffer_create_type type,
                               const void* region, cl_int* code) -> cl_mem {
      ++instance().sub_buffers;
      return real().create_sub_buffer(root, flags, type, region, code);
    };
    return api;
  }
};

class OpenClDriverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (find_opencl_devices(why).empty()) GTEST_SKIP() << why;
    api_ = OtherDriver::api();
  }
  void TearDown() override {
    driver().late.reset();
    driver().total_memory.reset();
    driver().svm.reset();
    driver().no_platform.reset();
  }
  static OtherDriver& driver() { return OtherDriver::instance(); }
  Ref<OpenClDevice> device(const OpenClDevice::Options& options = {}) const {
    return make<OpenClDevice>(api_, options);
  }
  /// One more queue as a stream; the device holds on to it.
  Stream add_stream(OpenClDevice& device, cl_command_queue_properties properties = 0) const {
    cl_int code = CL_SUCCESS;
    const cl_command_queue queue =
        api_.create_command_queue(device.context(), device.id(), properties, &code);
    testing::check_kernel_call(code, "clCreateCommandQueue");
    const Stream stream = device.stream(queue);
    api_.release_command_queue(queue);
    return stream;
  }
  static cl_command_queue queue_of(Stream stream) {
    return static_cast<cl_command_queue>(stream.handle);
  }
  static bool holds(OpenClDevice& device, const Block& block, char value, Stream stream = {}) {
    std::vector<std::byte> bytes(block.requested);
    return device.transfer()->download(bytes, block, 0, stream) &&
           bytes == std::vector<std::byte>(bytes.size(), std::byte(value));
  }

  OpenClApi api_;
};

TEST_F(OpenClDriverTest, BackingThatFailsLateFailsTheRequest) {
  for (const auto memory : {OpenClDevice::Memory::buffer, OpenClDevice::Memory::svm}) {
    const auto opened = device({.memory = memory});
    driver().late = CL_MEM_OBJECT_ALLOCATION_FAILURE;
    const Expected<Block> block = opened->try_allocate({.bytes = 1_MiB});
    driver().late.reset();
    ASSERT_FALSE(block);
    EXPECT_EQ(block.error().code, Errc::out_of_memory);
    EXPECT_STREQ(block.error().detail, "CL_MEM_OBJECT_ALLOCATION_FAILURE");
    EXPECT_EQ(opened->free_memory(), opened->limits().total_memory);
    EXPECT_TRUE(opened->deallocate(opened->allocate(1_MiB)));
  }
  const auto unforced = device({.force_backing = false});
  driver().late = CL_MEM_OBJECT_ALLOCATION_FAILURE;
  EXPECT_TRUE(unforced->deallocate(unforced->allocate(1_MiB)));
}

TEST_F(OpenClDriverTest, ResidencyThatFailsLateIsRefused) {
  const auto opened = device();
  const Block block = opened->allocate(1_MiB);
  driver().late = CL_OUT_OF_RESOURCES;
  const std::array<Block, 1> parts{block};
  EXPECT_FALSE(opened->residency()->make_resident(parts));
  driver().late.reset();
  const std::optional<Error> refusal = opened->residency()->last_refusal();
  ASSERT_TRUE(refusal.has_value());
  EXPECT_STREQ(refusal->detail, "CL_OUT_OF_RESOURCES");
  EXPECT_EQ(opened->stats().resident.current, 0U);
  opened->deallocate(block);
}

TEST_F(OpenClDriverTest, ObjectsForOneDeviceShareItsMemoryAndItsPools) {
  driver().total_memory = 8_MiB;
  const auto first = device();
  const auto second = device();
  EXPECT_EQ(&first->registry(), &second->registry());
  const Stack hoard = open("cache > mine", {{"mine", first}});
  hoard->deallocate(hoard->allocate(6_MiB));
  EXPECT_LE(second->free_memory(), 2_MiB);
  const Expected<Block> refused = second->try_allocate({.bytes = 4_MiB});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::out_of_memory);
  EXPECT_EQ(refused.error().available, second->free_memory());
  const Stack needy = open("retry > coalesce > mine", {{"mine", second}});
  const Block block = needy->allocate(4_MiB);
  EXPECT_EQ(hoard->stats().reserved.current, 0U) << "the other stack gave way";
  needy->deallocate(block);
}

TEST_F(OpenClDriverTest, ThreadsTogetherNeverHoldMoreThanThereIs) {
  driver().total_memory = 8_MiB;
  const auto opened = device();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 50; ++turn) {
        if (const Expected<Block> block = opened->try_allocate({.bytes = 3_MiB}))
          opened->deallocate(*block);
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_LE(opened->stats().reserved.peak, 8_MiB);
  EXPECT_EQ(opened->free_memory(), 8_MiB);
}

TEST_F(OpenClDriverTest, CoarseSharedMemoryIsTheDevicesAlone) {
  driver().svm = CL_DEVICE_SVM_COARSE_GRAIN_BUFFER;
  const auto opened = device({.memory = OpenClDevice::Memory::svm});
  EXPECT_TRUE(opened->limits().memory_is_address);
  EXPECT_FALSE(opened->limits().host_addressable);
  const Block block = opened->allocate(1_MiB);
  ASSERT_TRUE(opened->transfer()->fill(block, 0, block.bytes, std::byte('c'), {}));
  EXPECT_TRUE(holds(*opened, block, 'c'));
  opened->deallocate(block);
  driver().svm = 0;
  EXPECT_THROW((void)device({.memory = OpenClDevice::Memory::svm}), DeviceAbsent);
}

TEST_F(OpenClDriverTest, AMachineWithoutPlatformIsSaidToHaveNone) {
  driver().no_platform = -1001;
  try {
    (void)device();
    FAIL();
  } catch (const DeviceAbsent& absent) {
    EXPECT_STREQ(absent.what(),
                 "there is no opencl device: no OpenCL platform is installed, "
                 "CL_PLATFORM_NOT_FOUND_KHR");
  }
}

TEST_F(OpenClDriverTest, EveryErrorHasAName) {
  std::set<std::string> names;
  for (const cl_int code : {-1, -4, -5, -6, -14, -30, -36, -38, -61, -68, -1001})
    names.insert(opencl_name(code));
  EXPECT_EQ(names.size(), 11U);
  EXPECT_STREQ(opencl_name(CL_INVALID_BUFFER_SIZE), "CL_INVALID_BUFFER_SIZE");
  EXPECT_STREQ(opencl_name(-12345), "an OpenCL error without a name");
}

TEST_F(OpenClDriverTest, KernelsUseSharedAddressesOfPools) {
  const auto opened = device({.memory = OpenClDevice::Memory::svm});
  const testing::OpenClPatterns patterns(opened->context(), opened->id());
  testing::OpenClKernels kernels(OtherDriver::real(), patterns);
  for (const char* pools :
       {"limit(1GiB) > mine", "cache > mine", "coalesce > mine", "arena > mine"}) {
    const Stack stack = open(pools, {{"mine", opened}});
    std::vector<Block> blocks;
    for (cl_uint i = 0; i < 8; ++i) {
      blocks.push_back(stack->allocate(1000 + std::size_t{i} * 5000));
      kernels.write(opened->queue(), blocks.back().memory, i, blocks.back().bytes);
    }
    for (cl_uint i = 0; i < 8; ++i) {
      kernels.check(opened->queue(), blocks[i].memory, i, blocks[i].bytes);
      EXPECT_TRUE(stack->deallocate(blocks[i]));
    }
  }
  EXPECT_EQ(kernels.wrong(opened->queue()), 0U);
}

/// The device is busy with other streams' uploads for as long as those like; ours goes on.
TEST_F(OpenClDriverTest, AnUploadDoesNotWaitForOtherStreams) {
  const auto opened = device({.staging = 64_KiB});
  const Stream held = add_stream(*opened);
  const Block there = opened->allocate(64_KiB);
  const Block here = opened->allocate(256_KiB);
  auto gate =
      std::make_unique<testing::OpenClGate>(OtherDriver::real(), opened->context(), queue_of(held));
  ASSERT_TRUE(opened->transfer()->upload(there, 0, std::vector(64_KiB, std::byte('t')), held));
  auto sent = std::async(std::launch::async, [&] {
    return opened->transfer()
        ->upload(here, 0, std::vector(256_KiB, std::byte('h')), Stream{})
        .has_value();
  });
  const bool has_come = sent.wait_for(std::chrono::seconds(20)) == std::future_status::ready;
  EXPECT_TRUE(has_come);
  gate.reset();
  EXPECT_TRUE(sent.get());
  EXPECT_TRUE(holds(*opened, here, 'h'));
  EXPECT_TRUE(holds(*opened, there, 't', held));
  opened->deallocate(there, held);
  opened->deallocate(here);
}

TEST_F(OpenClDriverTest, TransfersNeedNoStaging) {
  const auto opened = device({.staging = 0});
  const Block block = opened->allocate(1_MiB);
  ASSERT_TRUE(opened->transfer()->upload(block, 0, std::vector(1_MiB, std::byte('n')), {}));
  EXPECT_TRUE(holds(*opened, block, 'n'));
  opened->deallocate(block);
}

TEST_F(OpenClDriverTest, TransfersKeepTheirOrderInAQueueThatHasNone) {
  const auto opened = device({.staging = 64_KiB});
  const Stream stream = add_stream(*opened, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE);
  const Block from = opened->allocate(512_KiB);
  const Block to = opened->allocate(512_KiB);
  Transfer& transfer = *opened->transfer();
  const int before = driver().barriers;
  ASSERT_TRUE(transfer.fill(from, 0, from.bytes, std::byte(77), {}));
  EXPECT_EQ(driver().barriers, before);
  ASSERT_TRUE(opened->stream_order()->synchronize({}));
  ASSERT_TRUE(transfer.fill(from, 0, from.bytes, std::byte(77), stream));
  EXPECT_EQ(driver().barriers, before + 2) << "one before it, and one behind";
  for (char value = 0; value < 30; ++value) {
    ASSERT_TRUE(transfer.fill(from, 0, from.bytes, std::byte(77), stream));
    ASSERT_TRUE(transfer.upload(from, 0, std::vector(from.bytes, std::byte(value)), stream));
    ASSERT_TRUE(transfer.copy(to, 0, from, 0, to.bytes, stream));
    EXPECT_TRUE(holds(*opened, to, value, stream));
  }
  opened->deallocate(from, stream);
  opened->deallocate(to, stream);
}

/// A download is behind all that stands in its stream, also where nothing else would be.
TEST_F(OpenClDriverTest, ADownloadWaitsForAllOfAQueueThatHasNoOrder) {
  const auto opened = device();
  const Stream stream = add_stream(*opened, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE);
  const Block block = opened->allocate(64_KiB);
  ASSERT_TRUE(opened->transfer()->fill(block, 0, block.bytes, std::byte('d'), stream));
  const testing::OpenClProgramApi& program = testing::OpenClProgramApi::system();
  cl_int code = CL_SUCCESS;
  const cl_event event = program.create_user_event(opened->context(), &code);
  ASSERT_EQ(code, CL_SUCCESS);
  ASSERT_EQ(api_.enqueue_marker(queue_of(stream), 1, &event, nullptr), CL_SUCCESS);
  auto read = std::async(std::launch::async, [&] { return holds(*opened, block, 'd', stream); });
  EXPECT_EQ(read.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
  ASSERT_EQ(program.set_user_event_status(event, CL_COMPLETE), CL_SUCCESS);
  EXPECT_TRUE(read.get());
  api_.release_event(event);
  opened->deallocate(block, stream);
}

/// `object` of a block that is known makes no new sub-buffer, however many are kept.
TEST_F(OpenClDriverTest, SubBuffersAreKeptAndBounded) {
  const auto opened = device();
  const std::size_t step = opened->limits().alignment;
  constexpr std::size_t most = 4096;
  const Block root = opened->allocate((most + 2) * step);
  const auto part = [&](std::size_t i) {
    Block block = root;
    block.offset = i * step;
    block.bytes = step;
    return block;
  };
  const int before = driver().sub_buffers;
  for (std::size_t i = 0; i < most; ++i)
    ASSERT_TRUE(opened->object(part(i)));
  for (const std::size_t i : {std::size_t{0}, most / 2, most - 1})
    ASSERT_TRUE(opened->object(part(i)));
  EXPECT_EQ(driver().sub_buffers - before, static_cast<int>(most));
  ASSERT_TRUE(opened->object(part(most)));
  EXPECT_EQ(opened->validate(), "");
  Block misaligned = part(1);
  misaligned.offset += 1;
  const Expected<OpenClObject> none = opened->object(misaligned);
  ASSERT_FALSE(none);
  EXPECT_STREQ(none.error().detail, "CL_MISALIGNED_SUB_BUFFER_OFFSET");
  opened->deallocate(root);
  EXPECT_EQ(opened->validate(), "");
}

TEST_F(OpenClDriverTest, StreamsMayBeRetiredWhileOthersUseThem) {
  const auto opened = device();
  StreamOrder& order = *opened->stream_order();
  for (int turn = 0; turn < 20; ++turn) {
    const Stream stream = add_stream(*opened);
    const Block block = opened->allocate(64_KiB);
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        for (int use = 0; use < 20; ++use) {
          EXPECT_TRUE(order.wait({}, stream));
          EXPECT_TRUE(order.synchronize(stream));
          (void)opened->transfer()->fill(block, 0, 64, std::byte(1), stream);
        }
      });
    }
    order.retire(stream);
    for (std::thread& thread : threads)
      thread.join();
    opened->deallocate(block);
  }
}

TEST_F(OpenClDriverTest, AStreamOfAnotherDeviceIsNobodysHere) {
  const auto first = device();
  const auto second = device();
  EXPECT_NE(add_stream(*first).id, add_stream(*second).id);
}

}  // namespace
}  // namespace cistern
