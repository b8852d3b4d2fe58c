#include "cistern/adaptor/recorder.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/buffer.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/arena.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/stack/stack.hpp"
#include "cistern/trace/check.hpp"
#include "cistern/trace/read.hpp"
#include "cistern/trace/replay.hpp"
#include "support/environment.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;

class RecorderTest : public ::testing::Test {
 protected:
  RecorderTest()
      : file_(std::filesystem::temp_directory_path() /
              ("cistern-recorder-" + std::to_string(getpid()) + ".trace")) {}
  ~RecorderTest() override {
    std::error_code ignored;
    std::filesystem::remove(file_, ignored);
  }

  [[nodiscard]] Trace read() const {
    const auto trace = read_trace(file_);
    if (trace) return *trace;
    ADD_FAILURE() << trace.error().text();
    return {};
  }

  const std::filesystem::path file_;
};

TEST_F(RecorderTest, WritesABatchInItsOrder) {
  {
    const Ref<Resource> stack = make<Recorder>(make<Cache>(make<SimulatedDevice>()), file_);
    const std::vector<Request> requests = {{.bytes = 300}, {}, {.bytes = 100, .alignment = 4096}};
    for (const Block& block : stack->allocate_batch(requests))
      stack->deallocate(block);
    std::vector<Block> none(2);
    EXPECT_FALSE(stack->try_allocate_batch(
        std::vector<Request>{{.bytes = 1}, {.bytes = std::size_t{1} << 60}}, none));
    EXPECT_EQ(stack->stats().failures, 1U);
  }
  const std::vector<Event> events = read().events;
  ASSERT_EQ(events.size(), 4U);
  EXPECT_EQ(events[0].bytes, 300U);
  EXPECT_EQ(events[1].bytes, 100U);
  EXPECT_EQ(events[1].alignment, 4096U);
  EXPECT_EQ(events[2].operation, Operation::free);
  EXPECT_EQ(events[2].id, events[0].id);
}

TEST_F(RecorderTest, WritesWhatPassesThroughIt) {
  {
    const Ref<Resource> stack = make<Recorder>(make<Cache>(make<SimulatedDevice>()), file_);
    const Block a = stack->allocate({.bytes = 1000, .alignment = 4096, .stream = {.id = 7}});
    const Block b = stack->allocate(2000);
    EXPECT_TRUE(stack->allocate(0).empty());                             // not recorded
    EXPECT_FALSE(stack->try_allocate({.bytes = std::size_t{1} << 60}));  // neither
    stack->cycle();
    stack->deallocate(a, {.id = 8});
    stack->deallocate(b);
    stack->cycle();
  }
  const Trace trace = read();
  ASSERT_EQ(trace.events.size(), 6U);
  const std::vector<Event>& events = trace.events;
  EXPECT_EQ(events[0].operation, Operation::allocate);
  EXPECT_EQ(events[0].bytes, 1000U);
  EXPECT_EQ(events[0].alignment, 4096U);
  EXPECT_EQ(events[0].stream, 7U);
  EXPECT_EQ(events[1].bytes, 2000U);
  EXPECT_EQ(events[2].operation, Operation::cycle);
  EXPECT_EQ(events[2].id, 1U);
  EXPECT_EQ(events[3].operation, Operation::free);
  EXPECT_EQ(events[3].id, events[0].id);
  EXPECT_EQ(events[3].bytes, 1000U);
  EXPECT_EQ(events[3].stream, 8U);
  EXPECT_EQ(events[4].id, events[1].id);
  EXPECT_EQ(events[5].id, 2U);
  for (std::size_t i = 1; i < events.size(); ++i) {
    EXPECT_GT(events[i].sequence, events[i - 1].sequence);
    EXPECT_GE(events[i].time_ns, events[i - 1].time_ns);
  }
}

