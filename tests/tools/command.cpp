#include "tools/command.hpp"

#include <fstream>
#include <random>
#include <sstream>

#include "cistern/trace/event.hpp"
#include "cistern/trace/write.hpp"

namespace cistern::testing {
namespace {

#ifdef CISTERN_COMMAND
constexpr const char* command = CISTERN_COMMAND;
#else
constexpr const char* command = nullptr;
#endif

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// A name that no other test uses, in this process or another.
std::filesystem::path fresh_path() {
  std::random_device random;
  return std::filesystem::path(::testing::TempDir()) /
         ("cistern-" + std::to_string(random()) + std::to_string(random()));
}

}  // namespace

Outcome run_command(const std::string& arguments) {
  const std::filesystem::path errors = fresh_path();
  Outcome outcome =
      run_shell("'" + std::string(command) + "' " + arguments + " 2>'" + errors.string() + "'");
  outcome.errors = contents(errors);
  std::filesystem::remove(errors);
  return outcome;
}

nlohmann::json run_to_json(const std::string& arguments) {
  const Outcome outcome = run_command(arguments + " --json");
  EXPECT_EQ(outcome.status, 0) << arguments << '\n' << outcome.errors;
  EXPECT_EQ(outcome.errors, "") << arguments;
  nlohmann::json document = nlohmann::json::parse(outcome.output, nullptr, false);
  EXPECT_FALSE(document.is_discarded()) << arguments << '\n' << outcome.output;
  return document;
}

std::string shared_trace(const std::string& name) {
  const std::filesystem::path file =
      std::filesystem::path(CISTERN_SOURCE_DIR) / "../shared/traces/pytorch" / name;
  return std::filesystem::exists(file) ? "'" + file.string() + "'" : "";
}

void CommandTest::SetUp() {
  if (command == nullptr) GTEST_SKIP() << "the command is not built";
  folder_ = fresh_path();
  std::filesystem::create_directory(folder_);
}

void CommandTest::TearDown() {
  std::filesystem::remove_all(folder_);
}

std::string CommandTest::small_trace() const {
  const Trace trace{
      .name = "small",
      .source = "cistern",
      .initial_blocks = {{.id = 1, .bytes = 3000}},
      .events = {{.sequence = 1, .id = 2, .bytes = 1000},
                 {.sequence = 2, .id = 3, .bytes = 500, .thread = 1},
                 {.sequence = 3, .id = 1, .bytes = 3000, .operation = Operation::free},
                 {.sequence = 4, .id = 3, .bytes = 500, .operation = Operation::free}}};
  EXPECT_TRUE(write_trace(trace, folder_ / "small.trace").has_value());
  return file("small.trace");
}

}  // namespace cistern::testing
