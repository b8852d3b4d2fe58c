// Runs a piece of a measurement in a process of its own. What allocators leave behind, a grown
// heap, a block that pins its end, thresholds they have learned, would otherwise change what the
// next one is measured at by a factor of twenty.
#pragma once

#include <exception>
#include <functional>
#include <optional>

namespace cistern::command {

/// What one round of a subject found.
struct Sample {
  double ns_per_op = 0;                        // of a pair
  std::optional<double> reserved_over_live{};  // the peaks; nothing where the subject does not tell
};

/// What `measure` returns in a child of this process. Throws std::runtime_error if the child
/// fails; why is on standard error.
Sample measure_isolated(const std::function<Sample()>& measure);

/// Ends the child from any of its threads and says why.
[[noreturn]] void fail_isolated(const std::exception& why);

/// What `question` answers in a child; false also if that fails.
bool holds_isolated(const std::function<bool()>& question);

}  // namespace cistern::command