TEST_F(RecorderTest, AGrowIsAFreeAndAnAllocationOfANewId) {
  {
    const Ref<Resource> stack =
        make<Recorder>(make<SimulatedDevice>(SimulatedDevice::Options{.extensible = true}), file_);
    testing::Ledger ledger(*stack);
    ASSERT_TRUE(ledger.allocate({.bytes = 1000, .alignment = 4096, .stream = {.id = 7}}));
    EXPECT_TRUE(ledger.grow(0, 3000));
    EXPECT_FALSE(ledger.grow(0, std::size_t{1} << 60));  // not recorded
    ledger.expect_in_order();
    EXPECT_EQ(stack->stats().live_requested.peak, 3000U);
    EXPECT_EQ(stack->try_grow(Block{}, 1).error().code, Errc::cannot_grow);
    ledger.free_all();
    testing::expect_nothing_held(*stack);
  }
  const std::vector<Event> events = read().events;
  ASSERT_EQ(events.size(), 4U);
  EXPECT_EQ(events[1].operation, Operation::free);
  EXPECT_EQ(events[1].id, events[0].id);
  EXPECT_EQ(events[1].bytes, 1000U);
  EXPECT_EQ(events[2].operation, Operation::allocate);
  EXPECT_NE(events[2].id, events[0].id);
  EXPECT_EQ(events[2].bytes, 3000U);
  EXPECT_EQ(events[2].alignment, 4096U);
  EXPECT_EQ(events[2].stream, 7U);
  EXPECT_EQ(events[3].operation, Operation::free);
  EXPECT_EQ(events[3].id, events[2].id);
  EXPECT_EQ(events[3].bytes, 3000U);
}

// --- Resets. ---

std::vector<Operation> operations_of(const Trace& trace) {
  std::vector<Operation> operations;
  for (const Event& event : trace.events)
    operations.push_back(event.operation);
  return operations;
}

using Operations = std::vector<Operation>;

TEST_F(RecorderTest, AResetThatEndsAllIsOneEventAndThenComesACycle) {
  const testing::CaughtReports reports;
  {
    const Ref<Resource> stack = make<Recorder>(make<Arena>(make<SimulatedDevice>()), file_);
    testing::Ledger ledger(*stack);
    for (int cycle = 0; cycle < 3; ++cycle) {
      ASSERT_TRUE(ledger.allocate({.bytes = 1000}));
      ASSERT_TRUE(ledger.allocate({.bytes = 2000}));
      const std::vector<Block> stale = ledger.blocks();
      ledger.expect_in_order();
      ledger.reset();
      ledger.expect_in_order();
      for (const Block& block : stale) {
        EXPECT_FALSE(stack->deallocate(block));
        EXPECT_FALSE(stack->also_used_on(block, {}));
        EXPECT_EQ(stack->try_grow(block, 5000).error().code, Errc::invalid_block);
      }
    }
    EXPECT_EQ(stack->stats().refused_frees, 6U);
    EXPECT_EQ(stack->stats().frees, 6U);
    EXPECT_EQ(stack->stats().live_requested.peak, 3000U);
    EXPECT_EQ(stack->reset(), 0U);  // where nothing is live that is a cycle
    testing::expect_all_accounted_for(*stack);
  }
  const Trace trace = read();
  Operations expected;
  for (int cycle = 0; cycle < 3; ++cycle) {
    for (const Operation each :
         {Operation::allocate, Operation::allocate, Operation::reset, Operation::cycle})
      expected.push_back(each);
  }
  expected.push_back(Operation::cycle);
  ASSERT_EQ(operations_of(trace), expected);
  for (std::uint64_t cycle = 1; cycle <= 3; ++cycle)
    EXPECT_EQ(trace.events[4 * cycle - 1].id, cycle);
}

