// Pages of a GPU's memory behind addresses, over a driver that is not there.
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/core/virtual_memory.hpp"
#include "cistern/stack/stack.hpp"
#include "support/cuda_machine.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;

class CudaPages : public testing::OnFakeCuda {
 protected:
  static Block block_at(std::byte* start, std::size_t bytes) {
    return {.memory = start, .bytes = bytes};
  }
};

TEST_F(CudaPages, AreOfTheGranularityThatTheDriverSays) {
  EXPECT_EQ(device()->virtual_memory()->page_sizes().smallest, 2_MiB);
  EXPECT_EQ(device()->virtual_memory()->page_sizes().largest, 1_GiB);
  on({.page = 64_KiB});
  EXPECT_EQ(device()->virtual_memory()->page_sizes().smallest, 64_KiB);
  on({.page = 3_MiB});
  EXPECT_EQ(device()->virtual_memory(), nullptr);
  on({.has_virtual_memory = false});
  EXPECT_EQ(device()->virtual_memory(), nullptr);
  EXPECT_THROW((void)open("virtual > cuda"), std::invalid_argument);
  on({});
  for (const auto kind :
       {CudaDevice::Memory::managed, CudaDevice::Memory::pinned, CudaDevice::Memory::async})
    EXPECT_EQ(device(kind)->virtual_memory(), nullptr);
}

TEST_F(CudaPages, ThatAreMappedCanBeUsedAndNoOthers) {
  const auto opened = device();
  VirtualMemory& memory = *opened->virtual_memory();
  const AddressRange range = memory.reserve(1_GiB, 4_MiB).value();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(range.start) % 4_MiB, 0U);
  EXPECT_EQ(fake().figures().used, 0U);
  ASSERT_TRUE(memory.map(range, range.start + 8_MiB, 12_MiB));
  EXPECT_EQ(fake().figures().used, 12_MiB);
  EXPECT_EQ(opened->stats().reserved.current, 12_MiB);
  EXPECT_TRUE(write(*opened, block_at(range.start + 8_MiB, 12_MiB), 'm'));
  memory.unmap(range, range.start + 12_MiB, 4_MiB, {});
  EXPECT_TRUE(holds(*opened, block_at(range.start + 8_MiB, 4_MiB), 'm'));
  EXPECT_TRUE(holds(*opened, block_at(range.start + 16_MiB, 4_MiB), 'm'));
  ASSERT_TRUE(memory.map(range, range.start + 12_MiB, 4_MiB));
  EXPECT_TRUE(write(*opened, block_at(range.start + 12_MiB, 4_MiB), 'n'));
  EXPECT_EQ(opened->validate(), "");
  memory.unmap(range, range.start + 8_MiB, 12_MiB, {});
  memory.release(range);
  testing::expect_nothing_held(*opened);
}

TEST_F(CudaPages, CountWithBlocksAgainstTheCeiling) {
  const auto opened = device({.ceiling = 16_MiB});
  VirtualMemory& memory = *opened->virtual_memory();
  const AddressRange range = memory.reserve(64_MiB, 2_MiB).value();
  const Block block = opened->allocate(8_MiB);
  const Expected<void> refused = memory.map(range, range.start, 10_MiB);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::out_of_memory);
  EXPECT_EQ(refused.error().available, 8_MiB);
  ASSERT_TRUE(memory.map(range, range.start, 8_MiB));
  EXPECT_FALSE(opened->try_allocate({.bytes = 1}));
  EXPECT_EQ(opened->free_memory(), 0U);
  memory.unmap(range, range.start, 8_MiB, {});
  memory.release(range);
  opened->deallocate(block);
}

TEST_F(CudaPages, AFailureOfAnyCallLeavesNothingBehind) {
  const testing::CaughtReports reports;
  const auto opened = device();
  VirtualMemory& memory = *opened->virtual_memory();
  std::size_t failed = 0;
  for (std::size_t n = 1;; ++n) {
    ASSERT_LT(n, 500U);
    fake().fail_next(n, CudaResult::out_of_memory);
    if (const Expected<AddressRange> range = memory.reserve(64_MiB, 2_MiB)) {
      for (const std::size_t at : {0_MiB, 8_MiB}) {
        const Expected<void> mapped = memory.map(*range, range->start + at, 6_MiB);
        if (mapped) {
          memory.unmap(*range, range->start + at, 6_MiB, {});
        } else {
          ++failed;
          EXPECT_EQ(mapped.error().code, Errc::out_of_memory);
        }
        EXPECT_EQ(fake().figures().used, 0U) << fake().failed_call();
        EXPECT_EQ(opened->stats().reserved.current, 0U);
      }
      memory.release(*range);
    } else {
      ++failed;
      EXPECT_EQ(range.error().code, Errc::out_of_memory);
    }
    const std::string call = fake().failed_call();
    fake().fail_next(0, CudaResult::success);
    ASSERT_EQ(fake().figures().reserved, 0U) << call;
    ASSERT_EQ(fake().misuses(), std::vector<std::string>()) << call;
    EXPECT_EQ(opened->free_memory(), opened->limits().total_memory) << call;
    if (call.empty()) break;
  }
  EXPECT_GT(failed, 15U);
}

