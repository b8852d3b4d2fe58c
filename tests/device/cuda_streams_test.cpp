// Streams of CUDA's, over a driver that is not there: who waits for whom, and what becomes of
// memory while a stream is captured into a graph.
#include <atomic>
#include <future>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/pool/planned.hpp"
#include "cistern/stack/stack.hpp"
#include "support/cuda_machine.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"
#include "support/stream_program.hpp"

namespace cistern {
namespace {

using namespace literals;
using CudaKind = CudaDevice::Memory;

CUstream_st* special_handle(std::uintptr_t handle) {
  return reinterpret_cast<CUstream_st*>(handle);  // NOLINT(performance-no-int-to-ptr)
}

class CudaStreams : public testing::OnFakeCuda {
 protected:
  void use(CUstream_st* stream, const Block& block) {
    fake().launch(stream, {{.block = block, .access = SimulatedQueues::Access::write}});
  }
};

TEST_F(CudaStreams, HaveAnIdForEachHandleUntilTheyAreRetired) {
  const auto opened = device();
  EXPECT_EQ(opened->stream(nullptr), Stream{});
  EXPECT_EQ(opened->stream(special_handle(cuda_legacy_stream)), Stream{});
  CUstream_st* const one = fake().make_stream();
  const Stream first = opened->stream(one);
  const Stream second = opened->stream(fake().make_stream());
  EXPECT_EQ(first.handle, one);
  EXPECT_EQ(opened->stream(one), first);
  std::set<std::uint64_t> ids{0, first.id, second.id};
  opened->stream_order()->retire(first);
  opened->stream_order()->retire(first);
  EXPECT_TRUE(opened->stream_order()->wait({}, first)) << "nothing is left";
  EXPECT_TRUE(opened->stream_order()->wait(first, second)) << "the host waits instead";
  ids.insert(opened->stream(one).id);
  EXPECT_EQ(ids.size(), 4U);
  EXPECT_EQ(opened->transfer()->fill(Block{.bytes = 1}, 0, 1, {}, first).error().code,
            Errc::device_failed);
}

TEST_F(CudaStreams, AreKnownToAllDevicesInTheContext) {
  const auto one = device();
  const auto two = device(CudaKind::managed);
  CUstream_st* const handle = fake().make_stream();
  const Stream stream = one->stream(handle);
  EXPECT_EQ(two->stream(handle), stream);
  EXPECT_EQ(device()->stream(handle), stream);
  const auto unused = device();
  const Block written = two->allocate(1_MiB);
  use(handle, written);
  CUstream_st* const next = fake().make_stream();
  EXPECT_TRUE(unused->stream_order()->wait(one->stream(next), stream))
      << "without a context so far";
  use(next, written);
  EXPECT_TRUE(two->deallocate(written, one->stream(next)));
  const Block block = two->allocate(1_MiB);
  use(handle, block);
  EXPECT_TRUE(two->deallocate(block, stream)) << "it is waited for";
  two->stream_order()->retire(stream);
  EXPECT_TRUE(one->transfer()->fill(block, 0, 1, {}, stream).error().code == Errc::device_failed);
  EXPECT_NE(one->stream(handle).id, stream.id);
  fake().push(fake().make_context());
  const auto other = make<CudaDevice>(fake().api(), fake().current(), CudaDevice::Options{});
  fake().pop();
  EXPECT_FALSE(other->transfer()->fill(block, 0, 1, {}, one->stream(handle)));
}

/// A free in a pool does not come to its device.
TEST_F(CudaStreams, AreWaitedForAlsoOnceTheDeviceIsClosedThatWasAskedForThem) {
  auto one = device();
  const auto two = device();
  const Stack stack = open("cache > mine", {{"mine", two}});
  CUstream_st* const handle = fake().make_stream(false);
  CUstream_st* const nexts = fake().make_stream(false);
  const Stream stream = one->stream(handle);
  const Stream next = two->stream(nexts);
  const Block block = stack->allocate({.bytes = 1_MiB, .stream = next});
  fake().wait(handle, nexts);
  use(handle, block);
  stack->deallocate(block, stream);
  one = Ref<CudaDevice>();
  const Block again = stack->allocate({.bytes = 1_MiB, .stream = next});
  EXPECT_EQ(again.memory, block.memory);
  use(nexts, again);
  stack->deallocate(again, next);
}

TEST_F(CudaStreams, AreWaitedForWhenTheyAreRetiredWhicheverCallFails) {
  for (std::size_t n = 1; n < 8; ++n) {
    const auto opened = device();
    const Stack stack = open("cache > mine", {{"mine", opened}});
    CUstream_st* const handle = fake().make_stream(false);
    CUstream_st* const nexts = fake().make_stream(false);
    const Stream stream = opened->stream(handle);
    const Stream next = opened->stream(nexts);
    const Block block = stack->allocate({.bytes = 1_MiB, .stream = stream});
    use(handle, block);
    stack->deallocate(block, stream);
    fake().fail_next(n, CudaResult::unknown);
    opened->stream_order()->retire(stream);
    fake().fail_next(0, CudaResult::success);
    const Block again = stack->allocate({.bytes = 1_MiB, .stream = next});
    use(nexts, again);
    stack->deallocate(again, next);
  }
}

TEST_F(CudaStreams, AreKnownAsLongAsADeviceIsOpenThatHasUsedThem) {
  auto one = device(CudaKind::async);
  const auto two = device(CudaKind::async);
  CUstream_st* const shared = fake().make_stream(false);
  CUstream_st* const ones = fake().make_stream(false);
  const Stream stream = one->stream(shared);
  static_cast<void>(one->stream(ones));
  two->deallocate(two->allocate({.bytes = 1_MiB, .stream = stream}), stream);
  one = Ref<CudaDevice>();
  EXPECT_EQ(two->stream(shared), stream);
  fake().destroy_stream(ones);  // which the others do not know
  two->trim();
  const auto three = device(CudaKind::async);
  three->deallocate(three->allocate(1_MiB));
  three->trim();
  two->stream_order()->retire(stream);
  fake().destroy_stream(shared);
  two->trim();
  EXPECT_EQ(fake().figures().used, 0U);
}

TEST_F(CudaStreams, AreKnownToAnyNumberOfDevices) {
  std::vector<Ref<CudaDevice>> devices;
  CUstream_st* const handle = fake().make_stream(false);
  for (int i = 0; i < 100; ++i) {
    devices.push_back(device());
    EXPECT_EQ(devices.back()->stream(handle), devices.front()->stream(handle));
  }
  const Stream stream = devices.front()->stream(handle);
  while (devices.size() > 1) {
    devices.erase(devices.begin());
    EXPECT_EQ(devices.back()->stream(handle), stream);
  }
}

TEST_F(CudaStreams, AHandleThatIsUsedAgainIsAnotherStream) {
  const auto opened = device();
  CUstream_st* const handle = fake().make_stream();
  const Stream before = opened->stream(handle);
  fake().reuse_handle(handle);
  const Stream after = opened->stream(handle);
  EXPECT_NE(before.id, after.id);
  EXPECT_EQ(opened->stream(handle), after);
  fake().changeable_api().stream_id = nullptr;  // of a driver before 12.0
  const auto older = device();
  const Stream known = older->stream(handle);
  EXPECT_EQ(older->stream(handle), known);
}

TEST_F(CudaStreams, AStreamOfAnotherContextIsRefused) {
  const auto opened = device();
  fake().push(fake().make_context());
  CUstream_st* const foreign = fake().make_stream();
  fake().pop();
  EXPECT_THROW((void)opened->stream(foreign), std::invalid_argument);
}

TEST_F(CudaStreams, ABlockPassesFromOneToAnotherByAnEventOfThePool) {
  const auto opened = device();
  CUstream_st* const handles[] = {fake().make_stream(), fake().make_stream(false)};
  const Stream streams[] = {opened->stream(handles[0]), opened->stream(handles[1])};
  const Stack stack = open("cache > mine", {{"mine", opened}});
  for (int turn = 0; turn < 20; ++turn) {
    const Block block = stack->allocate({.bytes = 1_MiB, .stream = streams[0]});
    use(handles[0], block);
    stack->deallocate(block, streams[0]);
  }
  EXPECT_EQ(fake().figures().events_made, 0U) << "on the same stream nothing is waited for";
  for (std::size_t turn = 0; turn < 20; ++turn) {
    const std::size_t i = (turn + 1) % 2;
    const Block block = stack->allocate({.bytes = 1_MiB, .stream = streams[i]});
    use(handles[i], block);
    stack->deallocate(block, streams[i]);
  }
  EXPECT_EQ(fake().figures().waits, 20U);
  EXPECT_EQ(fake().figures().events_made, 1U);
}

TEST_F(CudaStreams, AStreamThatUsesABlockAsWellIsWaitedFor) {
  const auto opened = device();
  CUstream_st* const home = fake().make_stream(false);
  CUstream_st* const side = fake().make_stream(false);
  const Stack stack = open("cache > mine", {{"mine", opened}});
  const Block block = stack->allocate({.bytes = 1_MiB, .stream = opened->stream(home)});
  use(home, block);
  fake().wait(side, home);
  use(side, block);
  ASSERT_TRUE(stack->also_used_on(block, opened->stream(side)));
  stack->deallocate(block, opened->stream(home));
  const Block again = stack->allocate({.bytes = 1_MiB, .stream = opened->stream(home)});
  EXPECT_EQ(again.memory, block.memory);
  use(home, again);
  stack->deallocate(again, opened->stream(home));
}

TEST_F(CudaStreams, EachThreadHasItsOwnDefaultStream) {
  const auto opened = device();
  CUstream_st* const per_thread = special_handle(cuda_per_thread_stream);
  const Stream here = opened->stream(per_thread);
  Stream there;
  EXPECT_NE(here.id, 0U);
  EXPECT_EQ(opened->stream(per_thread), here);
  const Stack stack = open("cache > mine", {{"mine", opened}});
  const void* memory = nullptr;
  std::thread([&] {
    there = opened->stream(per_thread);
    const Block block = stack->allocate({.bytes = 1_MiB, .stream = there});
    memory = block.memory;
    use(per_thread, block);
    stack->deallocate(block, there);
  }).join();
  EXPECT_NE(here.id, there.id);
  const Block taken = stack->allocate({.bytes = 1_MiB, .stream = here});
  EXPECT_EQ(taken.memory, memory);
  use(per_thread, taken);
  stack->deallocate(taken, here);
  std::thread([&] {
    // Also for a stream beside all others, which the legacy stream does not wait for.
    CUstream_st* const beside = fake().make_stream(false);
    const Block block = stack->allocate({.bytes = 1_MiB, .stream = opened->stream(beside)});
    EXPECT_EQ(block.memory, memory);
    use(beside, block);
    stack->deallocate(block, opened->stream(beside));
  }).join();
  const Block again = stack->allocate({.bytes = 1_MiB, .stream = there});
  EXPECT_EQ(again.memory, memory) << "another thread's stream is made to wait";
  std::thread([&] { fake().synchronize(special_handle(cuda_legacy_stream)); }).join();
  stack->deallocate(again, there);
}

TEST_F(CudaStreams, WorkOfAnotherThreadsDefaultStreamIsWaitedForBeforeMemoryGoesBack) {
  const auto opened = device();
  CUstream_st* const per_thread = special_handle(cuda_per_thread_stream);
  const Block block = opened->allocate(1_MiB);
  Stream there;
  std::thread([&] {
    there = opened->stream(per_thread);
    use(per_thread, block);
  }).join();
  opened->deallocate(block, there);
}

TEST_F(CudaStreams, MayBeRetiredWhileOthersUseThem) {
  const auto opened = device();
  StreamOrder& order = *opened->stream_order();
  for (int turn = 0; turn < 20; ++turn) {
    CUstream_st* const handle = fake().make_stream();
    const Stream stream = opened->stream(handle);
    const Block block = opened->allocate(64_KiB);
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        for (int times = 0; times < 20; ++times) {
          EXPECT_TRUE(order.wait({}, stream));
          EXPECT_TRUE(order.synchronize(stream));
          static_cast<void>(opened->transfer()->fill(block, 0, 64, std::byte(1), stream));
        }
      });
    }
    order.retire(stream);
    fake().destroy_stream(handle);  // nobody has it in hand any more
    for (std::thread& thread : threads)
      thread.join();
    opened->deallocate(block);
  }
}

