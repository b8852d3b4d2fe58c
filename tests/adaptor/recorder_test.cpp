#include "cistern/adaptor/recorder.hpp"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <unistd.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/trace/read.hpp"
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