TEST_F(RecorderTest, WhereSomethingIsHeldAResetIsFreesAndThenACycle) {
  {
    const Ref<Resource> stack = make<Recorder>(make<Arena>(make<SimulatedDevice>()), file_);
    testing::Ledger ledger(*stack);
    ASSERT_TRUE(ledger.allocate({.bytes = 1000, .stream = {.id = 7}}));
    ASSERT_TRUE(ledger.allocate_held({.bytes = 2000}));
    const Buffer buffer(*stack, 3000);
    EXPECT_EQ(stack->reset(), 1U);
    EXPECT_TRUE(stack->is_live(buffer.block()));
    EXPECT_TRUE(stack->is_live(ledger.blocks()[1]));
    EXPECT_FALSE(stack->is_live(ledger.blocks()[0]));
    EXPECT_EQ(stack->stats().live_blocks.current, 2U);
    EXPECT_EQ(stack->stats().live_requested.current, 5000U);
    EXPECT_EQ(stack->validate(), "");
    EXPECT_TRUE(stack->deallocate(ledger.blocks()[1]));
  }
  const Trace trace = read();
  ASSERT_EQ(operations_of(trace),
            (Operations{Operation::allocate, Operation::allocate, Operation::allocate,
                        Operation::free, Operation::cycle, Operation::free, Operation::free}));
  EXPECT_EQ(trace.events[3].id, trace.events[0].id);
  EXPECT_EQ(trace.events[3].bytes, 1000U);
  EXPECT_EQ(trace.events[3].stream, 7U);  // of its request
  EXPECT_EQ(trace.events[4].id, 1U);
  EXPECT_EQ(trace.events[5].id, trace.events[1].id);
  EXPECT_EQ(trace.events[6].id, trace.events[2].id);
}

TEST_F(RecorderTest, AResetOfWhatIsNoArenaIsACycle) {
  {
    const Ref<Resource> stack = make<Recorder>(make<Cache>(make<SimulatedDevice>()), file_);
    const Buffer buffer(*stack, 1000);
    const Block block = stack->allocate(1000);
    EXPECT_EQ(stack->reset(), 0U);
    EXPECT_TRUE(stack->is_live(block));
    EXPECT_TRUE(stack->deallocate(block));
  }
  EXPECT_EQ(operations_of(read()),
            (Operations{Operation::allocate, Operation::allocate, Operation::cycle, Operation::free,
                        Operation::free}));
}

TEST_F(RecorderTest, ARunOverAnArenaReplays) {
  const std::uint64_t seed = testing::seed_or(3);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  std::uint64_t allocations = 0;
  {
    const Ref<Resource> stack = make<Recorder>(
        make<Arena>(make<SimulatedDevice>(), Arena::Options{.warn_cycles = unbounded}), file_);
    testing::Ledger ledger(*stack);
    for (int step = 0; step < 5'000; ++step) {
      const std::uint64_t what = random.below(100);
      if (what < 60 || ledger.size() == 0) {
        ASSERT_TRUE(ledger.allocate({.bytes = random.size(16)}));
      } else if (what < 62) {
        ASSERT_TRUE(ledger.allocate_held({.bytes = random.size(16)}));
      } else if (what < 70) {
        ledger.grow(ledger.size() - 1, random.size(16));
      } else if (what < 95) {
        const std::size_t index = random.below(ledger.size());
        if (random.chance(5)) {
          std::thread([&] { ledger.free(index); }).join();
        } else {
          ledger.free(index);
        }
      } else if (what < 98) {
        ledger.reset();
      } else {
        ledger.free_all();
        ASSERT_TRUE(ledger.allocate({.bytes = 1}));
        ledger.reset();
      }
      ledger.expect_in_order();
    }
    ledger.free_all();
    testing::expect_all_accounted_for(*stack);
    EXPECT_EQ(stack->stats().refused_frees, 0U);
  }
  const Trace trace = read();
  for (const Event& event : trace.events)
    allocations += event.operation == Operation::allocate ? 1U : 0U;
  EXPECT_TRUE(std::ranges::count(operations_of(trace), Operation::reset) > 0);
  for (const char* text : {"cache > simulated", "arena(warn_bytes=none) > simulated"}) {
    const ReplayResult result = replay(trace, [&] { return open(text); }, {.check = true});
    EXPECT_EQ(result.error, "") << text;
    EXPECT_EQ(result.allocations, allocations);
    EXPECT_EQ(result.frees, allocations);
    EXPECT_EQ(result.failed, 0U);
  }
}

