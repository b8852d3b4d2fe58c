// The events of a recorded run: what happened to which block, when, on which thread and stream.
// Everything that records, converts, inspects or replays allocations speaks in these terms; files
// and other programs' formats are translated to and from them at the edge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cistern {

enum class Operation : std::uint8_t {
  allocate = 1,  // id, bytes, alignment and stream are set
  free = 2,      // id and stream are set; bytes repeats what was requested
  reset = 3,     // an arena gave everything back at once: every live block is freed
  cycle = 4,     // a turn of the program's loop begins; id counts the turns
};

/// One event. `id` names a block and is never used again within a trace. `sequence` orders the
/// events of all threads; it rises strictly through a trace but may have gaps. `time_ns` counts
/// from an origin that the trace does not state.
struct Event {
  std::uint64_t sequence = 0;
  std::uint64_t time_ns = 0;
  std::uint64_t id = 0;
  std::uint64_t bytes = 0;      // requested
  std::uint64_t alignment = 0;  // a power of two; 0 where the program asked for none
  std::uint64_t stream = 0;     // 0 is the default stream
  std::uint32_t thread = 0;     // small numbers in order of appearance
  Operation operation = Operation::allocate;

  friend bool operator==(const Event&, const Event&) = default;
};

/// A block that was live before the first event.
struct InitialBlock {
  std::uint64_t id = 0;
  std::uint64_t bytes = 0;
  std::uint64_t alignment = 0;
  std::uint64_t stream = 0;

  friend bool operator==(const InitialBlock&, const InitialBlock&) = default;
};

/// A whole recorded run, events in order of `sequence`.
struct Trace {
  std::string name;    // where it came from: a file name without its folder
  std::string source;  // the format it was read from: "cistern", "pytorch-snapshot", "rmm-csv",
                       // "chrome-trace"
  std::vector<InitialBlock> initial_blocks;
  std::vector<Event> events;
};

}  // namespace cistern
