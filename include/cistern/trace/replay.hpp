// Replays a recorded trace through a stack and says what came of it: the same figures for every
// stack. The bytes of the blocks are never touched, so the trace of a large device can be replayed
// on any machine.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "cistern/core/stats.hpp"
#include "cistern/stack/stack.hpp"
#include "cistern/trace/event.hpp"

namespace cistern {

struct ReplayOptions {
  /// Hold every block against the laws, in a pass of its own: it is as large and as aligned as
  /// asked, and overlaps no other live block; the stack's own `validate` finds nothing.
  bool check = false;

  /// Called now and then, outside what is measured, with the part of the work that is done, from 0
  /// to 1.
  std::function<void(double)> progress{};
};

/// What an operation, an allocation or a free, took.
struct OperationTimes {
  double mean = 0;  // of a pass without a clock; the replay's own cost is part of it
  double p50 = 0;   // these three of another pass, less what reading the clock costs, never below 0
  double p99 = 0;
  double max = 0;
};

/// Counts are of the trace's events; the blocks that were live before them count in the levels and
/// peaks alone. A reset is one free for each block that was live.
struct ReplayResult {
  std::uint64_t allocations = 0;      // that were granted
  std::uint64_t frees = 0;            // of what was granted
  std::uint64_t failed = 0;           // allocations that were refused; their frees are left out
  std::uint64_t initial_failed = 0;   // blocks live before the first event that were refused
  std::uint64_t peak_live_bytes = 0;  // requested

  /// The stack's own figures over the trace's events, with the peaks of the levels.
  Stats stats;
  OperationTimes ns_per_op;

  /// What the replay itself takes for an operation: the mean of a pass whose allocator does
  /// nothing.
  double replay_overhead_ns = 0;

  /// What the calls would have cost on a simulated device; nothing for other devices.
  std::optional<std::uint64_t> device_time_ns;

  /// What the stack did wrong, the first of it; empty if nothing. Refusing a request is not wrong.
  std::string error;

  [[nodiscard]] std::uint64_t operations() const noexcept { return allocations + frees + failed; }
  [[nodiscard]] double utilisation() const noexcept;
};

/// Replays `trace`, which must be lawful (check.hpp), on stacks that `open` opens, a fresh one for
/// each pass over it; what `open` throws passes through. Events run one after the other on the
/// calling thread, whatever thread they were recorded on; their streams are ids without handles.
/// What is live at the end is freed uncounted; a stack that then is not empty, or cannot be
/// emptied, is an error of the result. A short trace is passed over several times and the median
/// mean counts. O(events), and a logarithm more with `check`.
[[nodiscard]] ReplayResult replay(const Trace& trace, const std::function<Stack()>& open,
                                  const ReplayOptions& options = {});

}  // namespace cistern