TEST_F(CudaStreams, AWaitThatFailsIsMadeByTheHost) {
  const auto fails = [&](const char* call) {
    for (std::size_t n = 1; n < 20; ++n) {
      const auto opened = device();
      const Stream one = opened->stream(fake().make_stream());
      const Stream two = opened->stream(fake().make_stream());
      fake().fail_next(n, CudaResult::unknown);
      EXPECT_TRUE(opened->stream_order()->wait(one, two)) << call;
      const bool is_it = fake().failed_call() == call;
      fake().fail_next(0, CudaResult::success);
      if (is_it) return true;
    }
    return false;
  };
  for (const char* call : {"cuEventCreate", "cuEventRecord", "cuStreamWaitEvent"})
    EXPECT_TRUE(fails(call)) << call;
}

// --- Captures. ---

TEST_F(CudaStreams, ARequestThatNeedsTheDriverFailsInACapture) {
  for (const CudaKind kind :
       {CudaKind::device, CudaKind::managed, CudaKind::pinned, CudaKind::async}) {
    SCOPED_TRACE(testing::name_of(kind));
    const auto opened = device(kind);
    CUstream_st* const handle = fake().make_stream();
    const Stream stream = opened->stream(handle);
    const Stack stack = open("retry > coalesce > mine", {{"mine", opened}});
    opened->deallocate(opened->allocate({.bytes = 1_KiB, .stream = stream}), stream);
    fake().begin_capture(handle);
    const Expected<Block> refused = stack->try_allocate({.bytes = 1_KiB, .stream = stream});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::in_capture);
    EXPECT_NE(describe(refused.error())
                  .find("the device cannot be asked while the stream is captured into a graph"),
              std::string::npos)
        << describe(refused.error());
    EXPECT_THROW((void)stack->allocate({.bytes = 1_KiB, .stream = stream}), OutOfMemory);
    EXPECT_EQ(stack->stats().live_blocks.current, 0U);
    EXPECT_EQ(opened->stream(handle), stream);
    EXPECT_TRUE(fake().end_capture(handle)) << "and the capture is as it was";
    stack->deallocate(stack->allocate({.bytes = 1_KiB, .stream = stream}), stream);
  }
}

