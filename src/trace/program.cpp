#include "trace/program.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "trace/untrusted_hash.hpp"

namespace cistern::detail {
namespace {

std::uint8_t alignment_bits(std::uint64_t alignment) {
  return static_cast<std::uint8_t>(alignment == 0 ? 0 : std::countr_zero(alignment) + 1);
}

class Compiler {
 public:
  Program run(const Trace& trace) {
    for (const InitialBlock& block : trace.initial_blocks) {
      allocate(block.id,
               Step{.bytes = block.bytes,
                    .stream = block.stream,
                    .alignment_bits = alignment_bits(block.alignment)},
               program_.before);
    }
    program_.steps.reserve(trace.events.size());
    for (const Event& event : trace.events)
      add(event);
    free_all(program_.after);
    return std::move(program_);
  }

 private:
  struct Live {
    std::uint64_t id = 0;
    std::uint64_t bytes = 0;
    std::uint64_t stream = 0;
    bool taken = false;
  };

  void add(const Event& event) {
    switch (event.operation) {
      case Operation::allocate:
        allocate(event.id,
                 Step{.bytes = event.bytes,
                      .stream = event.stream,
                      .alignment_bits = alignment_bits(event.alignment)},
                 program_.steps);
        break;
      case Operation::free:
        if (const auto found = slots_.find(event.id); found != slots_.end()) {
          free(found->second, event.stream, program_.steps);
        }
        break;
      case Operation::reset:
        free_all(program_.steps);
        break;
      case Operation::cycle:
        program_.steps.push_back({.kind = Step::Kind::cycle});
        break;
    }
  }

  void allocate(std::uint64_t id, Step step, std::vector<Step>& out) {
    if (idle_slots_.empty()) {
      idle_slots_.push_back(static_cast<std::uint32_t>(live_.size()));
      live_.emplace_back();
    }
    step.slot = idle_slots_.back();
    idle_slots_.pop_back();
    live_[step.slot] = {.id = id, .bytes = step.bytes, .stream = step.stream, .taken = true};
    slots_.emplace(id, step.slot);
    out.push_back(step);
  }

  void free(std::uint32_t slot, std::uint64_t stream, std::vector<Step>& out) {
    Live& block = live_[slot];
    out.push_back({.bytes = block.bytes, .stream = stream, .slot = slot, .kind = Step::Kind::free});
    block.taken = false;
    slots_.erase(block.id);
    idle_slots_.push_back(slot);
  }

  void free_all(std::vector<Step>& out) {
    for (std::uint32_t slot = 0; slot < live_.size(); ++slot) {
      if (live_[slot].taken) free(slot, live_[slot].stream, out);
    }
    // All are idle: forgotten, so that the next reset visits only those taken since.
    program_.slots = std::max(program_.slots, live_.size());
    live_.clear();
    idle_slots_.clear();
  }

  Program program_;
  UntrustedMap<std::uint32_t> slots_;  // of the live blocks, by id
  std::vector<Live> live_;             // by slot
  // The last freed is taken first: it is still in the CPU's cache.
  std::vector<std::uint32_t> idle_slots_;
};

}  // namespace

Program compile(const Trace& trace) {
  return Compiler().run(trace);
}

}  // namespace cistern::detail
