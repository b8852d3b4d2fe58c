// The weights of a large model: what rounding to powers of two costs for good.
#include <cstdint>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "cistern/stack/stack.hpp"
#include "cistern/trace/read.hpp"
#include "cistern/trace/replay.hpp"
#include "support/shell.hpp"

namespace cistern {
namespace {

class WeightsProgram : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::path program;
#ifdef CISTERN_COMMAND
    program = std::filesystem::path(CISTERN_COMMAND).parent_path() / "examples" / "weights";
#endif
    if (!std::filesystem::exists(program)) GTEST_SKIP() << "the examples are not built";
    const testing::Outcome outcome = testing::run_shell("'" + program.string() + "' 2>/dev/null");
    ASSERT_EQ(outcome.status, 0);
    auto trace = read_trace_from_memory(outcome.output, "weights");
    ASSERT_TRUE(trace) << trace.error().text();
    trace_ = std::move(*trace);
  }

  /// The most that the stack held over what was asked for.
  [[nodiscard]] double growth(const std::string& stack) const {
    const ReplayResult result = replay(trace_, [&] { return open(stack); });
    EXPECT_EQ(result.failed, 0U);
    return 1 / result.utilisation() - 1;
  }

  Trace trace_;
};

TEST_F(WeightsProgram, HasTheTensorsOfALargeModel) {
  EXPECT_EQ(trace_.events.size(), 851U);
  std::uint64_t bytes = 0;
  for (const Event& event : trace_.events)
    bytes += event.bytes;
  EXPECT_EQ(bytes, 17'258'940'416U);
}

TEST_F(WeightsProgram, GrowByHalfInPowersOfTwo) {
  EXPECT_NEAR(growth("cache(buckets=pow2, idle_ratio=none) > simulated(64GiB)"), 0.48, 0.001);
  EXPECT_LT(growth("simulated(64GiB)"), 0.0001);
}

}  // namespace
}  // namespace cistern