TEST_F(CudaStreams, ARequestBesideACaptureOfAnotherThreadDisturbsNothing) {
  for (const CudaKind kind :
       {CudaKind::device, CudaKind::managed, CudaKind::pinned, CudaKind::async}) {
    SCOPED_TRACE(testing::name_of(kind));
    const auto opened = device(kind);
    CUstream_st* const captured = fake().make_stream();
    CUstream_st* const other = fake().make_stream(false);
    const Stream stream = opened->stream(other);
    std::thread([&] { fake().begin_capture(captured, CudaCaptureMode::global); }).join();
    const Block block = opened->allocate({.bytes = 1_MiB, .stream = stream});
    EXPECT_TRUE(write(*opened, block, 'b', stream));
    EXPECT_TRUE(holds(*opened, block, 'b', stream));
    EXPECT_TRUE(opened->deallocate(block, stream));
    const Expected<Block> by_default = opened->try_allocate({.bytes = 1_MiB});
    EXPECT_EQ(by_default.has_value(), kind != CudaKind::async);
    if (by_default) opened->deallocate(*by_default);
    EXPECT_EQ(opened->stats().live_blocks.current, 0U);
    EXPECT_TRUE(fake().end_capture(captured));
  }
}

TEST_F(CudaStreams, AStreamMayBeMadeKnownInItsCapture) {
  const auto opened = device();
  CUstream_st* const handle = fake().make_stream(false);
  opened->deallocate(opened->allocate(1_KiB));
  fake().begin_capture(handle);
  const Stream stream = opened->stream(handle);
  EXPECT_TRUE(opened->is_captured(stream));
  EXPECT_TRUE(fake().end_capture(handle));
  EXPECT_EQ(opened->stream(handle), stream);
  EXPECT_FALSE(opened->is_captured(stream));
}

