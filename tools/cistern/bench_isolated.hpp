// Runs a piece of a measurement in a process of its own. What allocators leave behind, a grown
// heap, a block that pins its end, thresholds they have learned, would otherwise change what the
// next one is measured at by a factor of twenty; and one that crashes or waits for ever takes
// nothing with it.
//
// The process is a fork, so that what was read before is there. Call these where no other thread
// runs: a lock that one holds would never be given back in the child.
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <optional>

namespace cistern::command {

/// What one round of a subject found.
struct Sample {
  double ns_per_op = 0;                        // of a pair
  std::optional<double> reserved_over_live{};  // the peaks; nothing where the subject does not tell
};

/// What `measure` returns in a child of this process. Throws std::runtime_error, which says why, if
/// the child fails, dies or takes longer than `limit`; then it is killed.
Sample measure_isolated(const std::function<Sample()>& measure,
                        std::chrono::steady_clock::duration limit);

/// Ends the child from any of its threads; why is what `measure_isolated` throws.
[[noreturn]] void fail_isolated(const std::exception& why) noexcept;

/// What `question` answers in a child; false also if that fails or takes longer than `limit`.
bool holds_isolated(const std::function<bool()>& question,
                    std::chrono::steady_clock::duration limit = std::chrono::minutes(1));

}  // namespace cistern::command
