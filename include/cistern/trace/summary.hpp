// What a trace looks like from afar: how much, how large, how long, on which streams and threads,
// and whether it goes round in cycles. Only computes; the command prints it.
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "cistern/trace/event.hpp"

namespace cistern {

struct TraceSummary {
  struct SizeBin {
    std::uint64_t count = 0;
    std::uint64_t bytes = 0;
  };

  struct StreamUse {
    std::uint64_t allocations = 0;
    std::uint64_t bytes = 0;
  };

  /// The turns of the program's loop. Known from its own `cycle` events, or else found in the sizes
  /// of its allocations: the smallest period of a stretch of them that makes up at least two turns
  /// and half of all.
  struct Cycles {
    enum class Evidence : std::uint8_t { none, events, repeating_sizes };
    Evidence evidence = Evidence::none;
    std::uint64_t turns = 0;                 // whole ones
    std::uint64_t allocations_per_turn = 0;  // the same two for repeating sizes only
    std::uint64_t first_allocation = 0;      // from which, counted from 0, the sizes repeat
  };

  std::uint64_t events = 0;
  std::uint64_t allocations = 0;  // initial blocks apart
  std::uint64_t frees = 0;        // `free` events; resets apart
  std::uint64_t resets = 0;
  std::uint64_t initial_blocks = 0;
  std::uint64_t initial_bytes = 0;

  // Requested bytes, initial blocks included.
  std::uint64_t peak_live_bytes = 0;
  std::uint64_t peak_live_blocks = 0;
  std::uint64_t final_live_bytes = 0;
  std::uint64_t final_live_blocks = 0;

  std::uint64_t requested_bytes = 0;  // by all allocations together; at most 2^64-1
  std::uint64_t duration_ns = 0;      // from the earliest event to the latest

  /// Allocations by size: bin 0 holds empty ones, bin k those from 2^(k-1) to 2^k-1 bytes.
  std::array<SizeBin, 65> sizes;

  /// Allocations by how many events later they were freed, binned likewise. A block that is freed
  /// by the next event lived for 1. `never_freed` counts the rest.
  std::array<std::uint64_t, 65> lifetimes{};
  std::uint64_t never_freed = 0;

  std::map<std::uint64_t, StreamUse> streams;  // those that allocate or free
  std::uint64_t threads = 0;
  Cycles cycles;
};

/// Requires a lawful trace (check.hpp), as every reader returns. O(events). Safe from any thread.
[[nodiscard]] TraceSummary summarise(const Trace& trace);

}  // namespace cistern