TEST_F(CudaStreams, IdleBlocksAreHandedOutInACapture) {
  const auto opened = device();
  CUstream_st* const captured = fake().make_stream();
  CUstream_st* const other = fake().make_stream(false);
  const Stream stream = opened->stream(captured);
  const Stack stack = open("cache > mine", {{"mine", opened}});
  const Block by_itself = stack->allocate({.bytes = 1_MiB, .stream = stream});
  const Block by_another = stack->allocate({.bytes = 8_MiB, .stream = opened->stream(other)});
  use(other, by_another);
  stack->deallocate(by_itself, stream);
  stack->deallocate(by_another, opened->stream(other));
  fake().begin_capture(captured);
  const Block first = stack->allocate({.bytes = 1_MiB, .stream = stream});
  EXPECT_EQ(first.memory, by_itself.memory);
  const Block second = stack->allocate({.bytes = 8_MiB, .stream = stream});
  EXPECT_EQ(second.memory, by_another.memory) << "the host has waited for the other stream";
  stack->deallocate(first, stream);
  const Expected<Block> outside =
      stack->try_allocate({.bytes = 1_MiB, .stream = opened->stream(other)});
  ASSERT_TRUE(outside);
  EXPECT_NE(outside->memory, first.memory) << "what a graph was given is not handed out beside it";
  EXPECT_FALSE(fake().is_captured(other));
  EXPECT_TRUE(fake().end_capture(captured));
  use(captured, second);
  stack->deallocate(second, stream);
  stack->deallocate(*outside, opened->stream(other));
}

TEST_F(CudaStreams, StreamsOfOneCaptureWaitForEachOther) {
  const auto opened = device();
  CUstream_st* const handles[] = {fake().make_stream(), fake().make_stream()};
  const Stream one = opened->stream(handles[0]);
  const Stream two = opened->stream(handles[1]);
  const Stack stack = open("cache > mine", {{"mine", opened}});
  const Block block = stack->allocate({.bytes = 1_MiB, .stream = one});
  fake().begin_capture(handles[0]);
  fake().join_capture(handles[1], handles[0]);
  stack->deallocate(block, one);
  const Block taken = stack->allocate({.bytes = 1_MiB, .stream = two});
  EXPECT_EQ(taken.memory, block.memory);
  EXPECT_TRUE(fake().end_capture(handles[0]));
  stack->deallocate(taken, two);
  // Of two captures neither waits for the other.
  fake().begin_capture(handles[0]);
  fake().begin_capture(handles[1]);
  EXPECT_FALSE(opened->stream_order()->wait(one, two));
  EXPECT_EQ(opened->stream_order()->synchronize(one).error().code, Errc::in_capture);
  EXPECT_TRUE(fake().end_capture(handles[0]));
  EXPECT_TRUE(fake().end_capture(handles[1]));
}

