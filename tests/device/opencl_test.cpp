// The OpenCL device, on whatever platform there is: in the project's own checks that is PoCL.
#include "cistern/device/opencl.hpp"

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/core/transfer.hpp"
#include "cistern/stack/stack.hpp"
#include "device/opencl_api.hpp"
#include "support/opencl_calls.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using OpenClKind = OpenClDevice::Memory;

/// With a device whose calls are counted and fail on demand.
class OpenClTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (find_opencl_devices(why).empty()) GTEST_SKIP() << why;
    calls_.emplace();
  }
  void TearDown() override {
    if (!calls_) return;
    EXPECT_EQ(calls_->live(), 0) << "what OpenCL gave is let go of";
  }
  Ref<OpenClDevice> device(OpenClKind memory = OpenClKind::buffer) {
    return make<OpenClDevice>(calls_->api(), OpenClDevice::Options{.memory = memory});
  }
  static void write(OpenClDevice& device, const Block& block, char value, Stream stream = {}) {
    ASSERT_TRUE(device.transfer()->fill(block, 0, block.bytes, std::byte(value), stream));
  }
  static void expect_filled(OpenClDevice& device, const Block& block, char value,
                            Stream stream = {}) {
    std::vector<std::byte> bytes(block.bytes);
    ASSERT_TRUE(device.transfer()->download(bytes, block, 0, stream));
    EXPECT_EQ(bytes, std::vector<std::byte>(block.bytes, std::byte(value)));
  }

  std::optional<testing::OpenClCalls> calls_;
};

class OpenClMemory : public OpenClTest, public ::testing::WithParamInterface<OpenClKind> {};

INSTANTIATE_TEST_SUITE_P(Kinds, OpenClMemory,
                         ::testing::Values(OpenClKind::buffer, OpenClKind::svm, OpenClKind::pinned),
                         [](const auto& kind) -> std::string {
                           return kind.param == OpenClKind::buffer ? "buffer"
                                  : kind.param == OpenClKind::svm  ? "svm"
                                                                   : "pinned";
                         });

TEST_P(OpenClMemory, BlocksKeepWhatIsWritten) {
  const auto opened = device(GetParam());
  std::vector<Block> blocks;
  for (const std::size_t bytes : {std::size_t{4}, 1_KiB, 64_KiB, 1_MiB, 5_MiB})
    blocks.push_back(opened->allocate(bytes));
  for (std::size_t i = 0; i < blocks.size(); ++i)
    write(*opened, blocks[i], static_cast<char>('a' + i));
  for (std::size_t i = 0; i < blocks.size(); ++i)
    expect_filled(*opened, blocks[i], static_cast<char>('a' + i));
  EXPECT_EQ(opened->validate(), "");
  for (const Block& block : blocks)
    EXPECT_TRUE(opened->deallocate(block));
  EXPECT_EQ(opened->stats().reserved.current, 0U);
}

TEST_P(OpenClMemory, CopiesAndUploadsMoreThanTheStagingHolds) {
  const auto opened = make<OpenClDevice>(
      calls_->api(), OpenClDevice::Options{.memory = GetParam(), .staging = 64_KiB});
  const Block from = opened->allocate(1_MiB);
  const Block to = opened->allocate(1_MiB);
  std::vector<std::byte> sent(1_MiB - 10);
  testing::Random random(testing::seed_or(7));
  for (std::byte& byte : sent)
    byte = static_cast<std::byte>(random.below(256));
  Transfer& transfer = *opened->transfer();
  ASSERT_TRUE(transfer.upload(from, 10, sent, {}));
  ASSERT_TRUE(transfer.copy(to, 0, from, 10, sent.size(), {}));
  std::vector<std::byte> read(sent.size());
  ASSERT_TRUE(transfer.download(read, to, 0, {}));
  EXPECT_EQ(read, sent);
  EXPECT_EQ(transfer.fill(to, to.bytes, 1, {}, {}).error().code, Errc::invalid_block);
  EXPECT_EQ(transfer.upload(to, 11, std::vector<std::byte>(to.bytes), {}).error().code,
            Errc::invalid_block);
  opened->deallocate(from);
  opened->deallocate(to);
}

TEST_P(OpenClMemory, WhatIsTooLargeIsRefusedBeforeTheDriverIsAsked) {
  const auto opened = device(GetParam());
  const std::size_t before = calls_->made();
  for (const std::size_t bytes :
       {opened->limits().max_allocation + 1, std::size_t{1} << 50U, unbounded}) {
    const Expected<Block> block = opened->try_allocate({.bytes = bytes});
    ASSERT_FALSE(block);
    EXPECT_EQ(block.error().code, Errc::too_large);
  }
  EXPECT_EQ(opened->try_allocate({.bytes = 1, .alignment = 1_MiB}).error().code,
            Errc::bad_alignment);
  EXPECT_EQ(calls_->made(), before);
  EXPECT_TRUE(opened->allocate(std::size_t{0}).empty());
}

