// One turn of a program's loop, cut out of the run that it was recorded in.
#pragma once

#include <cstdint>
#include <optional>

#include "cistern/trace/event.hpp"

namespace cistern {

/// The events from the mark (`Operation::cycle`) of turn `number`, counted from 1, up to the next
/// mark or the end, as a trace of their own: what was live when the turn began is its initial
/// blocks. Nothing if the program did not mark so many. Requires a lawful trace (check.hpp) and
/// returns one. O(events). Safe from any thread.
[[nodiscard]] std::optional<Trace> turn_of(const Trace& trace, std::uint64_t number);

}  // namespace cistern
