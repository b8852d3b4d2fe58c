// `cistern generate` as scripts see it.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/command.hpp"

namespace cistern::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class GenerateCommand : public CommandTest {};

TEST_F(GenerateCommand, WritesATraceThatCanBeReplayed) {
  for (const std::string kind : {"pipeline", "prefetch", "side"}) {
    const std::string trace = file(kind + ".trace");
    const Outcome outcome =
        run_command("generate " + kind + " --streams 3 --seed 5 --turns 2 -o " + trace);
    ASSERT_EQ(outcome.status, 0) << outcome.errors;
    EXPECT_EQ(outcome.output, "");
    EXPECT_THAT(outcome.errors, StartsWith(kind + " on 3 streams: "));
    const json document = run_to_json(
        "replay " + trace +
        " --check --stack 'coalesce > simulated(queues=true, capacity=80GiB, granularity=2MiB)'"
        " --stack 'cache > simulated(capacity=80GiB)'");
    const json& runs = document.at("runs");
    EXPECT_EQ(runs[0].at("failed"), 0);
    EXPECT_EQ(runs[0].at("frees"), document.at("trace").at("allocations"));
    EXPECT_TRUE(runs[0].at("stream_waits").is_number_unsigned());
    EXPECT_TRUE(runs[0].at("host_waits").is_number_unsigned());
    EXPECT_EQ(runs[1].at("stream_waits"), nullptr);
    EXPECT_EQ(runs[1].at("host_waits"), nullptr);
    EXPECT_EQ(run_to_json("info " + trace).at("cycles").at("turns"), 2);
  }
}

TEST_F(GenerateCommand, MakesTheSameFileEachTime) {
  const std::string arguments = "generate side --streams 4 --turns 1 --seed ";
  const std::string first = run_command(arguments + "18446744073709551615 --text").output;
  EXPECT_EQ(run_command(arguments + "18446744073709551615 --text -o -").output, first);
  EXPECT_NE(run_command(arguments + "0 --text").output, first);
  ASSERT_EQ(run_command(arguments + "1 -o " + file("a")).status, 0);
  ASSERT_EQ(run_command(arguments + "1 -o " + file("b")).status, 0);
  EXPECT_EQ(run_command("import " + file("a") + " " + file("c")).status, 0);
  EXPECT_EQ(run_shell("cmp " + file("a") + " " + file("b")).status, 0);
  EXPECT_EQ(run_shell("cmp " + file("a") + " " + file("c")).status, 0);
  ASSERT_EQ(run_command(arguments + "1 -o " + file("a.gz")).status, 0);
  EXPECT_EQ(run_shell("gzip -dc " + file("a.gz") + " | cmp - " + file("a")).status, 0);
}

TEST_F(GenerateCommand, SaysWhatIsWrong) {
  const auto refuses = [](const std::string& arguments, const std::string& why) {
    const Outcome outcome = run_command("generate " + arguments);
    EXPECT_EQ(outcome.status, 2) << arguments;
    EXPECT_EQ(outcome.output, "") << arguments;
    EXPECT_THAT(outcome.errors, StartsWith("cistern: ")) << arguments;
    EXPECT_THAT(outcome.errors, HasSubstr(why)) << arguments;
  };
  refuses("pipeline --streams 0", "a generated program has 1 to 16 streams, not 0");
  refuses("pipeline --streams 17", "a generated program has 1 to 16 streams, not 17");
  refuses("pipeline --streams -1", "--streams");
  refuses("pipeline", "--streams");
  refuses("--streams 2", "KIND");
  refuses("side --streams 2 --turns 0", "a generated program has 1 to 1000 turns, not 0");
  refuses("pipelines --streams 2",
          "no kind of program is called 'pipelines' (there are pipeline, prefetch, side)");
  EXPECT_EQ(run_command("generate side --streams 2 -o /nowhere/out").status, 1);
}

}  // namespace
}  // namespace cistern::testing
