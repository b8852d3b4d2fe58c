// Writes a trace in one of our own forms. Either holds all of it: what is read back has the same
// events and blocks. Functions without state: safe from any thread, on different files.
#pragma once

#include <cstdint>
#include <filesystem>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"
#include "cistern/trace/event.hpp"

namespace cistern {

enum class TraceFormat : std::uint8_t {
  binary,  // compact, checksummed
  text,    // one event a line, for eyes and editors
};

/// Writes `trace`, compressed if `gzip`, to `path`; "-" is standard output. A regular file takes
/// its name only when it is whole: a write that fails leaves what stood there before. A trace that
/// breaks a law is refused.
[[nodiscard]] tl::expected<void, TraceError> write_trace(const Trace& trace,
                                                         const std::filesystem::path& path,
                                                         TraceFormat format = TraceFormat::binary,
                                                         bool gzip = false);

}  // namespace cistern
