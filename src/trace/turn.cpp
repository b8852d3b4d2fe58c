#include "cistern/trace/turn.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "trace/untrusted_hash.hpp"

namespace cistern {
namespace {

using EventPlace = std::vector<Event>::const_iterator;

/// The first mark from `from` on, or the end.
EventPlace next_mark(EventPlace from, EventPlace end) {
  return std::find_if(from, end,
                      [](const Event& event) { return event.operation == Operation::cycle; });
}

/// What is live just before `until`, in the order in which it was allocated.
std::vector<InitialBlock> live_before(const Trace& trace, EventPlace until) {
  std::vector<InitialBlock> blocks = trace.initial_blocks;
  detail::UntrustedSet freed;  // an id is never used again
  for (EventPlace event = trace.events.begin(); event != until; ++event) {
    if (event->operation == Operation::allocate) {
      blocks.push_back({event->id, event->bytes, event->alignment, event->stream});
    } else if (event->operation == Operation::free) {
      freed.insert(event->id);
    } else if (event->operation == Operation::reset) {
      blocks.clear();
    }
  }
  std::erase_if(blocks, [&](const InitialBlock& block) { return freed.contains(block.id); });
  return blocks;
}

}  // namespace

std::optional<Trace> turn_of(const Trace& trace, std::uint64_t number) {
  const EventPlace end = trace.events.end();
  if (number == 0) return std::nullopt;
  EventPlace begin = next_mark(trace.events.begin(), end);
  for (; number > 1 && begin != end; --number)
    begin = next_mark(begin + 1, end);
  if (begin == end) return std::nullopt;
  return Trace{.name = trace.name,
               .source = trace.source,
               .initial_blocks = live_before(trace, begin),
               .events = {begin, next_mark(begin + 1, end)}};
}

}  // namespace cistern