TEST_F(RecorderTest, ALongRunIsReadBackWhole) {
  const std::uint64_t seed = testing::seed_or(2);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  std::vector<std::uint64_t> sizes;
  {
    const Ref<Resource> stack = make<Recorder>(make<Cache>(make<SimulatedDevice>()), file_);
    testing::Ledger ledger(*stack);
    for (int i = 0; i < 10'000; ++i) {
      if (ledger.size() > 0 && random.chance(48)) {
        ledger.free(random.below(ledger.size()));
      } else {
        sizes.push_back(random.size(20));
        ASSERT_TRUE(ledger.allocate({.bytes = sizes.back()}));
      }
    }
    ledger.expect_in_order();
    ledger.free_all();
    testing::expect_all_accounted_for(*stack);
  }
  std::vector<std::uint64_t> recorded;
  for (const Event& event : read().events) {
    if (event.operation == Operation::allocate) recorded.push_back(event.bytes);
  }
  EXPECT_EQ(recorded, sizes);
}

TEST_F(RecorderTest, FinishedEarlyTheFileIsWholeAndTheStackGoesOn) {
  const auto recorder = make<Recorder>(make<SimulatedDevice>(), file_);
  const Block block = recorder->allocate(1000);
  EXPECT_TRUE(recorder->finish());
  EXPECT_EQ(read().events.size(), 1U);
  recorder->deallocate(recorder->allocate(5000));
  recorder->deallocate(block);
  EXPECT_TRUE(recorder->finish());
  EXPECT_EQ(read().events.size(), 1U);
  testing::expect_all_accounted_for(*recorder);
}

TEST_F(RecorderTest, AClosedStackWithLiveBlocksLeavesAWholeFile) {
  const testing::CaughtReports reports;
  Ref<Resource> stack = make<Recorder>(make<SimulatedDevice>(), file_);
  Resource& closed = *stack;
  const Block block = stack->allocate(1000);
  stack = {};
  EXPECT_EQ(reports.all().size(), 1U);
  EXPECT_EQ(read().events.size(), 1U);
  EXPECT_TRUE(closed.deallocate(block));
}

TEST_F(RecorderTest, RefusesAStaleFreeAndRecordsNothingOfIt) {
  const testing::CaughtReports reports;
  {
    const Ref<Resource> stack = make<Recorder>(make<Cache>(make<SimulatedDevice>()), file_);
    const Block block = stack->allocate(1000);
    EXPECT_TRUE(stack->also_used_on(block, {.id = 1}));
    EXPECT_TRUE(stack->deallocate(block));
    EXPECT_FALSE(stack->deallocate(block));
    EXPECT_FALSE(stack->also_used_on(block, {.id = 1}));
    EXPECT_EQ(stack->stats().refused_frees, 1U);
  }
  EXPECT_EQ(read().events.size(), 2U);
}

TEST_F(RecorderTest, TwoRecordersOnOneThreadKeepTheirEventsApart) {
  const std::filesystem::path other = file_.string() + ".other";
  {
    const Ref<Resource> outer =
        make<Recorder>(make<Cache>(make<Recorder>(make<SimulatedDevice>(), other)), file_);
    for (int i = 0; i < 3; ++i)
      outer->deallocate(outer->allocate(1_MiB));
  }
  EXPECT_EQ(read().events.size(), 6U);
  const auto below = read_trace(other);
  ASSERT_TRUE(below);
  EXPECT_EQ(below->events.size(), 2U);  // the cache asked once
  std::filesystem::remove(other);
}

