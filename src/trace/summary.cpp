#include "cistern/trace/summary.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "trace/period.hpp"
#include "trace/untrusted_hash.hpp"

namespace cistern {
namespace {

std::size_t bin_of(std::uint64_t value) {
  return static_cast<std::size_t>(std::bit_width(value));
}

std::uint64_t saturating_sum(std::uint64_t left, std::uint64_t right) {
  const std::uint64_t room = std::numeric_limits<std::uint64_t>::max() - left;
  return left + std::min(room, right);
}

class Summariser {
 public:
  TraceSummary run(const Trace& trace) {
    summary_.events = trace.events.size();
    summary_.initial_blocks = trace.initial_blocks.size();
    for (const InitialBlock& block : trace.initial_blocks) {
      begin(block.id, {block.bytes, initial});
      summary_.initial_bytes += block.bytes;
    }
    for (std::size_t index = 0; index < trace.events.size(); ++index)
      step(trace.events[index], index);
    finish(trace);
    return std::move(summary_);
  }

 private:
  static constexpr std::size_t initial = std::numeric_limits<std::size_t>::max();

  struct Live {
    std::uint64_t bytes;
    std::size_t since;  // the index of its allocation, or `initial`
  };

  void step(const Event& event, std::size_t index) {
    threads_.insert(event.thread);
    switch (event.operation) {
      case Operation::allocate:
        allocate(event, index);
        break;
      case Operation::free:
        free(event, index);
        break;
      case Operation::reset:
        reset(index);
        break;
      case Operation::cycle:
        ++summary_.cycles.turns;
        break;
    }
  }

  void allocate(const Event& event, std::size_t index) {
    ++summary_.allocations;
    summary_.requested_bytes = saturating_sum(summary_.requested_bytes, event.bytes);
    auto& bin = summary_.sizes[bin_of(event.bytes)];
    ++bin.count;
    bin.bytes = saturating_sum(bin.bytes, event.bytes);
    auto& stream = summary_.streams[event.stream];
    ++stream.allocations;
    stream.bytes = saturating_sum(stream.bytes, event.bytes);
    allocated_sizes_.push_back(event.bytes);
    begin(event.id, {event.bytes, index});
  }

  void free(const Event& event, std::size_t index) {
    ++summary_.frees;
    summary_.streams.try_emplace(event.stream);
    if (const auto found = live_.find(event.id); found != live_.end()) {
      end(found->second, index);
      live_.erase(found);
    }
  }

  void reset(std::size_t index) {
    ++summary_.resets;
    // A fresh map each time: clearing one costs its largest size.
    for (const auto& [id, block] : std::exchange(live_, {}))
      end(block, index);
  }

  void begin(std::uint64_t id, const Live& block) {
    live_.emplace(id, block);
    live_bytes_ += block.bytes;
    summary_.peak_live_bytes = std::max(summary_.peak_live_bytes, live_bytes_);
    summary_.peak_live_blocks = std::max<std::uint64_t>(summary_.peak_live_blocks, live_.size());
  }

  void end(const Live& block, std::size_t index) {
    live_bytes_ -= block.bytes;
    if (block.since != initial) ++summary_.lifetimes[bin_of(index - block.since)];
  }

  void finish(const Trace& trace) {
    summary_.final_live_bytes = live_bytes_;
    summary_.final_live_blocks = live_.size();
    summary_.threads = threads_.size();
    for (const auto& [id, block] : live_)
      summary_.never_freed += block.since != initial ? 1U : 0U;

    if (!trace.events.empty()) {
      const auto [earliest, latest] = std::minmax_element(
          trace.events.begin(), trace.events.end(),
          [](const Event& left, const Event& right) { return left.time_ns < right.time_ns; });
      summary_.duration_ns = latest->time_ns - earliest->time_ns;
    }
    if (summary_.cycles.turns != 0) {
      summary_.cycles.evidence = TraceSummary::Cycles::Evidence::events;
    } else if (const auto period = detail::find_period(allocated_sizes_)) {
      const std::size_t turns = (period->end - period->begin) / period->length;
      summary_.cycles = {TraceSummary::Cycles::Evidence::repeating_sizes, turns, period->length,
                         period->begin};
    }
  }

  TraceSummary summary_;
  detail::UntrustedMap<Live> live_;
  std::unordered_set<std::uint32_t> threads_;
  std::vector<std::uint64_t> allocated_sizes_;
  std::uint64_t live_bytes_ = 0;
};

}  // namespace

TraceSummary summarise(const Trace& trace) {
  return Summariser().run(trace);
}

}  // namespace cistern
