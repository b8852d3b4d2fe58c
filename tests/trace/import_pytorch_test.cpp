#include <filesystem>
#include <ostream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/trace/check.hpp"
#include "cistern/trace/read.hpp"
#include "cistern/trace/summary.hpp"
#include "trace/samples.hpp"
#include "trace/snapshots.hpp"

namespace cistern {
namespace {

using samples::block;
using samples::error_of;
using samples::event;
using samples::Pickle;
using samples::read_well;
using samples::segment;
using samples::snapshot;
using ::testing::HasSubstr;

TEST(ImportPytorch, LetsBlocksLiveUntilTheirFreeCompletes) {
  const Trace trace = read_well(snapshot(
      {segment(4096,
               {block(4096, 512, 100, "active_pending_free"),
                block(8192, 512, 300, "active_allocated"), block(12288, 512, 0, "inactive")},
               0, 0xabc)},
      {{event("segment_alloc", 4096, 1 << 20, 1),                                          //
        event("alloc", 4096, 100, 2, 0xabc),                                               //
        event("free_requested", 4096, 100, 3, 0xabc), event("oom", 0, 5, 3),               //
        event("free_completed", 4096, 100, 5, 0xabc), event("free_requested", 100, 7, 6),  //
        event("free_completed", 100, 7, 6),                                                //
        event("alloc", 4096, 100, 7, 0xdef), event("free_requested", 4096, 100, 8, 0xdef)}}));
  EXPECT_EQ(trace.events, (std::vector<Event>{{0, 2000, 0, 100, 0, 1, 0, Operation::allocate},
                                              {1, 5000, 0, 100, 0, 1, 0, Operation::free},
                                              {2, 6000, 1, 7, 0, 0, 0, Operation::free},
                                              {3, 7000, 2, 100, 0, 2, 0, Operation::allocate}}));
  EXPECT_EQ(trace.initial_blocks, (std::vector<InitialBlock>{{1, 7, 0, 0}, {3, 300, 0, 1}}));
  EXPECT_EQ(trace.source, "pytorch-snapshot");
}

// An event that only requests a free tells of a block from before the first event, too.
TEST(ImportPytorch, KnowsBlocksByTheRequestToFreeThem) {
  for (const char* state : {"active_pending_free", "active_awaiting_free"}) {
    const Trace trace = read_well(
        snapshot({segment(64, {block(64, 512, 7, state)})}, {{event("free_requested", 64, 7, 6)}}));
    EXPECT_EQ(trace.initial_blocks, (std::vector<InitialBlock>{{0, 7, 0, 0}}));
    EXPECT_TRUE(trace.events.empty());
  }
}

TEST(ImportPytorch, ReadsOlderSnapshots) {
  const auto old_block = [](std::uint64_t size, std::string_view state, std::string history) {
    std::vector<Pickle::Field> fields = {{"size", Pickle::number(size)},
                                         {"state", Pickle::text(state)}};
    if (!history.empty()) fields.push_back({"history", std::move(history)});
    return Pickle::dictionary(fields);
  };
  const auto entry = [](std::uint64_t real_size) {
    return Pickle::dictionary(
        {{"addr", Pickle::number(0)}, {"real_size", Pickle::number(real_size)}, {"frames", "]"}});
  };
  const std::string segments = Pickle::list({Pickle::dictionary(
      {{"address", Pickle::number(1 << 20)},
       {"total_size", Pickle::number(2048)},
       {"blocks",
        Pickle::list({old_block(1024, "active_allocated", Pickle::list({entry(1000), entry(999)})),
                      old_block(512, "inactive", ""),
                      old_block(512, "active_allocated", "]")})}})});
  const std::vector<InitialBlock> expected = {{0, 1000, 0, 0}, {1, 512, 0, 0}};
  EXPECT_EQ(read_well(Pickle::file(segments)).initial_blocks, expected);
  EXPECT_EQ(read_well(Pickle::file(Pickle::dictionary({{"segments", segments}}))).initial_blocks,
            expected);

  // Without times, the place in the list stands for them; addresses of old blocks follow from their
  // sizes.
  const std::string old_event = Pickle::dictionary({{"action", Pickle::text("free_completed")},
                                                    {"addr", Pickle::number((1 << 20) + 1024)},
                                                    {"size", Pickle::number(44)}});
  const Trace trace = read_well(Pickle::file(Pickle::dictionary(
      {{"segments", segments},
       {"device_traces", Pickle::list({Pickle::list({event("snapshot", 0, 0, 0), old_event})})}})));
  EXPECT_EQ(trace.events, (std::vector<Event>{{0, 1, 0, 44, 0, 0, 0, Operation::free}}));
  EXPECT_EQ(trace.initial_blocks.size(), 3U);
}

TEST(ImportPytorch, TakesOneDevice) {
  const std::string one = event("alloc", 64, 1, 1);
  EXPECT_EQ(read_well(snapshot({}, {{}, {one}, {}})).events.size(), 1U);
  EXPECT_EQ(read_well(snapshot({}, {{}, {}})).events.size(), 0U);
  EXPECT_EQ(read_well(snapshot({segment(0, {block(0, 512, 5, "active_allocated")}, 3)}, {}))
                .initial_blocks.size(),
            1U);

  const std::string two = snapshot({segment(0, {block(0, 512, 5, "active_allocated")}, 2)},
                                   {{one, event("alloc", 65, 1, 1)}, {}, {one}});
  EXPECT_EQ(error_of(two),
            "sample: holds several devices, of which one is to be chosen: device 0 (2 events, 0 "
            "segments), "
            "device 2 (1 events, 1 segments)");
  ReadOptions options;
  options.device = 0;
  EXPECT_EQ(read_well(two, options).events.size(), 2U);
  EXPECT_EQ(read_well(two, options).initial_blocks.size(), 0U);
  options.device = 2;
  EXPECT_EQ(read_well(two, options).events.size(), 1U);
  EXPECT_EQ(read_well(two, options).initial_blocks.size(), 1U);
  for (const int missing : {1, 3, -1}) {
    options.device = missing;
    EXPECT_THAT(error_of(two, options),
                HasSubstr("holds nothing of device " + std::to_string(missing) + "; it holds"));
  }
}

TEST(ImportPytorch, RefusesContradictionsAndNamesTheirEvent) {
  const auto error = [](const std::vector<std::string>& events) {
    return error_of(snapshot({}, {events}));
  };
  const std::string alloc = event("alloc", 64, 8, 1);
  const std::string requested = event("free_requested", 64, 8, 1);
  const std::string completed = event("free_completed", 64, 8, 1);
  const std::string prefix = snapshot({}, {{alloc}});
  const std::string at =
      "sample: byte " + std::to_string(prefix.rfind('u', prefix.rfind("ee")) + 1);
  EXPECT_EQ(error({alloc, alloc}),
            at + ": event 1: allocates at address 0x40, where the block of event 0 is live");
  EXPECT_THAT(error({alloc, requested, alloc}), HasSubstr("event 2: allocates at address 0x40"));
  EXPECT_THAT(error({completed, completed}),
              HasSubstr("event 1: frees the block at address 0x40, which was freed before"));
  EXPECT_THAT(error({completed, requested}),
              HasSubstr("event 1: frees the block at address 0x40, which was freed"));
  EXPECT_THAT(error({requested, requested}),
              HasSubstr("event 1: frees the block at address 0x40, whose free was req"));
  EXPECT_THAT(error({alloc, event("free_requested", 64, 9, 2)}),
              HasSubstr("event 1: frees 9 bytes at address 0x40, where the block has 8"));
  EXPECT_EQ(error({alloc, requested, completed, alloc, requested, completed}), "");
}

TEST(ImportPytorch, ATimeIsNeitherWrappedNorMissedWhereItIsNone) {
  EXPECT_THAT(error_of(snapshot({}, {{event("alloc", 64, 8, std::uint64_t{1} << 63)}})),
              HasSubstr("field 'time_us' is 9223372036854775808, too large for nanoseconds"));
  std::string untimed = event("alloc", 64, 8, 1);
  const std::string timed = Pickle::text("time_us") + Pickle::number(1);
  untimed.replace(untimed.find(timed), timed.size(), Pickle::text("time_us") + "N");
  const Trace trace = read_well(snapshot({}, {{event("snapshot", 0, 0, 1), untimed}}));
  ASSERT_EQ(trace.events.size(), 1U);
  EXPECT_EQ(trace.events[0].time_ns, 1U);  // its place in the list
}

TEST(ImportPytorch, ListsAFewOfManyDevices) {
  std::vector<std::vector<std::string>> traces(1000, {event("alloc", 64, 8, 1)});
  const std::string error = error_of(snapshot({}, traces));
  EXPECT_THAT(error, HasSubstr("device 7 (1 events, 0 segments) and 992 more"));
}

TEST(ImportPytorch, RefusesAFinalStateThatTheEventsContradict) {
  const auto error = [](const std::vector<std::string>& blocks,
                        const std::vector<std::string>& events) {
    return error_of(snapshot({segment(64, blocks)}, {events}));
  };
  const std::string active = block(64, 512, 8, "active_allocated");
  EXPECT_THAT(error({active}, {event("free_completed", 64, 8, 1)}),
              HasSubstr("a block is active at address 0x40, but by the events it was freed"));
  EXPECT_THAT(
      error({active}, {event("alloc", 64, 9, 1)}),
      HasSubstr("a block of 8 bytes is active at address 0x40, but by the events it has 9"));
  EXPECT_THAT(error({active, active}, {}), HasSubstr("a second block is active at address 0x40"));
  EXPECT_THAT(error({block(64, 512, 8, "activ")}, {}),
              HasSubstr("a block's state is \"activ\"; inactive, active_all"));
}

TEST(ImportPytorch, NamesTheByteOfWhatIsMissing) {
  const auto error = [](const std::string& value) { return error_of(Pickle::file(value)); };
  EXPECT_EQ(error("N"), "sample: a snapshot should be a dictionary, not None");
  EXPECT_EQ(error("}"), "sample: byte 2: has no field \"segments\"");
  EXPECT_THAT(error(Pickle::list({"K\x01"})),
              HasSubstr("a segment should be a dictionary, not a number"));
  EXPECT_EQ(error(Pickle::list({Pickle::dictionary({{"address", "N"}})})),
            "sample: byte 4: field \"address\" should be a number from 0 to 2^64-1, not None");
  EXPECT_THAT(error(Pickle::list({Pickle::dictionary({{"address", "K\x01"}})})),
              HasSubstr("has no field \"blocks\""));
  EXPECT_THAT(error_of(snapshot({}, {{"}"}})), HasSubstr("event 0: has no field \"action\""));
  EXPECT_THAT(error_of(snapshot({}, {{"N"}})),
              HasSubstr("event 0: an event should be a dictionary, not None"));
  EXPECT_THAT(error_of(snapshot({}, {{Pickle::dictionary({{"action", "K\x01"}})}})),
              HasSubstr("field \"action\" should be a text"));
  EXPECT_THAT(error_of(snapshot({}, {{Pickle::dictionary({{"action", Pickle::text("alloc")},
                                                          {"addr", "K\x01"},
                                                          {"size", "J\xff\xff\xff\xff"}})}})),
              HasSubstr("event 0: field \"size\" should be a number from 0 to 2^64-1, not a number "
                        "out of range"));
}

// Shared by reference, a few bytes could stand for endless work; no snapshot does that.
TEST(ImportPytorch, VisitsNothingTwice) {
  const std::string twice = event("snapshot", 1, 1, 1) + "\x94h" + std::string(1, '\0');
  EXPECT_THAT(error_of(snapshot({}, {{twice}})),
              HasSubstr("event 1: an event occurs in two places"));
  const std::string list = "]\x94h" + std::string(1, '\0');
  EXPECT_THAT(error_of(Pickle::file(Pickle::dictionary(
                  {{"segments", "]"}, {"device_traces", Pickle::list({list})}}))),
              HasSubstr("a device's list of events occurs in two places"));
}

TEST(ImportPytorch, SurvivesEveryTruncation) {
  const std::string whole = snapshot({segment(64, {block(64, 512, 8, "active_allocated")})},
                                     {{event("alloc", 64, 8, 1)}});
  ASSERT_EQ(error_of(whole), "");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(samples::read(whole.substr(0, size))) << "cut to " << size << " bytes";
  }
}

struct SnapshotFigures {
  const char* file;
  std::uint64_t allocations;
  std::uint64_t frees;
  std::uint64_t initial_blocks;
  std::uint64_t peak_live_bytes;
};

std::ostream& operator<<(std::ostream& out, const SnapshotFigures& recorded) {
  return out << recorded.file;
}

class RecordedSnapshot : public ::testing::TestWithParam<SnapshotFigures> {
 protected:
  void SetUp() override {
    path_ = std::filesystem::path(CISTERN_SOURCE_DIR "/../shared/traces/pytorch") /
            (std::string(GetParam().file) + ".pickle.gz");
    if (!std::filesystem::exists(path_)) GTEST_SKIP() << "no recorded traces at " << path_;
  }