/// What stood in the captured stream before goes on, and it cannot be waited for.
TEST_F(CudaStreams, ABlockThatACapturedStreamUsesTooIsNotHandedOutBesideIt) {
  for (const char* pools : {"cache > mine", "coalesce > mine", "virtual > mine",
                            "arena(chunk=4MiB) > cache > mine", "limit(1GiB) > mine"}) {
    SCOPED_TRACE(pools);
    const auto opened = device();
    CUstream_st* const homes = fake().make_stream(false);
    CUstream_st* const sides = fake().make_stream(false);
    const Stream home = opened->stream(homes);
    const Stream side = opened->stream(sides);
    const Stack stack = open(pools, {{"mine", opened}});
    const Block block = stack->allocate({.bytes = 2_MiB, .stream = home});
    use(sides, block);
    ASSERT_TRUE(stack->also_used_on(block, side));
    fake().begin_capture(sides);
    stack->deallocate(block, home);
    const Expected<Block> beside = stack->try_allocate({.bytes = 2_MiB, .stream = home});
    if (beside) {
      EXPECT_NE(beside->memory, block.memory);
      use(homes, *beside);
      stack->deallocate(*beside, home);
    } else {
      EXPECT_EQ(beside.error().code, Errc::in_capture);
    }
    EXPECT_TRUE(fake().end_capture(sides));
    for (int i = 0; i < 2; ++i) {
      const Block next = stack->allocate({.bytes = 2_MiB, .stream = home});
      use(homes, next);
      stack->deallocate(next, home);
    }
  }
}

/// The same of pools that use their memory again in every cycle, whether a free ends the block or
/// the cycle does.
TEST_F(CudaStreams, APoolOfCyclesLeavesAloneWhatACapturedStreamUses) {
  for (const char* pools : {"arena > cache > mine", "planned > cache > mine"}) {
    for (const bool is_freed : {true, false}) {
      SCOPED_TRACE(std::string(pools) + (is_freed ? ", freed" : ", reset"));
      const auto opened = device();
      CUstream_st* const homes = fake().make_stream(false);
      CUstream_st* const sides = fake().make_stream(false);
      const Stream home = opened->stream(homes);
      const Stream side = opened->stream(sides);
      const Stack stack = open(pools, {{"mine", opened}});
      const auto allocate = [&](std::size_t bytes) {
        const Block block = stack->allocate({.bytes = bytes, .stream = home});
        use(homes, block);
        return block;
      };
      const auto turn = [&](bool is_shared) {
        const Block first = allocate(1_MiB);
        const Block shared = allocate(2_MiB);
        if (is_shared) {
          fake().wait(sides, homes);
          use(sides, shared);
          ASSERT_TRUE(stack->also_used_on(shared, side));
          fake().begin_capture(sides);
        }
        if (is_freed) {
          stack->deallocate(shared, home);
          stack->deallocate(allocate(2_MiB), home);
          stack->deallocate(first, home);
        }
        stack->reset();
      };
      for (int i = 0; i < 4; ++i)
        turn(false);
      turn(true);
      turn(false);
      stack->trim();
      EXPECT_TRUE(fake().end_capture(sides));
      const std::uint64_t before = stack->stats().hits;
      for (int i = 0; i < 3; ++i)
        turn(false);
      EXPECT_GT(stack->stats().hits - before, 3U) << "it serves them again";
      EXPECT_EQ(stack->validate(), "");
    }
  }
}

/// Of two captures neither waits for the other, so that the memory stays where it was freed.
TEST_F(CudaStreams, APoolOfCyclesDoesNotPassMemoryFromOneCaptureToAnother) {
  for (const char* pools : {"arena > cache > mine", "planned > cache > mine"}) {
    SCOPED_TRACE(pools);
    const auto opened = device();
    CUstream_st* const homes = fake().make_stream(false);
    CUstream_st* const sides = fake().make_stream(false);
    const Stream home = opened->stream(homes);
    const Stream side = opened->stream(sides);
    const Stack stack = open(pools, {{"mine", opened}});
    const auto turn = [&](Stream freed_on) {
      const Block first = stack->allocate({.bytes = 1_MiB, .stream = home});
      const Block second = stack->allocate({.bytes = 1_MiB, .stream = home});
      if (freed_on.id != home.id) fake().begin_capture(sides);
      stack->deallocate(first, freed_on);
      static_cast<void>(second);
      return first.memory;
    };
    for (int i = 0; i < 4; ++i) {
      turn(home);
      stack->reset();
    }
    const void* const freed = turn(side);
    fake().begin_capture(homes);
    stack->reset();
    for (int i = 0; i < 2; ++i) {
      const Expected<Block> block = stack->try_allocate({.bytes = 1_MiB, .stream = home});
      if (block) {
        EXPECT_NE(block->memory, freed);
      } else {
        EXPECT_EQ(block.error().code, Errc::in_capture);
      }
    }
    stack->reset();
    EXPECT_TRUE(fake().end_capture(homes));
    EXPECT_TRUE(fake().end_capture(sides));
  }
}

