// Replays a recorded trace through a stack and says what came of it: the same figures for every
// stack. The bytes of the blocks are never touched, so the trace of a large device can be replayed
// on any machine.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cistern/core/stats.hpp"
#include "cistern/stack/stack.hpp"
#include "cistern/trace/event.hpp"
#include "cistern/trace/recorded_layout.hpp"

namespace cistern {

/// A recording's addresses cannot be followed on a stack.
class CannotFollow : public std::invalid_argument {
  using invalid_argument::invalid_argument;
};

struct ReplayOptions {
  /// Hold every block against the laws, in a pass of its own: it is as large and as aligned as
  /// asked, and overlaps no other live block; the stack's own `validate` finds nothing.
  bool check = false;

  /// Where the trace's memory lay (recorded_layout.hpp). Every pass then begins in the recorded
  /// state, the simulated device hands out the recorded segments, and the addresses that the stack
  /// returns are compared with the recorded ones. The stack's outermost stage must be a pool that
  /// can be brought into that state (restorable.hpp), unless the recorded run began with nothing.
  const RecordedLayout* follow = nullptr;

  /// How often the events are replayed in a row, for `peak_reserved_per_turn`: at least 1. What is
  /// live at the end of a turn is freed, and the initial blocks are allocated again before the
  /// next. Not together with `follow`.
  std::size_t turns = 1;

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

/// How what a stack did compares with what was recorded.
struct FollowedAddresses {
  std::uint64_t matches = 0;            // allocations at their recorded address
  std::uint64_t mismatches = 0;         // all others, refused ones included
  std::uint64_t segments_followed = 0;  // handed out where they were recorded
  std::uint64_t segments_missed = 0;    // recorded, but not asked for when they were

  friend bool operator==(const FollowedAddresses&, const FollowedAddresses&) = default;
};

/// What a stack had the streams of a simulated device wait for.
struct StreamWaits {
  std::uint64_t of_streams = 0;  // a stream for another, on the device's side
  std::uint64_t of_host = 0;     // the host for a stream

  friend bool operator==(const StreamWaits&, const StreamWaits&) = default;
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

  /// Of a simulated device with queues; nothing for other devices.
  std::optional<StreamWaits> waits;

  /// Where `follow` was given.
  std::optional<FollowedAddresses> addresses;

  /// The most that the stack held in each turn, what the turns before left it idle included.
  std::vector<std::uint64_t> peak_reserved_per_turn;

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
/// mean counts. All figures but one are of one turn on a fresh stack. O(events), and a logarithm
/// more with `check`. Throws CannotFollow, and std::invalid_argument where the layout is not of
/// this trace or the turns are none or more than one with a layout.
[[nodiscard]] ReplayResult replay(const Trace& trace, const std::function<Stack()>& open,
                                  const ReplayOptions& options = {});

}  // namespace cistern
