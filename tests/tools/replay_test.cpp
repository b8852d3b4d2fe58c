// `cistern replay` as scripts see it: the keys of its JSON, its exit statuses, and the recorded
// traces' known figures.
#include <filesystem>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/command.hpp"

namespace cistern::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class ReplayCommand : public CommandTest {};

constexpr const char* pow2 = " --stack 'cache(buckets=pow2) > simulated(capacity=80GiB)'";

TEST_F(ReplayCommand, KeepsItsContract) {
  const json document = run_to_json("replay " + small_trace() + " --check");
  const json& trace = document.at("trace");
  EXPECT_EQ(trace.at("name"), "small.trace");
  EXPECT_EQ(trace.at("events"), 4);
  EXPECT_EQ(trace.at("allocations"), 2);
  EXPECT_EQ(trace.at("peak_live_bytes"), 4500);
  EXPECT_EQ(trace.at("initial_blocks"), 1);
  const json& runs = document.at("runs");
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs[0].at("stack"), "host");
  EXPECT_EQ(runs[1].at("stack"), "cache > host");
  for (const json& run : runs) {
    for (const char* count :
         {"allocations", "frees", "failed", "peak_live_bytes", "peak_reserved_bytes", "hits",
          "misses", "device_allocations", "device_frees"}) {
      EXPECT_TRUE(run.at(count).is_number_unsigned()) << count;
    }
    for (const char* number : {"utilisation", "hit_rate"})
      EXPECT_TRUE(run.at(number).is_number_float()) << number;
    for (const char* time : {"mean", "p50", "p99", "max"}) {
      EXPECT_TRUE(run.at("ns_per_op").at(time).is_number_float()) << time;
    }
    EXPECT_EQ(run.at("allocations"), 2);
    EXPECT_EQ(run.at("frees"), 2);
    EXPECT_EQ(run.at("failed"), 0);
    EXPECT_EQ(run.at("peak_live_bytes"), 4500);
    EXPECT_EQ(run.at("error"), nullptr);
  }
}

TEST_F(ReplayCommand, ReplaysOnTheStacksItIsGiven) {
  const json document = run_to_json("replay --stack 'mlx > host' " + small_trace() + pow2 +
                                    " --stack 'limit(0) > simulated'");
  const json& runs = document.at("runs");
  ASSERT_EQ(runs.size(), 3U);
  EXPECT_EQ(runs[0].at("stack"), "mlx > host");
  EXPECT_EQ(runs[1].at("peak_reserved_bytes"), 4096 + 1024 + 512);
  EXPECT_EQ(runs[2].at("failed"), 2);
  EXPECT_EQ(runs[2].at("allocations"), 0);
}

TEST_F(ReplayCommand, TellsPeopleTheSameInATable) {
  const Outcome outcome =
      run_command("replay " + small_trace() + pow2 +
                  " --stack 'cache(buckets=table, max_bytes=4GiB, per_bucket=16) >"
                  " simulated(allocate_latency=10us)' --stack 'limit(3000) > host'");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.errors, "");
  EXPECT_THAT(outcome.output, HasSubstr("cache(buckets=pow2)"));
  EXPECT_THAT(outcome.output, HasSubstr("5.50 KiB"));
  std::size_t start = 0;
  for (std::size_t end = 0; (end = outcome.output.find('\n', start)) != std::string::npos;
       start = end + 1) {
    EXPECT_LE(end - start, 100U) << outcome.output;
  }
}

TEST_F(ReplayCommand, RefusesAWrongStackAndShowsWhere) {
  const Outcome outcome =
      run_command("replay " + small_trace() + " --stack 'limit(1GiB) > cash > host' --json");
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.output, "");
  EXPECT_THAT(outcome.errors, StartsWith("cistern: "));
  EXPECT_THAT(outcome.errors, HasSubstr("\n  limit(1GiB) > cash > host\n                ^~~~\n"));
}

TEST_F(ReplayCommand, AStackThatRecordsIsNotOpenedBeforeTheTraceIsRead) {
  const std::string trace = small_trace();
  const json document =
      run_to_json("replay " + trace + " --stack 'trace(\"" + trace + "\") > host'");
  EXPECT_EQ(document.at("trace").at("events"), 4);
  const Outcome missing =
      run_command("replay " + file("none") + " --stack 'trace(\"" + file("made") + "\") > host'");
  EXPECT_EQ(missing.status, 1);
  EXPECT_FALSE(std::filesystem::exists(file("made")));
}

