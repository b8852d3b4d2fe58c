// Spreads a trace over streams, to see what a pool that keeps its streams apart makes of it.
#pragma once

#include <cstdint>

#include "cistern/trace/event.hpp"

namespace cistern {

/// Gives the blocks of `trace`, which must be lawful (check.hpp), the streams 0 to `streams` - 1 in
/// turn, the initial blocks first; a block is freed on its own. Throws std::invalid_argument if
/// there are no streams. O(events).
void deal_over_streams(Trace& trace, std::uint64_t streams);

}  // namespace cistern