TEST_P(OpenClMemory, AFailureOfAnyCallLeavesNothingBehind) {
  const auto opened = device(GetParam());
  bool has_failed = true;
  for (std::size_t n = 1; has_failed; ++n) {
    ASSERT_LT(n, 20U);
    calls_->fail_next(n, CL_OUT_OF_RESOURCES);
    const long live = calls_->live();
    const Expected<Block> block = opened->try_allocate({.bytes = 100_KiB});
    has_failed = !block;
    calls_->fail_next(0, CL_SUCCESS);
    if (block) {
      opened->deallocate(*block);
    } else {
      EXPECT_EQ(block.error().code, Errc::out_of_memory);
      EXPECT_NE(std::string(block.error().detail), "");
    }
    EXPECT_EQ(calls_->live(), live);
    EXPECT_EQ(opened->stats().reserved.current, 0U);
    EXPECT_EQ(opened->validate(), "");
  }
  const Block after = opened->allocate(100_KiB);
  write(*opened, after, 'x');
  expect_filled(*opened, after, 'x');
  opened->deallocate(after);
}

TEST_P(OpenClMemory, PoolsStandOnIt) {
  for (const char* pools : {"cache > mine", "coalesce > mine", "arena > mine",
                            "arena > coalesce > mine", "planned > coalesce > mine"}) {
    SCOPED_TRACE(pools);
    const auto opened = device(GetParam());
    const Stack stack = open(pools, {{"mine", opened}});
    testing::Random random(testing::seed_or(5));
    std::vector<std::pair<Block, char>> blocks;
    for (int step = 0; step < 300; ++step) {
      if (random.chance(55) || blocks.empty()) {
        const Block block = stack->allocate(1 + random.below(64_KiB));
        const char value = static_cast<char>(step);
        write(*opened, block, value);
        blocks.emplace_back(block, value);
      } else {
        const std::size_t i = random.below(blocks.size());
        expect_filled(*opened, blocks[i].first, blocks[i].second);
        EXPECT_TRUE(stack->deallocate(blocks[i].first));
        blocks[i] = blocks.back();
        blocks.pop_back();
      }
    }
    EXPECT_EQ(stack->validate(), "");
    for (const auto& [block, value] : blocks) {
      expect_filled(*opened, block, value);
      stack->deallocate(block);
    }
    stack->trim();
    EXPECT_EQ(opened->stats().reserved.current, 0U);
  }
}

TEST_F(OpenClTest, ALostDeviceIsNamed) {
  const auto opened = device();
  calls_->fail_next(1, CL_DEVICE_NOT_AVAILABLE);
  const Expected<Block> block = opened->try_allocate({.bytes = 1_KiB});
  ASSERT_FALSE(block);
  EXPECT_EQ(block.error().code, Errc::device_failed);
  EXPECT_EQ(describe(block.error()),
            "opencl refused 1024 bytes: the device failed (CL_DEVICE_NOT_AVAILABLE)");
}

TEST_F(OpenClTest, AKernelIsGivenASubBufferOfAPoolsRegion) {
  const auto opened = device();
  const Stack stack = open("coalesce > mine", {{"mine", opened}});
  const Block first = stack->allocate(1_KiB);
  const Block second = stack->allocate(1_KiB);
  ASSERT_EQ(first.memory, second.memory);
  ASSERT_NE(first.offset, second.offset);
  {
    const Expected<OpenClObject> object = opened->object(second);
    ASSERT_TRUE(object);
    EXPECT_NE(static_cast<void*>(object->get()), second.memory);
    const Expected<OpenClObject> again = opened->object(second);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->get(), object->get()) << "it is kept";
    const Expected<OpenClObject> other = opened->object(first);
    ASSERT_TRUE(other);
    EXPECT_NE(other->get(), object->get());
    write(*opened, second, 'k');
    char byte = 0;
    ASSERT_EQ(calls_->api().enqueue_read_buffer(opened->queue(), object->get(), CL_TRUE, 0, 1,
                                                &byte, 0, nullptr, nullptr),
              CL_SUCCESS);
    EXPECT_EQ(byte, 'k');
  }
  Block beyond = second;
  beyond.bytes = 1_GiB;
  EXPECT_EQ(opened->object(beyond).error().code, Errc::invalid_block);
  EXPECT_EQ(opened->object(Block{}).error().code, Errc::invalid_block);
  stack->deallocate(first);
  stack->deallocate(second);
}