TEST_F(ReplayCommand, SaysIfThereIsNoTrace) {
  const Outcome outcome = run_command("replay " + file("none"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.output, "");
  EXPECT_THAT(outcome.errors, StartsWith("cistern: "));
}

TEST_F(ReplayCommand, ReadsStandardInput) {
  const json document = run_to_json("replay - <" + small_trace());
  EXPECT_EQ(document.at("trace").at("events"), 4);
}

TEST_F(ReplayCommand, RepeatsAndDealsOverStreams) {
  const json document = run_to_json("replay " + small_trace() + pow2 + " --repeat 3 --streams 2");
  EXPECT_EQ(document.at("repeat"), 3);
  EXPECT_EQ(document.at("streams"), 2);
  const json& turns = document.at("runs")[0].at("peak_reserved_bytes_per_turn");
  EXPECT_EQ(turns, json({5632, 5632, 5632}));
  EXPECT_THAT(run_command("replay " + small_trace() + pow2 + " --repeat 3").output,
              HasSubstr("reserved in turns 1 to 3: 5.50 KiB, 5.50 KiB, 5.50 KiB\n"));
  EXPECT_EQ(run_command("replay " + small_trace() + " --repeat 0").status, 2);
  EXPECT_EQ(run_command("replay " + small_trace() + " --streams 0").status, 2);
}

TEST_F(ReplayCommand, FindsTheSmallestDevice) {
  const std::string arguments = "replay " + small_trace() +
                                " --stack 'cache(buckets=pow2) > simulated(granularity=512)'"
                                " --stack 'limit(0) > simulated' --capacity";
  const json document = run_to_json(arguments + " --granularity 512");
  EXPECT_EQ(document.at("runs")[0].at("min_capacity_bytes"), 4096 + 1024 + 512);
  EXPECT_EQ(document.at("runs")[1].at("min_capacity_bytes"), nullptr);
  EXPECT_EQ(run_to_json(arguments).at("runs")[0].at("min_capacity_bytes"), 2 << 20);
  EXPECT_THAT(run_command(arguments).output, HasSubstr("2.00 MiB"));
  const Outcome host = run_command("replay " + small_trace() + " --capacity");
  EXPECT_EQ(host.status, 2);
  EXPECT_THAT(host.errors, HasSubstr("the capacity of a simulated device alone can be set"));
}

TEST_F(ReplayCommand, FollowsOnlyWhatStatesAddresses) {
  const Outcome other = run_command("replay " + small_trace() + pow2 + " --follow-segments");
  EXPECT_EQ(other.status, 1);
  EXPECT_THAT(other.errors, HasSubstr("is no PyTorch snapshot"));
  EXPECT_EQ(run_command("replay x --follow-segments --repeat 2").status, 2);
  EXPECT_EQ(run_command("replay x --follow-segments --streams 2").status, 2);
}

TEST_F(ReplayCommand, ComparesAddressesWithTheRecordedOnes) {
  const std::string trace = shared_trace("wedson_medium_128_inference.pickle.gz");
  if (trace.empty()) GTEST_SKIP() << "the recorded traces are not beside the project";
  const std::string arguments = "replay " + trace + " --follow-segments";
  const json run = run_to_json(arguments + " --stack 'pytorch > simulated(80GiB)'").at("runs")[0];
  EXPECT_EQ(run.at("address_matches"), 1280);
  EXPECT_EQ(run.at("address_mismatches"), 0);
  EXPECT_EQ(run.at("segments_followed"), 98);
  EXPECT_EQ(run.at("segments_missed"), 0);
  EXPECT_THAT(
      run_command(arguments + " --stack 'pytorch > simulated(80GiB)'").output,
      HasSubstr("1,280 blocks where they were recorded, 0 elsewhere; 98 of 98 segments followed."));
  const Outcome cache = run_command(arguments + " --stack 'cache > simulated(80GiB)'");
  EXPECT_EQ(cache.status, 1);
  EXPECT_THAT(cache.errors, HasSubstr("98 segments were there before the first event"));
}

struct Known {
  const char* file;
  int allocations;
  int initial_blocks;
  std::uint64_t peak_live_bytes;
};

class RecordedTrace : public CommandTest, public ::testing::WithParamInterface<Known> {};

TEST_P(RecordedTrace, HasItsKnownFigures) {
  const std::string trace = shared_trace(GetParam().file);
  if (trace.empty()) GTEST_SKIP() << "the recorded traces are not beside the project";
  const json document = run_to_json("replay " + trace + pow2 + " --check --stack 'cache > host'");
  EXPECT_EQ(document.at("trace").at("allocations"), GetParam().allocations);
  EXPECT_EQ(document.at("trace").at("initial_blocks"), GetParam().initial_blocks);
  EXPECT_EQ(document.at("trace").at("peak_live_bytes"), GetParam().peak_live_bytes);
  for (const json& run : document.at("runs")) {
    EXPECT_EQ(run.at("allocations"), GetParam().allocations);
    EXPECT_EQ(run.at("failed"), 0);
    EXPECT_EQ(run.at("peak_live_bytes"), GetParam().peak_live_bytes);
    EXPECT_EQ(run.at("hits").get<int>() + run.at("misses").get<int>(), GetParam().allocations);
    EXPECT_GE(run.at("peak_reserved_bytes").get<std::uint64_t>(), GetParam().peak_live_bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Replay, RecordedTrace,
    ::testing::Values(Known{"niu_forward_and_backward_memory_snapshot_100.pickle.gz", 3853, 0,
                            682'735'240},
                      Known{"wedson_medium_128_training.pickle.gz", 6526, 664, 7'013'335'044}),
    [](const auto& each) {
      return std::string(each.param.file).substr(0, std::string(each.param.file).find('.'));
    });

}  // namespace
}  // namespace cistern::testing
