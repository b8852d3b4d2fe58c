// Runs the built command as its users do.
#pragma once

#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "support/shell.hpp"

namespace cistern::testing {

/// `cistern` with `arguments`, a piece of a line of shell.
Outcome run_command(const std::string& arguments);

/// The same with --json: it must succeed and print one document and nothing else.
nlohmann::json run_to_json(const std::string& arguments);

/// A file of the recorded traces, quoted for the shell; empty where they are not beside the
/// project.
std::string shared_trace(const std::string& name);

/// A folder of its own for each test, removed in the end.
class CommandTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  [[nodiscard]] std::string file(const std::string& name) const {
    return "'" + (folder_ / name).string() + "'";
  }
  /// Writes a small trace: 4 events of two blocks, and one more that was live before them; 4,500
  /// bytes at the peak.
  [[nodiscard]] std::string small_trace() const;

  std::filesystem::path folder_;
};

}  // namespace cistern::testing