TEST_F(OpenClTest, TheRootIsGivenWhereABlockIsAllOfIt) {
  const auto opened = device();
  const Block block = opened->allocate(64_KiB);
  {
    const Expected<OpenClObject> object = opened->object(block);
    ASSERT_TRUE(object);
    EXPECT_EQ(static_cast<void*>(object->get()), block.memory);
  }
  opened->deallocate(block);
  EXPECT_EQ(device(OpenClKind::pinned)->object(block).error().code, Errc::unsupported);
}

TEST_F(OpenClTest, TheProgramsQueuesMayBeReleasedEarly) {
  testing::OpenClSetup own(calls_->api());
  const auto opened = own.make_device();
  const Stream stream = opened->stream(own.queue(false));
  const Stream unordered = opened->stream(own.queue(true));
  EXPECT_NE(stream.id, unordered.id);
  EXPECT_FALSE(stream.runs_out_of_order());
  EXPECT_TRUE(unordered.runs_out_of_order());
  EXPECT_EQ(opened->stream(own.queue(false)), stream);
  EXPECT_EQ(opened->stream(opened->queue()).id, 0U);
  own.release();
  const Block block = opened->allocate(1_MiB);
  write(*opened, block, 'a', stream);
  ASSERT_TRUE(opened->stream_order()->wait(unordered, stream));
  write(*opened, block, 'b', unordered);
  ASSERT_TRUE(opened->stream_order()->wait({}, unordered));
  expect_filled(*opened, block, 'b');
  opened->stream_order()->retire(stream);
  opened->stream_order()->retire(stream);
  ASSERT_TRUE(opened->stream_order()->wait({}, stream)) << "nothing is left to wait for";
  ASSERT_TRUE(opened->stream_order()->wait(stream, unordered)) << "the host waits instead";
  EXPECT_FALSE(opened->transfer()->fill(block, 0, 1, {}, stream));
  opened->deallocate(block, unordered);
}

TEST_F(OpenClTest, AQueueOutOfOrderIsNoDefaultStream) {
  testing::OpenClSetup own(calls_->api());
  EXPECT_THROW((void)own.make_device(own.queue(true)), std::invalid_argument);
  testing::OpenClSetup other(calls_->api());
  EXPECT_THROW((void)own.make_device(other.queue(false)), std::invalid_argument);
  const auto opened = own.make_device();
  EXPECT_THROW((void)opened->stream(other.queue(false)), std::invalid_argument);
  other.release();
  own.release();
}

TEST_F(OpenClTest, ABlockPassesFromStreamToStreamInOrder) {
  testing::OpenClSetup own(calls_->api());
  const auto opened = own.make_device();
  const Stream other = opened->stream(own.queue(false));
  const Stack stack = open("cache > mine", {{"mine", opened}});
  const std::size_t before = calls_->markers();
  for (int turn = 0; turn < 50; ++turn) {
    const Block block = stack->allocate(1_MiB);
    write(*opened, block, 'a');
    stack->deallocate(block);
  }
  EXPECT_EQ(calls_->markers(), before) << "on the same stream nothing is waited for";
  for (int turn = 0; turn < 50; ++turn) {
    const Stream stream = turn % 2 == 0 ? other : Stream{};
    const Block block = stack->allocate({.bytes = 1_MiB, .stream = stream});
    write(*opened, block, static_cast<char>(turn), stream);
    expect_filled(*opened, block, static_cast<char>(turn), stream);
    stack->deallocate(block, stream);
  }
  EXPECT_EQ(calls_->markers(), before + 50);
  own.release();
}

TEST_F(OpenClTest, ResidencyMigrates) {
  const auto opened = device();
  const Stack stack = open("cache > resident > mine", {{"mine", opened}});
  const Block block = stack->allocate(1_MiB);
  EXPECT_EQ(opened->stats().resident.current, 1_MiB);
  write(*opened, block, 'r');
  expect_filled(*opened, block, 'r');
  stack->deallocate(block);
  stack->trim();
  EXPECT_EQ(opened->stats().resident.current, 0U);
  EXPECT_EQ(device(OpenClKind::pinned)->residency(), nullptr);
}

TEST_F(OpenClTest, WhatIsNotThereIsSaid) {
  try {
    static_cast<void>(open("opencl(platform=nowhere)"));
    FAIL();
  } catch (const DeviceAbsent& absent) {
    EXPECT_NE(std::string(absent.what()).find("none is called like that; there is "),
              std::string::npos)
        << absent.what();
  }
  EXPECT_EQ(open("opencl(platform=0, device=0)")->device().limits().kind, std::string("opencl"));
}

}  // namespace
}  // namespace cistern
