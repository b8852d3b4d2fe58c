// Where a recorded run's memory lay: what a replay needs that shall put every block where the
// recorded allocator put it. A trace knows blocks by ids, because most formats and all other uses
// need no more; this stands beside one. PyTorch's snapshots alone hold it.
//
// Functions without state: safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"
#include "cistern/trace/event.hpp"
#include "cistern/trace/read.hpp"

namespace cistern {

struct RecordedLayout {
  /// A piece of memory that the recorded allocator had obtained from its device.
  struct Segment {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
    std::uint64_t stream = 0;  // numbered as in the trace
    bool small = false;        // of the pool for small requests

    friend bool operator==(const Segment&, const Segment&) = default;
  };

  /// A segment came or went.
  struct Change {
    enum class Kind : std::uint8_t { obtained, given_back };

    std::size_t event = 0;  // just before this one of Trace::events, or after the last
    Kind kind = Kind::obtained;
    Segment segment;

    friend bool operator==(const Change&, const Change&) = default;
  };

  /// Where one of Trace::initial_blocks lay, and how many bytes it had been granted.
  struct Place {
    std::uint64_t address = 0;
    std::uint64_t granted = 0;

    friend bool operator==(const Place&, const Place&) = default;
  };

  std::vector<Segment> segments;         // before the first event, in order of address
  std::vector<Place> initial_blocks;     // one for each of the trace's
  std::vector<std::uint64_t> addresses;  // of the block of each of Trace::events
  std::vector<Change> changes;           // in order
};

struct Recording {
  Trace trace;
  RecordedLayout layout;
};

/// Reads a PyTorch snapshot with its layout; the trace is the one that `read_trace` gives. What a
/// snapshot does not state is inferred: the state before the first event from that after the last,
/// by undoing the events; and the bytes that a block live before the first event was granted, where
/// it did not live to the end, by PyTorch's rules for splitting and from where its hole begins when
/// something is put there. Fails as `read_trace` does, and for other formats, for snapshots with
/// expandable segments, whose placement follows other rules, and where segments or initial blocks
/// contradict the events or overlap. O(n log n) in events and blocks.
[[nodiscard]] tl::expected<Recording, TraceError> read_recording(const std::filesystem::path& path,
                                                                 const ReadOptions& options = {});

/// The same for contents already in memory, called `name` in the trace and in errors.
[[nodiscard]] tl::expected<Recording, TraceError> read_recording_from_memory(
    std::string_view bytes, std::string name, const ReadOptions& options = {});

}  // namespace cistern
