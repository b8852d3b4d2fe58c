// Runs the decoder as its users do: it must compute the same over every stack, agree with its
// reference, and keep to what it says of its exit statuses and its JSON.
#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cistern/trace/read.hpp"
#include "support/shell.hpp"

namespace cistern {
namespace {

using Json = nlohmann::json;

using testing::Outcome;

class DecodeProgram : public ::testing::Test {
 protected:
  void SetUp() override {
#ifdef CISTERN_COMMAND
    program_ = std::filesystem::path(CISTERN_COMMAND).parent_path() / "examples" / "decode";
#endif
    if (!std::filesystem::exists(program_)) GTEST_SKIP() << "the examples are not built";
  }

  [[nodiscard]] Outcome decode(const std::string& arguments,
                               const std::string& environment = "") const {
    return testing::run_shell(environment + " '" + program_.string() + "' " + arguments);
  }

  [[nodiscard]] Json decode_to_json(const std::string& arguments,
                                    const std::string& environment = "") const {
    const Outcome outcome = decode("--runs 1 --tokens 4 --json " + arguments, environment);
    EXPECT_EQ(outcome.status, 0);
    Json document = Json::parse(outcome.output, nullptr, false);
    EXPECT_FALSE(document.is_discarded()) << outcome.output;
    return document;
  }

