// Runs the program as its users do: whatever fits must be computed right, what does not must say
// so.
#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/shell.hpp"

namespace cistern {
namespace {

using ::testing::HasSubstr;

class OversubscribeProgram : public ::testing::Test {
 protected:
  void SetUp() override {
#ifdef CISTERN_COMMAND
    program_ = std::filesystem::path(CISTERN_COMMAND).parent_path() / "examples" / "oversubscribe";
#endif
    if (!std::filesystem::exists(program_)) GTEST_SKIP() << "the examples are not built";
  }

  [[nodiscard]] testing::Outcome run(const std::string& arguments) const {
    return testing::run_shell("'" + program_.string() + "' " + arguments);
  }

 private:
  std::filesystem::path program_;
};

TEST_F(OversubscribeProgram, ProcessesMoreThanTheLimitWhereTheStackCan) {
  const testing::Outcome outcome = run("--limit 8MiB --block 1MiB --passes 2");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.output, HasSubstr("12 MiB of live data"));
  EXPECT_THAT(outcome.output, HasSubstr("limit(8388608) > tier(A) > host\n  out of memory with"));
  EXPECT_THAT(
      outcome.output,
      HasSubstr("fallback(limit(8388608) > tier(A) > host, otherwise=tier(C) > host)\n  right"));
  EXPECT_THAT(outcome.output, HasSubstr("\ntier(C) > host\n  right"));
  EXPECT_THAT(outcome.output, HasSubstr("4 MiB spilled"));
}

TEST_F(OversubscribeProgram, RefusesWrongArguments) {
  for (const char* wrong : {"--limit lots", "--passes 0", "--block 4", "--nonsense"})
    EXPECT_EQ(run(std::string(wrong) + " 2>/dev/null").status, 2) << wrong;
  EXPECT_EQ(run("--stack 'cach > host' 2>/dev/null").status, 1);
}

}  // namespace
}  // namespace cistern