/// Between the look at a stream and the event that is recorded there.
TEST_F(CudaStreams, ACaptureThatBeginsMeanwhileIsNeitherEnteredNorBroken) {
  static testing::FakeCuda* machine = nullptr;
  static CudaApi real;
  static CUstream_st* begun = nullptr;
  machine = &fake();
  real = fake().api();
  begun = fake().make_stream();
  fake().changeable_api().record_event = [](CUevent_st* event, CUstream_st* stream) {
    if (stream == begun && !machine->is_captured(begun)) machine->begin_capture(begun);
    return real.record_event(event, stream);
  };
  const auto opened = device();
  const Stream stream = opened->stream(begun);
  CUstream_st* const other = fake().make_stream();
  opened->deallocate(opened->allocate({.bytes = 1_KiB, .stream = opened->stream(other)}),
                     opened->stream(other));
  EXPECT_FALSE(opened->stream_order()->wait(opened->stream(other), stream));
  EXPECT_FALSE(fake().is_captured(other));
  EXPECT_TRUE(fake().end_capture(begun));
  EXPECT_EQ(opened->stream_order()->synchronize(stream).error().code, Errc::in_capture);
  EXPECT_TRUE(fake().end_capture(begun));
}

TEST_F(CudaStreams, WhatIsFreedInACaptureGoesBackWhenItHasEnded) {
  for (const CudaKind kind :
       {CudaKind::device, CudaKind::managed, CudaKind::pinned, CudaKind::async}) {
    SCOPED_TRACE(testing::name_of(kind));
    const auto opened = device(kind);
    CUstream_st* const handle = fake().make_stream();
    const Stream stream = opened->stream(handle);
    const Block first = opened->allocate({.bytes = 1_MiB, .stream = stream});
    const Block second = opened->allocate({.bytes = 1_MiB, .stream = stream});
    const auto held = [&] {
      const testing::FakeCuda::Figures figures = fake().figures();
      return figures.used + figures.host + figures.managed;
    };
    use(handle, first);
    fake().begin_capture(handle);
    opened->deallocate(first, stream);
    opened->deallocate(second, stream);
    EXPECT_EQ(opened->stats().live_blocks.current, 0U);
    EXPECT_GE(held(), 2_MiB) << "it is there still";
    EXPECT_TRUE(fake().end_capture(handle));
    opened->trim();
    EXPECT_EQ(held(), 0U);
  }
}

/// Two threads look at the same time at what could not go.
TEST_F(CudaStreams, WhatAnotherThreadHasTakenOutToLookAtIsNotForgotten) {
  const auto opened = device();
  CUstream_st* const handle = fake().make_stream(false);
  const Stream stream = opened->stream(handle);
  const Block block = opened->allocate({.bytes = 1_MiB, .stream = stream});
  fake().begin_capture(handle);
  opened->deallocate(block, stream);
  static CudaDevice* trimmed = nullptr;
  static CudaApi real;
  trimmed = opened.get();
  real = fake().api();
  fake().changeable_api().capture_info = [](CUstream_st* of, CudaCaptureStatus* status,
                                            std::uint64_t* id) {
    if (CudaDevice* const device = std::exchange(trimmed, nullptr))
      std::thread([&] { device->trim(); }).join();
    return real.capture_info(of, status, id);
  };
  opened->trim();
  EXPECT_EQ(trimmed, nullptr);
  EXPECT_TRUE(fake().end_capture(handle));
  opened->trim();
  EXPECT_EQ(fake().figures().used, 0U);
}

TEST_F(CudaStreams, ACaptureThatIsUnderWayWhenTheDeviceEndsLosesNothing) {
  CUstream_st* const handle = fake().make_stream();
  {
    const auto opened = device(CudaKind::async);
    const Stream stream = opened->stream(handle);
    const Block block = opened->allocate({.bytes = 1_MiB, .stream = stream});
    fake().begin_capture(handle);
    opened->deallocate(block, stream);
    EXPECT_TRUE(fake().end_capture(handle));
  }
  EXPECT_EQ(fake().leaks(), "");
}

/// Those of the driver's pool would be freed in the graph, or under work that goes on.
TEST_F(CudaStreams, OnlyBlocksOfTheDriversPoolStayWhereADeviceEndsInACapture) {
  for (const CudaKind kind :
       {CudaKind::device, CudaKind::managed, CudaKind::pinned, CudaKind::async}) {
    SCOPED_TRACE(testing::name_of(kind));
    on({.gpus = 7});  // what stays is charged to a GPU of no other test
    const testing::CaughtReports reports;
    fake().push(fake().primary_context(6));
    CUstream_st* const handle = fake().make_stream(false);
    fake().pop();
    {
      const auto opened = device({.device = 6, .memory = kind});
      const Stream stream = opened->stream(handle);
      const Block block = opened->allocate({.bytes = 1_MiB, .stream = stream});
      opened->deallocate(opened->allocate({.bytes = 8_MiB, .stream = stream}), stream);
      fake().begin_capture(handle);
      opened->deallocate(block, stream);
    }
    EXPECT_TRUE(fake().end_capture(handle)) << "it is not broken";
    EXPECT_EQ(fake().figures().used, kind == CudaKind::async ? 2_MiB : 0U) << "of whole pages";
    EXPECT_EQ(fake().misuses(), std::vector<std::string>());
    EXPECT_EQ(testing::CaughtReports::all().size(), kind == CudaKind::async ? 1U : 0U);
    EXPECT_EQ(fake().leaks().empty(), kind != CudaKind::async);
  }
  on({});
}