TEST_F(CudaPages, ReservingFailsWhereTheHostHasNoMemoryForATable) {
  const auto opened = device();
  opened->deallocate(opened->allocate(1_KiB));
  for (int n = 1;; ++n) {
    const testing::FailingNew failing(n);
    const Expected<AddressRange> range = opened->virtual_memory()->reserve(64_MiB, 2_MiB);
    if (!testing::FailingNew::has_failed()) {
      opened->virtual_memory()->release(range.value());
      break;
    }
    ASSERT_FALSE(range);
    EXPECT_EQ(range.error().code, Errc::out_of_memory);
  }
}

TEST_F(CudaPages, AreNotAskedForInACapture) {
  const auto opened = device();
  CUstream_st* const handle = fake().make_stream();
  const Stream stream = opened->stream(handle);
  const Stack stack = open("virtual(page=2MiB) > mine", {{"mine", opened}});
  const Block open_page = stack->allocate({.bytes = 1_MiB, .stream = stream});
  fake().begin_capture(handle);
  const Block in_it = stack->allocate({.bytes = 512_KiB, .stream = stream});
  const Expected<Block> refused = stack->try_allocate({.bytes = 8_MiB, .stream = stream});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::in_capture);
  EXPECT_TRUE(fake().end_capture(handle));
  stack->deallocate(open_page, stream);
  stack->deallocate(in_it, stream);
}

TEST_F(CudaPages, ThatAreLeftInACaptureAreTakenAgainOrGoWhenItHasEnded) {
  const auto opened = device();
  VirtualMemory& memory = *opened->virtual_memory();
  CUstream_st* const handle = fake().make_stream();
  const Stream stream = opened->stream(handle);
  const AddressRange range = memory.reserve(64_MiB, 2_MiB).value();
  ASSERT_TRUE(memory.map(range, range.start, 12_MiB, stream));
  fake().begin_capture(handle);
  memory.unmap(range, range.start, 12_MiB, stream);
  EXPECT_EQ(fake().figures().used, 12_MiB);
  EXPECT_EQ(opened->stats().reserved.current, 0U);
  EXPECT_EQ(opened->free_memory(), opened->limits().total_memory - 12_MiB) << "they are there";
  EXPECT_TRUE(memory.map(range, range.start + 4_MiB, 4_MiB, stream)) << "without a call";
  EXPECT_EQ(memory.map(range, range.start + 8_MiB, 8_MiB, stream).error().code, Errc::in_capture);
  EXPECT_TRUE(fake().end_capture(handle));
  ASSERT_TRUE(memory.map(range, range.start, 2_MiB, stream));
  EXPECT_EQ(fake().figures().used, 6_MiB) << "the others went before more was asked for";
  EXPECT_TRUE(write(*opened, block_at(range.start + 4_MiB, 4_MiB), 'l'));
  memory.unmap(range, range.start + 4_MiB, 4_MiB, stream);
  fake().begin_capture(handle);
  memory.unmap(range, range.start, 2_MiB, stream);
  EXPECT_TRUE(fake().end_capture(handle));
  memory.release(range);
  EXPECT_EQ(fake().figures().used, 0U);
  EXPECT_EQ(opened->free_memory(), opened->limits().total_memory);
}

TEST_F(CudaPages, OfARangeThatIsReleasedInACaptureGoWhenItHasEnded) {
  const auto opened = device();
  VirtualMemory& memory = *opened->virtual_memory();
  CUstream_st* const handle = fake().make_stream(false);
  const Stream stream = opened->stream(handle);
  const AddressRange range = memory.reserve(64_MiB, 2_MiB).value();
  ASSERT_TRUE(memory.map(range, range.start, 4_MiB, stream));
  fake().launch(
      handle, {{.block = block_at(range.start, 4_MiB), .access = SimulatedQueues::Access::write}});
  fake().begin_capture(handle);
  memory.unmap(range, range.start, 4_MiB, stream);
  memory.release(range);
  opened->trim();
  EXPECT_EQ(fake().figures().used, 4_MiB) << "they may be in use";
  EXPECT_EQ(fake().figures().reserved, 64_MiB);
  EXPECT_TRUE(fake().end_capture(handle));
  opened->trim();
  EXPECT_EQ(fake().figures().used, 0U);
  EXPECT_EQ(fake().figures().reserved, 0U);
  testing::expect_nothing_held(*opened);
}

