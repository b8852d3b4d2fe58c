#include "cistern/trace/streams.hpp"

#include <stdexcept>

#include "trace/untrusted_hash.hpp"

namespace cistern {

void deal_over_streams(Trace& trace, std::uint64_t streams) {
  if (streams == 0) throw std::invalid_argument("a trace has at least one stream");
  detail::UntrustedMap<std::uint64_t> stream_of;
  std::uint64_t dealt = 0;
  const auto deal = [&](std::uint64_t id) { return stream_of[id] = dealt++ % streams; };
  for (InitialBlock& block : trace.initial_blocks)
    block.stream = deal(block.id);
  for (Event& event : trace.events) {
    if (event.operation == Operation::allocate) event.stream = deal(event.id);
    if (event.operation == Operation::free) event.stream = stream_of.at(event.id);
  }
}

}  // namespace cistern
