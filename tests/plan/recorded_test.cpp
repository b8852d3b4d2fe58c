// The instances of google/minimalloc and a training step of ResNet-50, recorded from real programs.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/plan/plan.hpp"

namespace cistern {
namespace {

/// Rows of id,lower,upper,size.
std::vector<Lifetime> read_buffers(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(line, "id,lower,upper,size");
  std::vector<Lifetime> buffers;
  while (std::getline(file, line)) {
    std::istringstream row(line);
    std::uint64_t id = 0;
    Lifetime buffer;
    char comma = 0;
    row >> id >> comma >> buffer.lower >> comma >> buffer.upper >> comma >> buffer.bytes;
    buffers.push_back(buffer);
  }
  return buffers;
}

struct RecordedInstance {
  const char* file;
  std::uint64_t steps;       // that suffice for `enough`
  std::size_t enough;        // 0: a plan that is proved optimal
  double first_ratio = 1.3;  // of the first answer to the lower bound, at most
};

class RecordedPlanTest : public ::testing::TestWithParam<RecordedInstance> {};

TEST_P(RecordedPlanTest, IsPacked) {
  const RecordedInstance& recorded = GetParam();
  const auto path =
      std::filesystem::path(CISTERN_SOURCE_DIR "/../shared/traces/plan") / recorded.file;
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "there is no " << path;
  const auto buffers = read_buffers(path);
  ASSERT_GT(buffers.size(), 100U);

  const Plan first = make_plan(buffers, {.steps = 0});
  EXPECT_EQ(validate(buffers, first), "");
  EXPECT_LE(static_cast<double>(first.peak_bytes),
            recorded.first_ratio * static_cast<double>(first.lower_bound_bytes));

  const Plan plan = make_plan(buffers, {.steps = recorded.steps, .enough_bytes = recorded.enough});
  EXPECT_EQ(validate(buffers, plan), "");
  EXPECT_TRUE(plan.proved_optimal || plan.peak_bytes <= recorded.enough)
      << plan.peak_bytes << " after " << plan.steps << " steps";
}

constexpr std::size_t accelerator_bytes = 1'048'576;  // of the accelerator the instances are for

INSTANTIATE_TEST_SUITE_P(
    Instances, RecordedPlanTest,
    ::testing::Values(RecordedInstance{"A.1048576.csv", 40'000'000, accelerator_bytes},
                      RecordedInstance{"B.1048576.csv", 40'000'000, accelerator_bytes},
                      RecordedInstance{"C.1048576.csv", 40'000'000, accelerator_bytes},
                      RecordedInstance{"D.1048576.csv", 40'000'000, accelerator_bytes},
                      RecordedInstance{"E.1048576.csv", 40'000'000, accelerator_bytes},
                      RecordedInstance{"F.1048576.csv", 40'000'000, accelerator_bytes},
                      RecordedInstance{"somas_tensors_resnet50.csv", 40'000'000, 0, 1.01}),
    [](const auto& instance) {
      const std::string file = instance.param.file;
      return file.substr(0, file.find('.'));
    });

}  // namespace
}  // namespace cistern
