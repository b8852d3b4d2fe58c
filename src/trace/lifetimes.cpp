#include "cistern/trace/lifetimes.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "trace/untrusted_hash.hpp"

namespace cistern {
namespace {

class Collector {
 public:
  explicit Collector(const Trace& trace) : end_(trace.events.size() + 1) {
    lifetimes_.name = trace.name;
    lifetimes_.source = trace.source;
    for (const InitialBlock& block : trace.initial_blocks)
      begin(block, 0);
    for (std::size_t index = 0; index < trace.events.size(); ++index)
      step(trace.events[index], index + 1);
  }

  Lifetimes result() && { return std::move(lifetimes_); }

 private:
  void step(const Event& event, std::uint64_t time) {
    switch (event.operation) {
      case Operation::allocate:
        begin(event, time);
        break;
      case Operation::free:
        if (const auto found = live_.find(event.id); found != live_.end()) {
          lifetimes_.buffers[found->second].upper = time;
          live_.erase(found);
        }
        break;
      case Operation::reset:
        // A fresh map each time: clearing one costs its largest size.
        for (const auto& [id, place] : std::exchange(live_, {}))
          lifetimes_.buffers[place].upper = time;
        break;
      case Operation::cycle:
        break;
    }
  }

  /// `block` is an event or an initial block.
  template <class Block>
  void begin(const Block& block, std::uint64_t time) {
    if (block.bytes == 0) return;
    live_.emplace(block.id, lifetimes_.buffers.size());
    lifetimes_.ids.push_back(std::to_string(block.id));
    lifetimes_.buffers.push_back(
        {.lower = time,
         .upper = end_,
         .bytes = static_cast<std::size_t>(block.bytes),
         .alignment = static_cast<std::size_t>(std::max<std::uint64_t>(block.alignment, 1))});
  }

  std::uint64_t end_;
  Lifetimes lifetimes_;
  detail::UntrustedMap<std::size_t> live_;  // where in `buffers` each live block is
};

}  // namespace

Lifetimes lifetimes_of(const Trace& trace) {
  return Collector(trace).result();
}

}  // namespace cistern