  std::filesystem::path path_;
};

TEST_P(RecordedSnapshot, IsImportedWhole) {
  const auto trace = read_trace(path_);
  ASSERT_TRUE(trace) << trace.error().text();
  const TraceSummary summary = summarise(*trace);
  EXPECT_EQ(summary.allocations, GetParam().allocations);
  EXPECT_EQ(summary.frees, GetParam().frees);
  EXPECT_EQ(summary.initial_blocks, GetParam().initial_blocks);
  EXPECT_EQ(summary.peak_live_bytes, GetParam().peak_live_bytes);
  EXPECT_EQ(summary.streams.size(), 1U);
  EXPECT_EQ(summary.threads, 1U);

  const std::string bytes = samples::encoded(*trace);
  EXPECT_LT(bytes.size(), 12 * trace->events.size());
  samples::expect_same(*samples::read(bytes), *trace);
}

INSTANTIATE_TEST_SUITE_P(
    All, RecordedSnapshot,
    ::testing::Values(
        SnapshotFigures{"niu_forward_and_backward_memory_snapshot_100", 3853, 3691, 0, 682'735'240},
        SnapshotFigures{"niu_forward_and_backward_memory_snapshot_150", 3907, 3745, 0, 937'034'440},
        SnapshotFigures{"niu_forward_memory_snapshot_100", 785, 744, 0, 412'643'888},
        SnapshotFigures{"silmont_fwd_bf16_128", 937, 937, 137, 779'837'440},
        SnapshotFigures{"silmont_mem", 36, 26, 0, 3'249'143'816},
        SnapshotFigures{"wedson_medium_128_inference", 1280, 1280, 223, 1'736'962'048},
        SnapshotFigures{"wedson_medium_128_training", 6526, 6305, 664, 7'013'335'044},
        SnapshotFigures{"wedson_medium_256_training", 6624, 6403, 664, 9'103'544'320}),
    [](const auto& recorded) { return std::string(recorded.param.file); });

}  // namespace
}  // namespace cistern
