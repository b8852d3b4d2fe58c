// Reads a trace from a file of any known format: our own, binary or text, or another program's. The
// format is told from the contents, never from the name, and any of them may be compressed with
// gzip. What is accepted and how it is understood stands in docs/trace-format.md.
//
// Files are not trusted: damaged and hostile ones are refused with an error that names the place.
// What is returned is lawful (check.hpp). Functions without state: safe from any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"
#include "cistern/trace/event.hpp"

namespace cistern {

struct ReadOptions {
  /// Which device's events to take from a file that holds those of several. Chrome traces number
  /// the CPU -1.
  std::optional<int> device = std::nullopt;

  /// The most bytes a file may have, before and after decompression, since a small compressed file
  /// can otherwise grow without bound. What is read from a pickle or from our binary form may take
  /// as many bytes of memory; from the other formats, a small multiple.
  std::uint64_t max_bytes = std::uint64_t{4} << 30;
};

/// Reads the file; "-" reads standard input. O(n log n) at most in the number of events.
[[nodiscard]] tl::expected<Trace, TraceError> read_trace(const std::filesystem::path& path,
                                                         const ReadOptions& options = {});

/// The same for contents already in memory, called `name` in the trace and in errors.
[[nodiscard]] tl::expected<Trace, TraceError> read_trace_from_memory(
    std::string_view bytes, std::string name, const ReadOptions& options = {});

}  // namespace cistern
