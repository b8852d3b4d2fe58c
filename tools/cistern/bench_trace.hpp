// A recorded trace as a workload, so that allocators that are no stacks of ours can play it, too.
// What the replay does for stacks (a clock, checks, streams) is left out: all runs on one stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "bench_workloads.hpp"
#include "cistern/trace/event.hpp"

namespace cistern::command {

/// A turn begins with the blocks that were live before the first event and ends with nothing live.
class TraceTurn {
 public:
  /// Empty blocks are left out. Throws JobFailed if there are no others.
  explicit TraceTurn(const Trace& trace);

  template <class Subject>
  void turn(Subject& subject) const {
    std::vector<typename Subject::Handle> blocks(places_);
    for (const Step& step : *steps_) {
      if (step.operation == Operation::allocate) {
        blocks[step.place] = subject.allocate(step.bytes);
        keep(Subject::address(blocks[step.place]));
      } else if (step.operation == Operation::free) {
        subject.free(blocks[step.place], step.bytes);
      } else if constexpr (requires { subject.cycle(); }) {
        subject.cycle();
      }
    }
  }
  [[nodiscard]] static std::size_t warm_up_turns() noexcept { return 1; }
  [[nodiscard]] std::size_t peak_live() const noexcept { return peak_live_; }

  std::size_t operations = 0;  // of a turn: allocations and frees

 private:
  struct Step {
    std::size_t bytes = 0;
    std::uint32_t place = 0;  // of the block, among those that live together
    Operation operation = Operation::cycle;
  };

  std::shared_ptr<const std::vector<Step>> steps_;  // one for all subjects: there may be millions
  std::size_t places_ = 0;
  std::size_t peak_live_ = 0;
};

}  // namespace cistern::command
