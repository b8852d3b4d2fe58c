#include "bench_trace.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "command.hpp"

namespace cistern::command {

TraceTurn::TraceTurn(const Trace& trace) {
  std::vector<Step> steps;
  std::map<std::uint64_t, Step> live;  // by id, with its free
  std::vector<std::uint32_t> free_places;
  std::size_t live_bytes = 0;
  const auto allocate = [&](std::uint64_t id, std::size_t bytes) {
    if (bytes == 0) return;
    if (free_places.empty()) free_places.push_back(static_cast<std::uint32_t>(places_++));
    const std::uint32_t place = free_places.back();
    free_places.pop_back();
    steps.push_back({.bytes = bytes, .place = place, .operation = Operation::allocate});
    live[id] = {.bytes = bytes, .place = place, .operation = Operation::free};
    live_bytes += bytes;
    peak_live_ = std::max(peak_live_, live_bytes);
    operations += 2;
  };
  const auto free = [&](std::map<std::uint64_t, Step>::iterator block) {
    if (block == live.end()) return;
    steps.push_back(block->second);
    free_places.push_back(block->second.place);
    live_bytes -= block->second.bytes;
    live.erase(block);
  };
  const auto free_all = [&] {
    while (!live.empty())
      free(live.begin());
  };

  for (const InitialBlock& block : trace.initial_blocks)
    allocate(block.id, block.bytes);
  for (const Event& event : trace.events) {
    if (event.operation == Operation::allocate) {
      allocate(event.id, event.bytes);
    } else if (event.operation == Operation::free) {
      free(live.find(event.id));
    } else if (event.operation == Operation::reset) {
      free_all();
    } else {
      steps.push_back({.operation = Operation::cycle});
    }
  }
  free_all();
  if (operations == 0) throw JobFailed(trace.name + " holds no blocks");
  steps_ = std::make_shared<const std::vector<Step>>(std::move(steps));
}

}  // namespace cistern::command
