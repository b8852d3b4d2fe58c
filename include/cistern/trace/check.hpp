// The laws of a trace, written once. Every reader applies them, so that whoever is handed a trace
// may rely on them.
#pragma once

#include <tl/expected.hpp>

#include "cistern/trace/error.hpp"
#include "cistern/trace/event.hpp"

namespace cistern {

/// Says where `trace` first breaks a law, if it does. The laws:
/// - `sequence` rises strictly;
/// - an id names one block, ever;
/// - a free names a live block and repeats its bytes; a reset frees every block;
/// - an alignment is 0 or a power of two;
/// - the bytes live at one time can be counted in 64 bits.
/// O(events). Safe from any thread.
[[nodiscard]] tl::expected<void, TraceError> check_trace(const Trace& trace);

}  // namespace cistern