TEST_F(CudaStreams, TransfersAreAPartOfTheGraphOrRefused) {
  const auto opened = device();
  CUstream_st* const handle = fake().make_stream();
  const Stream stream = opened->stream(handle);
  const Block block = opened->allocate({.bytes = 1_MiB, .stream = stream});
  ASSERT_TRUE(write(*opened, block, 'a', stream));
  fake().begin_capture(handle);
  Transfer& transfer = *opened->transfer();
  EXPECT_TRUE(transfer.fill(block, 0, 1_KiB, std::byte('g'), stream));
  EXPECT_TRUE(transfer.copy(block, 1_KiB, block, 0, 1_KiB, stream));
  std::vector<std::byte> bytes(1_KiB);
  EXPECT_EQ(transfer.upload(block, 0, bytes, stream).error().code, Errc::in_capture);
  EXPECT_EQ(transfer.download(bytes, block, 0, stream).error().code, Errc::in_capture);
  EXPECT_TRUE(fake().end_capture(handle));
  EXPECT_TRUE(holds(*opened, block, 'a', stream)) << "nothing was run";
  opened->deallocate(block, stream);
}

/// A loop that is captured once it is planned: its addresses are those that every launch uses.
TEST_F(CudaStreams, APlannedTurnIsCapturedAtTheAddressesOfThePlan) {
  const auto opened = device();
  CUstream_st* const handle = fake().make_stream();
  const Stream stream = opened->stream(handle);
  const Stack stack = open("planned > coalesce > mine", {{"mine", opened}});
  auto& planned = *find_stage<Planned>(*stack);
  const auto turn = [&] {
    std::vector<const void*> addresses;
    std::vector<Block> blocks;
    for (const std::size_t bytes : {1_MiB, 300_KiB, 5_MiB, 64_KiB}) {
      blocks.push_back(stack->allocate({.bytes = bytes, .stream = stream}));
      addresses.push_back(blocks.back().memory);
      use(handle, blocks.back());
    }
    for (const Block& block : blocks)
      stack->deallocate(block, stream);
    stack->cycle();
    return addresses;
  };
  for (int i = 0; i < 3; ++i)
    turn();
  const std::vector<const void*> before = turn();
  ASSERT_TRUE(planned.pin());
  const std::size_t allocations = fake().figures().allocations;
  fake().begin_capture(handle);
  EXPECT_EQ(turn(), before);
  EXPECT_TRUE(fake().end_capture(handle));
  stack->trim();
  EXPECT_EQ(turn(), before);
  EXPECT_EQ(fake().figures().allocations, allocations);
  planned.unpin();
}

// --- Programs. ---

/// The queues of a fake GPU, with a device's names for the streams.
class CudaProgramStreams {
 public:
  /// Where streams are captured, `captures` is the seed that says when: one at a time.
  CudaProgramStreams(testing::FakeCuda& fake, CudaDevice& device,
                     std::optional<std::uint64_t> captures)
      : fake_(fake),
        device_(device),
        has_captures_(captures.has_value()),
        random_(captures.value_or(0)) {}

  [[nodiscard]] Stream make_stream(bool /*out_of_order*/) {
    return device_.stream(fake_.make_stream(made_++ % 2 == 0));
  }
  void launch(Stream stream, const std::vector<SimulatedQueues::Use>& uses) {
    if (has_captures_ && random_.chance(10)) begin_or_end_capture(stream);
    fake_.launch(handle(stream), uses);
    ++launched_;
  }
  /// The program need not wait for a stream that it has destroyed.
  void wait_as_program(Stream waiter, Stream on) {
    if (!gone_.contains(on.id)) fake_.wait(handle(waiter), handle(on));
  }
  bool synchronize(Stream stream) {
    end_capture();
    fake_.synchronize(handle(stream));
    return true;
  }
  void retire(Stream stream) {
    end_capture();
    device_.stream_order()->retire(stream);
    fake_.destroy_stream(handle(stream));
    gone_.insert(stream.id);
  }
  bool step(std::uint64_t choice) { return fake_.queues().step(choice); }

  void end_capture() {
    if (captured_ == nullptr) return;
    EXPECT_TRUE(fake_.end_capture(std::exchange(captured_, nullptr)));
  }

  [[nodiscard]] std::size_t launched() const { return launched_; }
  [[nodiscard]] std::size_t captures() const { return captures_; }

 private:
  void begin_or_end_capture(Stream stream) {
    if (captured_ != nullptr) return end_capture();
    if (stream.id == 0) return;
    captured_ = handle(stream);
    fake_.begin_capture(captured_);
    ++captures_;
  }
  static CUstream_st* handle(Stream stream) {
    return stream.id == 0 ? special_handle(cuda_legacy_stream)
                          : static_cast<CUstream_st*>(stream.handle);
  }

