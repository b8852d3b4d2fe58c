// The rest of the command as scripts see it: what goes where, exit statuses, and the documents of
// each subcommand.
#include "tools/command.hpp"

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/stack/stages.hpp"
#include "cistern/trace/read.hpp"

namespace cistern::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Command : public CommandTest {};

TEST_F(Command, TellsItsVersion) {
  const Outcome outcome = run_command("--version");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.output, StartsWith("cistern "));
}

TEST_F(Command, HelpsWithAnExampleOfEach) {
  EXPECT_THAT(run_command("--help").output, HasSubstr("replay"));
  for (const std::string subcommand :
       {"replay", "plan", "import", "generate", "info", "devices", "stages", "bench"}) {
    const Outcome outcome = run_command(subcommand + " --help");
    EXPECT_EQ(outcome.status, 0) << subcommand;
    EXPECT_THAT(outcome.output, HasSubstr("Example:\n  cistern " + subcommand)) << subcommand;
    EXPECT_EQ(outcome.errors, "") << subcommand;
  }
}

TEST_F(Command, RefusesWrongArguments) {
  for (const char* wrong :
       {"", "nonsense", "replay", "replay --nonsense x", "replay x --device y", "import x", "info",
        "stages none", "bench nonsense", "bench pair --seconds 0",
        "replay x --stack 'host > cache'", "devices x", "plan"}) {
    const Outcome outcome = run_command(wrong);
    EXPECT_EQ(outcome.status, 2) << wrong;
    EXPECT_EQ(outcome.output, "") << wrong;
    EXPECT_THAT(outcome.errors, StartsWith("cistern: ")) << wrong;
  }
}

TEST_F(Command, SaysWhyAJobFailed) {
  const std::string trace = small_trace();
  for (const std::string& failing : std::vector<std::string>{
           "info " + file("none"), "import " + file("none") + " " + file("out"),
           "import " + trace + " /nowhere/out",
           "info '" + std::string(CISTERN_SOURCE_DIR) + "/LICENSE'", "stages >/dev/full",
           "devices --json >/dev/full"}) {
    const Outcome outcome = run_command(failing);
    EXPECT_EQ(outcome.status, 1) << failing;
    EXPECT_EQ(outcome.output, "") << failing;
    EXPECT_THAT(outcome.errors, StartsWith("cistern: ")) << failing;
  }
}

TEST_F(Command, ConvertsTraces) {
  const std::string trace = small_trace();
  const auto original = read_trace(folder_ / "small.trace");
  ASSERT_TRUE(original.has_value());
  for (const std::string options : {"", "--text", "--gzip", "--text --gzip"}) {
    const Outcome outcome = run_command("import " + trace + " " + file("out") + " " + options);
    EXPECT_EQ(outcome.status, 0) << options;
    EXPECT_EQ(outcome.output, "") << options;
    EXPECT_THAT(outcome.errors, HasSubstr("4 events")) << options;
    const auto converted = read_trace(folder_ / "out");
    ASSERT_TRUE(converted.has_value()) << options;
    EXPECT_EQ(converted->events, original->events) << options;
    EXPECT_EQ(converted->initial_blocks, original->initial_blocks) << options;
  }
}

TEST_F(Command, CompressesWhereTheNameSaysSo) {
  EXPECT_EQ(run_command("import " + small_trace() + " " + file("out.gz")).status, 0);
  EXPECT_EQ(run_command("import " + file("small.trace") + " " + file("out")).status, 0);
  EXPECT_EQ(run_command("import " + file("small.trace") + " " + file("forced") + " --gzip").status,
            0);
  const auto bytes = [&](const char* name) { return std::filesystem::file_size(folder_ / name); };
  EXPECT_EQ(bytes("out.gz"), bytes("forced"));
  EXPECT_NE(bytes("out.gz"), bytes("out"));
}

TEST_F(Command, ConvertsFromAndToAPipe) {
  const Outcome outcome = run_command("import - - --text <" + small_trace());
  EXPECT_EQ(outcome.status, 0);
  const auto converted = read_trace_from_memory(outcome.output, "piped");
  ASSERT_TRUE(converted.has_value());
  EXPECT_EQ(converted->events.size(), 4U);
}

TEST_F(Command, TellsWhatATraceHolds) {
  const json document = run_to_json("info " + small_trace());
  EXPECT_EQ(document.at("events"), 4);
  EXPECT_EQ(document.at("allocations"), 2);
  EXPECT_EQ(document.at("frees"), 2);
  EXPECT_EQ(document.at("initial_blocks"), 1);
  EXPECT_EQ(document.at("peak_live_bytes"), 4500);
  EXPECT_EQ(document.at("final_live_bytes"), 1000);
  EXPECT_EQ(document.at("threads"), 2);
  EXPECT_EQ(document.at("sizes"),
            json::parse(R"([{"from": 256, "to": 511, "allocations": 1, "bytes": 500},
                            {"from": 512, "to": 1023, "allocations": 1, "bytes": 1000}])"));
  EXPECT_EQ(document.at("cycles").at("evidence"), "none");

  const Outcome outcome = run_command("info " + file("small.trace"));
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.output,
              HasSubstr("4 events, 2 allocations, peak live 4.39 KiB\n1 block of "));
}

TEST_F(Command, ListsTheDevices) {
  const json document = run_to_json("devices");
  const json& devices = document.at("devices");
  ASSERT_GE(devices.size(), 2U);
  EXPECT_EQ(devices[0].at("kind"), "host");
  EXPECT_GT(devices[0].at("total_memory_bytes").get<std::uint64_t>(), 0U);
  EXPECT_EQ(devices[1].at("kind"), "simulated");
  EXPECT_THAT(run_command("devices").output, HasSubstr("host memory"));
}

TEST_F(Command, ListsEveryStage) {
  const json document = run_to_json("stages");
  const json& stages = document.at("stages");
  const std::vector<StageDoc> docs = stage_docs();
  ASSERT_EQ(stages.size(), docs.size());
  const std::string output = run_command("stages").output;
  for (std::size_t i = 0; i < docs.size(); ++i) {
    EXPECT_EQ(stages[i].at("name"), docs[i].name);
    EXPECT_EQ(stages[i].at("parameters").size(), docs[i].parameters.size());
    EXPECT_THAT(output, HasSubstr(docs[i].name + " (" + docs[i].kind + ")"));
    for (const ParameterDoc& parameter : docs[i].parameters) {
      EXPECT_THAT(output, HasSubstr(parameter.name + ": "));
    }
  }
}

TEST_F(Command, ShowsOneStage) {
  const json document = run_to_json("stages cache");
  ASSERT_EQ(document.at("stages").size(), 1U);
  EXPECT_EQ(document.at("stages")[0].at("name"), "cache");
  EXPECT_THAT(run_command("stages netcl").output, HasSubstr("stands for cache("));
}

}  // namespace
}  // namespace cistern::testing