TEST_F(CudaPages, ThatAreInUseWhenTheDeviceEndsInACaptureStay) {
  on({.gpus = 8});  // they are charged to a GPU of no other test
  const testing::CaughtReports reports;
  fake().push(fake().primary_context(7));
  CUstream_st* const handle = fake().make_stream(false);
  fake().pop();
  {
    const auto opened = device({.device = 7});
    const Stream stream = opened->stream(handle);
    const Stack stack = open("virtual(page=2MiB) > mine", {{"mine", opened}});
    const Block block = stack->allocate({.bytes = 4_MiB, .stream = stream});
    fake().begin_capture(handle);
    stack->deallocate(block, stream);
  }
  EXPECT_EQ(fake().figures().used, 4_MiB);
  EXPECT_EQ(fake().misuses(), std::vector<std::string>());
  EXPECT_EQ(testing::CaughtReports::all(),
            std::vector<std::string>{"cuda leaves 4194304 bytes: a stream that used them cannot be "
                                     "waited for"});
  {
    const auto next = device({.device = 7});
    EXPECT_EQ(next->free_memory(), next->limits().total_memory - 4_MiB);
  }
  on({});
}

TEST_F(CudaPages, StayAsLongAsTheirStreamCannotBeWaitedFor) {
  const auto opened = device();
  VirtualMemory& memory = *opened->virtual_memory();
  const AddressRange range = memory.reserve(64_MiB, 2_MiB).value();
  ASSERT_TRUE(memory.map(range, range.start, 4_MiB));
  const auto synchronize = fake().api().synchronize_event;
  static CudaResult answer{};
  fake().changeable_api().synchronize_event = [](CUevent_st*) { return answer; };
  answer = CudaResult::unknown;
  memory.unmap(range, range.start, 2_MiB, {});
  EXPECT_EQ(fake().figures().used, 4_MiB);
  EXPECT_EQ(opened->stats().reserved.current, 2_MiB);
  for (const CudaResult final : {CudaResult::illegal_address, CudaResult::context_is_destroyed}) {
    answer = final;
    memory.unmap(range, range.start + 2_MiB, 2_MiB, {});
    EXPECT_EQ(fake().figures().used, 0U) << "nothing uses them any more";
    fake().changeable_api().synchronize_event = synchronize;
    ASSERT_TRUE(memory.map(range, range.start + 2_MiB, 2_MiB));
    fake().changeable_api().synchronize_event = [](CUevent_st*) { return answer; };
  }
  fake().changeable_api().synchronize_event = synchronize;
  memory.unmap(range, range.start + 2_MiB, 2_MiB, {});
  memory.release(range);
}

TEST_F(CudaPages, ThatAreLeftMakeRoomForARequestOnceTheyCanGo) {
  const auto opened = device({.ceiling = 16_MiB});
  VirtualMemory& memory = *opened->virtual_memory();
  CUstream_st* const handle = fake().make_stream(false);
  const Stream stream = opened->stream(handle);
  const AddressRange range = memory.reserve(64_MiB, 2_MiB).value();
  ASSERT_TRUE(memory.map(range, range.start, 12_MiB, stream));
  fake().begin_capture(handle);
  memory.unmap(range, range.start, 12_MiB, stream);
  EXPECT_FALSE(opened->try_allocate({.bytes = 12_MiB}));
  EXPECT_TRUE(fake().end_capture(handle));
  const Block freed = opened->allocate({.bytes = 12_MiB, .stream = stream});
  fake().begin_capture(handle);
  opened->deallocate(freed, stream);
  EXPECT_FALSE(opened->try_allocate({.bytes = 12_MiB}));
  EXPECT_TRUE(fake().end_capture(handle));
  const Block block = opened->allocate({.bytes = 12_MiB, .stream = stream});
  fake().begin_capture(handle);
  opened->deallocate(block, stream);
  EXPECT_FALSE(memory.map(range, range.start, 12_MiB));
  EXPECT_TRUE(fake().end_capture(handle));
  EXPECT_TRUE(memory.map(range, range.start, 12_MiB));
  memory.unmap(range, range.start, 12_MiB, {});
  memory.release(range);
}

/// What goes back waits for the streams that this device's memory was used on, and for no others.
TEST_F(CudaPages, DoNotWaitForStreamsThatOtherDevicesUse) {
  const auto opened = device();
  const auto other = device(CudaDevice::Memory::managed);
  CUstream_st* const own = fake().make_stream(false);
  CUstream_st* const others = fake().make_stream(false);
  static_cast<void>(other->stream(others));
  const Stream stream = opened->stream(own);
  VirtualMemory& memory = *opened->virtual_memory();
  const AddressRange range = memory.reserve(64_MiB, 2_MiB).value();
  ASSERT_TRUE(memory.map(range, range.start, 2_MiB, stream));
  fake().begin_capture(own);
  memory.unmap(range, range.start, 2_MiB, stream);
  EXPECT_TRUE(fake().end_capture(own));
  fake().begin_capture(others);
  opened->trim();
  EXPECT_EQ(fake().figures().used, 0U);
  EXPECT_TRUE(fake().end_capture(others));
  memory.release(range);
}

}  // namespace
}  // namespace cistern