  testing::FakeCuda& fake_;
  CudaDevice& device_;
  const bool has_captures_;
  testing::Random random_;
  CUstream_st* captured_ = nullptr;
  std::set<std::uint64_t> gone_;
  std::size_t made_ = 0;
  std::size_t launched_ = 0;
  std::size_t captures_ = 0;
};

struct CudaStack {
  const char* pools = "";
  CudaKind memory = CudaKind::device;
  bool resets = false;
};

class CudaPrograms : public testing::OnFakeCuda, public ::testing::WithParamInterface<CudaStack> {
 protected:
  struct Found {
    std::size_t works = 0;
    std::size_t captures = 0;
    std::size_t waits = 0;
    std::vector<std::string> misuses;
  };

  /// One program on one stack, half of them on a GPU so small that idle memory goes back.
  Found run(std::uint64_t seed, bool ignores_waits, bool has_captures = false) {
    testing::Random random(seed);
    on({.memory = random.chance(50) ? 12_MiB : 1_GiB, .page = 64_KiB});
    if (ignores_waits) {
      fake().changeable_api().wait_event = [](CUstream_st*, CUevent_st*, unsigned) {
        return CudaResult::success;
      };
    }
    Found found;
    {
      const auto opened = device({.memory = GetParam().memory, .ceiling = 0});
      const Stack stack = open(GetParam().pools, {{"mine", opened}});
      CudaProgramStreams streams(fake(), *opened,
                                 has_captures ? std::optional(seed) : std::nullopt);
      testing::StreamProgram program(*stack, streams,
                                     {.streams = 1 + random.below(4),
                                      .out_of_order = false,
                                      .retires = random.chance(30),
                                      .outlives = !GetParam().resets,
                                      .resets = GetParam().resets && random.chance(50),
                                      .most_live = 4 + random.below(20),
                                      .largest_bits = 12 + static_cast<unsigned>(random.below(9)),
                                      .run_seed = seed});
      const std::uint64_t turn = random.below(1000);
      const std::size_t steps = 10 + random.below(60);
      for (int i = 0; i < 5; ++i)
        program.turn(random.chance(80) ? turn : turn + 1, steps);
      if (random.chance(20)) stack->trim();
      streams.end_capture();
      EXPECT_EQ(stack->validate(), "");
      found.works = streams.launched();
      found.captures = streams.captures();
    }
    EXPECT_EQ(fake().leaks(), "");
    found.waits = fake().figures().waits;
    found.misuses = fake().misuses();
    return found;
  }
};

INSTANTIATE_TEST_SUITE_P(
    All, CudaPrograms,
    ::testing::Values(CudaStack{.pools = "cache > mine"}, CudaStack{.pools = "coalesce > mine"},
                      CudaStack{.pools = "coalesce(streams=separate) > mine"},
                      CudaStack{.pools = "virtual(page=64KiB) > mine"},
                      CudaStack{.pools = "arena(warn_bytes=1GiB) > cache > mine", .resets = true},
                      CudaStack{.pools = "planned > coalesce > mine", .resets = true},
                      CudaStack{.pools = "limit(1GiB) > mine", .memory = CudaKind::async},
                      CudaStack{.pools = "cache > mine", .memory = CudaKind::async},
                      CudaStack{.pools = "coalesce > mine", .memory = CudaKind::managed},
                      CudaStack{.pools = "limit(1GiB) > mine", .memory = CudaKind::pinned}));

TEST_P(CudaPrograms, HaveTheirMemoryInOrder) {
  const std::uint64_t first = testing::seed_or(1);
  std::size_t works = 0;
  for (std::uint64_t seed = first; seed < first + 100; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    const Found found = run(seed, false);
    ASSERT_EQ(found.misuses, std::vector<std::string>());
    works += found.works;
  }
  EXPECT_GT(works, 2000U);
}

TEST_P(CudaPrograms, HaveTheirMemoryInOrderWhileStreamsAreCaptured) {
  const std::uint64_t first = testing::seed_or(1);
  std::size_t works = 0;
  std::size_t captures = 0;
  for (std::uint64_t seed = first; seed < first + 100; ++seed) {
    SCOPED_TRACE(testing::replay_hint(seed));
    const Found found = run(seed, false, true);
    ASSERT_EQ(found.misuses, std::vector<std::string>());
    works += found.works;
    captures += found.captures;
  }
  EXPECT_GT(works, 2000U);
  EXPECT_GT(captures, 100U);
}

TEST_P(CudaPrograms, AreCaughtWithoutTheirWaits) {
  const std::uint64_t first = testing::seed_or(1);
  const bool has_waits = std::string(GetParam().pools).find("limit") == std::string::npos;
  std::size_t caught = 0;
  for (std::uint64_t seed = first; seed < first + 40; ++seed) {
    if (!run(seed, true).misuses.empty()) ++caught;
  }
  if (has_waits) {
    EXPECT_GE(caught, 10U);
  }
  on({});  // what was broken on purpose is forgotten
}

}  // namespace
}  // namespace cistern
