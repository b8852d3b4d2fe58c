// Writes "cistern trace, version 1", the compact binary form of a trace, piece by piece. It exists
// apart from the readers because a program that records itself links this and the standard library,
// nothing else. A recorder appends the header, then a chunk whenever a thread's buffer is full,
// then the end; chunks of several threads may interleave, as the reader merges them by `sequence`.
// The format stands byte by byte in docs/trace-format.md.
//
// Functions without state: safe from any thread as long as `out` is not shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cistern/trace/event.hpp"

namespace cistern {

/// Appends the ten bytes every file begins with.
void append_file_header(std::vector<std::byte>& out);

/// Appends the blocks that were live before the first event; nothing for none. May be called more
/// than once. Alignments are 0 or powers of two. O(blocks).
void append_initial_blocks(std::span<const InitialBlock> blocks, std::vector<std::byte>& out);

/// Appends a run of events; nothing for none. `sequence` rises strictly within the run (runs may
/// interleave) and alignments are 0 or powers of two. Costs at most 57 bytes an event, typically 6
/// to 10. O(events).
void append_chunk(std::span<const Event> events, std::vector<std::byte>& out);

/// Appends the record that closes the file. `total_events` is the number of events in all chunks: a
/// reader that counts fewer knows that some were lost.
void append_end(std::uint64_t total_events, std::vector<std::byte>& out);

}  // namespace cistern