TEST_F(RecorderTest, AFileHasOneRecorderAtATime) {
  auto recorder = make<Recorder>(make<SimulatedDevice>(), file_);
  for (int i = 0; i < 3; ++i)
    recorder->deallocate(recorder->allocate(1_MiB));
  const auto second = [&]() -> std::string {
    try {
      static_cast<void>(make<Recorder>(make<SimulatedDevice>(), file_));
      return "";
    } catch (const std::system_error& error) {
      return error.what();
    }
  };
  EXPECT_NE(second().find("which another stack or process records into"), std::string::npos)
      << second();
  int ends[2] = {};
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();  // which lives on, and has the file too
  if (child == 0) {
    close(ends[1]);
    char none = 0;
    _exit(::read(ends[0], &none, 1) == 0 ? 0 : 1);
  }
  close(ends[0]);
  EXPECT_TRUE(recorder->finish());
  EXPECT_EQ(read().events.size(), 6U) << "it is as it was";
  EXPECT_EQ(second(), "");
  close(ends[1]);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ(read().events.size(), 0U) << "it is written anew";
}

TEST_F(RecorderTest, AFileThatCannotBeWrittenIsSaid) {
  EXPECT_THROW(make<Recorder>(make<SimulatedDevice>(), "/no/such/folder/trace"), std::system_error);
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  const testing::CaughtReports reports;
  const auto recorder = make<Recorder>(make<SimulatedDevice>(), "/dev/full");
  for (int i = 0; i < 10'000; ++i)
    recorder->deallocate(recorder->allocate(1000));
  EXPECT_FALSE(recorder->finish());
  EXPECT_FALSE(recorder->finish());
  EXPECT_EQ(reports.all().size(), 1U);
  testing::expect_all_accounted_for(*recorder);
}

Resource* stack_of_the_sink = nullptr;

TEST_F(RecorderTest, ASinkOfReportsMayUseTheStackThatReports) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  const auto recorder = make<Recorder>(make<Cache>(make<SimulatedDevice>()), "/dev/full");
  stack_of_the_sink = recorder.get();
  const ReportSink former = set_report_sink(
      [](std::string_view line) noexcept { const Buffer text(*stack_of_the_sink, line.size()); });
  for (int i = 0; i < 2'000; ++i)  // more than a buffer holds
    recorder->deallocate(recorder->allocate(1000));
  EXPECT_FALSE(recorder->finish());
  set_report_sink(former);
  EXPECT_EQ(recorder->stats().allocations, 2'001U);
  testing::expect_all_accounted_for(*recorder);
}

TEST_F(RecorderTest, AFreeUsesNoHeapOnceItsThreadHasRecordedSomething) {
  const auto recorder = make<Recorder>(make<Cache>(make<SimulatedDevice>()), file_);
  std::vector<Block> blocks;
  for (int i = 0; i < 6'000; ++i)
    blocks.push_back(recorder->allocate(1000));
  const auto free_half = [&] {
    recorder->deallocate(recorder->allocate(1000));
    const testing::FailingNew failing(1);
    for (int i = 0; i < 3'000; ++i) {
      recorder->deallocate(blocks.back());
      blocks.pop_back();
    }
    EXPECT_FALSE(testing::FailingNew::has_failed());
  };
  free_half();
  std::thread(free_half).join();
  EXPECT_TRUE(recorder->finish());
  EXPECT_EQ(read().events.size(), 12'004U);
}

TEST_F(RecorderTest, ThreadsHaveNumbersOfTheirOwnThoughTheyFollowOneAnother) {
  {
    const auto recorder = make<Recorder>(make<SimulatedDevice>(), file_);
    const auto record = [&] { recorder->deallocate(recorder->allocate(1000)); };
    record();
    std::thread(record).join();
    std::thread(record).join();
    record();
  }
  std::vector<std::uint32_t> threads;
  for (const Event& event : read().events)
    threads.push_back(event.thread);
  EXPECT_EQ(threads, (std::vector<std::uint32_t>{0, 0, 1, 1, 2, 2, 0, 0}));
}

TEST_F(RecorderTest, WhatAThreadFreesAsItEndsIsRecorded) {
  {
    const auto recorder = make<Recorder>(make<SimulatedDevice>(), file_);
    std::thread([&] {
      thread_local Buffer last;  // destroyed after all that the thread made later
      last = Buffer(*recorder, 1000);
    }).join();
    testing::expect_all_accounted_for(*recorder);
  }
  const std::vector<Event> events = read().events;
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1].operation, Operation::free);
  EXPECT_EQ(events[1].id, events[0].id);
}

TEST_F(RecorderTest, ManyRecordersOnOneThreadLeaveNoBuffersBehind) {
  const auto record = [&] {
    const auto recorder = make<Recorder>(make<SimulatedDevice>(), file_);
    recorder->deallocate(recorder->allocate(1000));
  };
  record();
  const std::ptrdiff_t before = testing::heap_blocks();
  for (int i = 0; i < 100; ++i)
    record();
  EXPECT_LE(testing::heap_blocks(), before + 2);
}

TEST_F(RecorderTest, AfterAForkTheFileIsTheParents) {
  {
    Ref<Recorder> recorder = make<Recorder>(make<SimulatedDevice>(), file_);
    const auto record = [&](std::size_t bytes) {
      for (int i = 0; i < 1'500; ++i)
        recorder->deallocate(recorder->allocate(bytes));
    };
    record(1000);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      record(7);
      recorder = {};
      _exit(0);
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    record(2000);
    EXPECT_TRUE(recorder->finish());
  }
  const std::vector<Event> events = read().events;
  EXPECT_EQ(events.size(), 6'000U);
  EXPECT_TRUE(std::all_of(events.begin(), events.end(),
                          [](const Event& event) { return event.bytes >= 1000; }));
}

using RecorderDeathTest = RecorderTest;

TEST_F(RecorderDeathTest, TheDefaultResourceLeavesAWholeFileAtExit) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  // The child starts this test anew, under another number: it keeps the name it inherits.
  const char* inherited = std::getenv("CISTERN_STACK");  // NOLINT(concurrency-mt-unsafe)
  const std::string text = inherited != nullptr
                               ? std::string(inherited)
                               : "trace(\"" + file_.string() + "\") > cache > host";
  const testing::Environment environment("CISTERN_STACK", text.c_str());
  const auto run = [] {
    for (int i = 0; i < 100; ++i)
      const Buffer buffer(default_resource(), 1000);
    std::exit(0);  // NOLINT(concurrency-mt-unsafe)
  };
  EXPECT_EXIT(run(), ::testing::ExitedWithCode(0), "");
  EXPECT_EQ(read().events.size(), 200U);
}

TEST_F(RecorderTest, WithoutMemoryToRecordWithNothingIsLost) {
  for (int n = 1; n <= 12; ++n) {
    const testing::CaughtReports reports;
    const auto recorder = make<Recorder>(make<SimulatedDevice>(), file_);
    std::vector<Block> blocks;
    blocks.reserve(2000);
    {
      const testing::FailingNew failing(n);
      for (int i = 0; i < 2000; ++i) {
        if (const auto block = recorder->try_allocate({.bytes = 1000})) blocks.push_back(*block);
      }
    }
    EXPECT_EQ(recorder->stats().live_blocks.current, blocks.size());
    EXPECT_EQ(recorder->validate(), "");
    for (const Block& block : blocks)
      EXPECT_TRUE(recorder->deallocate(block));
    testing::expect_all_accounted_for(*recorder);
  }
}

}  // namespace
}  // namespace cistern
