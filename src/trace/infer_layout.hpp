// What a PyTorch snapshot says of addresses, and what follows from it. The importer collects; this
// undoes and infers, so that the importer need not know how PyTorch's allocator works.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"
#include "cistern/trace/recorded_layout.hpp"

namespace cistern::detail {

/// As stated; nothing is checked. Streams are numbered as in the trace.
struct StatedLayout {
  struct FinalGrant {
    std::uint64_t id = 0;  // of a block that is live in the end
    std::uint64_t granted = 0;
  };

  std::vector<RecordedLayout::Segment> final_segments;
  std::vector<FinalGrant> final_grants;
  std::vector<std::uint64_t> initial_addresses;  // of each of Trace::initial_blocks
  std::vector<std::uint64_t> addresses;          // of each of Trace::events
  std::vector<RecordedLayout::Change> changes;   // `small` is not stated
};

/// What is in memory before the first event of `trace`, which is lawful. O(n log n).
tl::expected<RecordedLayout, TraceError> infer_layout(const Trace& trace, StatedLayout stated);

}  // namespace cistern::detail