  std::filesystem::path program_;
};

TEST_F(DecodeProgram, ComputesTheSameOverEveryStackAndAsTheReferenceDoes) {
  const Json document = decode_to_json(
      "--check --stack 'cache > host' --stack 'cache(buckets=pow2) > host'"
      " --stack 'limit(1GiB) > cache(buckets=fit) > host'");
  EXPECT_EQ(document["identical"], true);
  EXPECT_EQ(document["check"]["passed"], true);
  EXPECT_EQ(document["generated"].size(), 4U);
  const Json& runs = document["runs"];
  ASSERT_EQ(runs.size(), 4U);
  EXPECT_EQ(runs[0]["stack"], "host");
  EXPECT_EQ(runs[0]["hit_rate"], 0.0);
  EXPECT_EQ(runs[0]["speedup"], 1.0);
  EXPECT_EQ(runs[1]["stack"], "cache > host");
  for (const Json& of : runs) {
    EXPECT_EQ(of["allocations_per_token"], runs[0]["allocations_per_token"]);
    EXPECT_EQ(of["peak_live_bytes"], runs[0]["peak_live_bytes"]);
    EXPECT_GE(of["peak_reserved_bytes"], of["peak_live_bytes"]);
    EXPECT_GT(of["tokens_per_second"], 0.0);
  }
  EXPECT_GE(runs[0]["allocations_per_token"], 800.0);
  EXPECT_LE(runs[0]["allocations_per_token"], 1500.0);
}

TEST_F(DecodeProgram, IsServedByThePoolOnceItIsWarm) {
  const Json document = decode_to_json("--stack 'cache > host'");
  const Json& pooled = document["runs"][1];
  EXPECT_GT(pooled["hit_rate"], 0.95);
  EXPECT_LT(pooled["device_allocations_per_token"], 50.0);
}

TEST_F(DecodeProgram, ReadsNothingThatItHasNotWritten) {
  const Json plain = decode_to_json("");
  for (const char* filling : {"MALLOC_PERTURB_=1", "MALLOC_PERTURB_=127"}) {
    EXPECT_EQ(decode_to_json("", filling)["fingerprint"], plain["fingerprint"]) << filling;
  }
}

TEST_F(DecodeProgram, DependsOnItsSeed) {
  const Json one = decode_to_json("--seed 1");
  const Json other = decode_to_json("--seed 2");
  EXPECT_EQ(other["identical"], true);
  EXPECT_NE(one["fingerprint"], other["fingerprint"]);
}

TEST_F(DecodeProgram, RecordsATraceWithACycleForEachToken) {
  const auto file = std::filesystem::path(::testing::TempDir()) / "decode_test.trace";
  const Json document = decode_to_json("--trace '" + file.string() + "'");
  EXPECT_EQ(document["trace"], file.string());
  const auto trace = read_trace(file);
  std::filesystem::remove(file);
  ASSERT_TRUE(trace.has_value());
  const auto count = [&](Operation operation) {
    return std::ranges::count(trace->events, operation, &Event::operation);
  };
  EXPECT_EQ(count(Operation::cycle), 4);
  EXPECT_EQ(count(Operation::allocate), count(Operation::free));
  EXPECT_GT(count(Operation::allocate), 4 * 800);
}

TEST_F(DecodeProgram, ShipsATraceThatCanBeRead) {
  const auto trace = read_trace(CISTERN_SOURCE_DIR "/examples/decode/decode.trace.gz");
  ASSERT_TRUE(trace.has_value());
  EXPECT_GE(std::ranges::count(trace->events, Operation::cycle, &Event::operation), 8);
}

TEST_F(DecodeProgram, ComputesTheSameInKernelsWhoeverGivesThemMemory) {
  const Outcome found = decode("--device opencl --runs 1 --tokens 1 2>&1");
  if (found.status == 1 && found.output.find("no OpenCL device") != std::string::npos)
    GTEST_SKIP() << found.output;
  if (found.output.find("no arithmetic") != std::string::npos)
    GTEST_SKIP() << "the examples are built without OpenCL";
  const Json document = decode_to_json(
      "--device opencl --check --stack 'cache > opencl' --stack 'coalesce > opencl'"
      " --stack 'arena > cache > opencl' --stack 'planned > coalesce > opencl'");
  EXPECT_EQ(document["identical"], true);
  EXPECT_EQ(document["check"]["passed"], true);
  const Json& runs = document["runs"];
  ASSERT_EQ(runs.size(), 5U);
  EXPECT_EQ(runs[0]["stack"], "opencl");
  EXPECT_EQ(runs[0]["device_allocations_per_token"], runs[0]["allocations_per_token"]);
  EXPECT_EQ(runs[2]["device_allocations_per_token"], 0.0);
  EXPECT_EQ(document["generated"], decode_to_json("")["generated"]);

  const Outcome shared = decode("--device opencl --stack 'cache > opencl(memory=svm)' 2>&1");
  EXPECT_EQ(shared.status, 2);
  EXPECT_NE(shared.output.find("buffers"), std::string::npos) << shared.output;
}

TEST_F(DecodeProgram, SaysWhyThereIsNoOpenClDevice) {
  const Outcome none =
      decode("--device opencl 2>&1", "OCL_ICD_VENDORS=/nonexistent OCL_ICD_FILENAMES=");
  EXPECT_EQ(none.status, 1);
  EXPECT_NE(none.output.find("no OpenCL device: "), std::string::npos) << none.output;
}

TEST_F(DecodeProgram, RefusesWrongArguments) {
  for (const char* wrong :
       {"--tokens 0", "--prompt-length 0", "--runs 0", "--unknown", "--stack 'cache >'",
        "--stack 'cash > host'", "--stack 'cache > simulated'", "--device cuda",
        "--device host --stack 'cache > opencl'"}) {
    const Outcome outcome = decode(std::string(wrong) + " 2>&1 >/dev/null");
    EXPECT_EQ(outcome.status, 2) << wrong;
    EXPECT_FALSE(outcome.output.empty()) << wrong;
  }
}

TEST_F(DecodeProgram, SaysWhyItFailed) {
  const Outcome starved = decode("--runs 1 --stack 'limit(1MiB) > host' 2>&1 >/dev/null");
  EXPECT_EQ(starved.status, 1);
  EXPECT_NE(starved.output.find("limit"), std::string::npos) << starved.output;
  const Outcome nowhere =
      decode("--runs 1 --tokens 1 --trace /nowhere/decode.trace 2>&1 >/dev/null");
  EXPECT_EQ(nowhere.status, 1);
  EXPECT_FALSE(nowhere.output.empty());
}

}  // namespace
}  // namespace cistern
