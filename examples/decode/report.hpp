// What the program says in the end: a table for people, or one JSON document for programs.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "passes.hpp"

namespace decode {

/// One stack's figures. The first of a report is the raw device's, which the others are compared
/// with.
struct StackReport {
  std::string stack;
  double seconds = 0;  // of the turns, the median of the runs
  double allocator_seconds = 0;
  cistern::Stats turns{};
  cistern::Stats whole{};
};

struct Check {
  Deviation deviation{};
  double tolerance = 0;

  [[nodiscard]] bool passed() const noexcept { return deviation.largest <= tolerance; }
};

struct Report {
  Job job;
  std::size_t parameters = 0;
  std::size_t runs = 0;
  Output output{};
  std::vector<StackReport> stacks{};
  std::optional<Check> check{};
  std::string trace{};       // the file; empty if none was recorded
  std::string difference{};  // where two stacks computed different logits; empty if nowhere
};

std::string as_table(const Report& report);
std::string as_json(const Report& report);

}  // namespace decode
