// One function per format that can be read. Each is given uncompressed contents that it has been
// found to look like, trusts nothing in them, and returns a lawful trace whose `name` is for the
// caller to set.
#pragma once

#include <string_view>

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"
#include "cistern/trace/event.hpp"
#include "cistern/trace/read.hpp"
#include "cistern/trace/recorded_layout.hpp"

namespace cistern::detail {

using ReadResult = tl::expected<Trace, TraceError>;

ReadResult read_binary(std::string_view bytes, const ReadOptions& options);
ReadResult read_text(std::string_view text, const ReadOptions& options);
ReadResult import_pytorch(std::string_view bytes, const ReadOptions& options);
ReadResult import_rmm(std::string_view csv, const ReadOptions& options);
ReadResult import_chrome(std::string_view json, const ReadOptions& options);

/// The same as `import_pytorch`, with what the snapshot says of addresses.
tl::expected<Recording, TraceError> import_pytorch_recording(std::string_view bytes,
                                                             const ReadOptions& options);

/// The first line of our text form, and of RMM's logs.
inline constexpr std::string_view text_signature = "cistern-trace 1 text";
inline constexpr std::string_view rmm_header = "Thread,Time,Action,Pointer,Size,Stream";

/// `trace` if it is lawful.
ReadResult if_lawful(Trace trace);

}  // namespace cistern::detail
