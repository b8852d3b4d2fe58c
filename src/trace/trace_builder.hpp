// What the importers share. Programs record addresses, which are used again and again; a trace
// names every block by an id of its own. The builder translates, and knows what last happened at an
// address, so that an importer can tell a sound recording from a contradictory one by the rules of
// its format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cistern/trace/event.hpp"
#include "trace/untrusted_hash.hpp"

namespace cistern::detail {

/// Small numbers for what other programs name by handles, in order of appearance.
class Numbering {
 public:
  std::uint64_t operator()(std::uint64_t handle) {
    return numbers_.try_emplace(handle, numbers_.size()).first->second;
  }

 private:
  UntrustedMap<std::uint64_t> numbers_;
};

class TraceBuilder {
 public:
  /// The last block that was seen at an address.
  struct Block {
    std::uint64_t id;
    std::uint64_t bytes;
    std::uint64_t origin;  // where its recording states it: a line or an event
    bool live;
  };

  /// Where in its recording an event stands, and what it says of itself beside its block.
  struct Context {
    std::uint64_t origin = 0;
    std::uint64_t time_ns = 0;
    std::uint64_t stream = 0;  // the recording's handle; 0 is the default stream
    std::uint64_t thread = 0;  // likewise
  };

  TraceBuilder() { streams_(0); }

  /// The last block at `address`, or null if nothing named that address so far.
  [[nodiscard]] const Block* at(std::uint64_t address) const {
    const auto found = blocks_.find(address);
    return found == blocks_.end() ? nullptr : &found->second;
  }

  /// Requires that no block is live at `address`.
  void allocate(std::uint64_t address, std::uint64_t bytes, const Context& context) {
    const Block block{next_id_++, bytes, context.origin, true};
    blocks_.insert_or_assign(address, block);
    add(Operation::allocate, block, context);
  }

  /// Requires that a block is live at `address`.
  void free(std::uint64_t address, const Context& context) {
    Block& block = blocks_.at(address);
    block.live = false;
    add(Operation::free, block, context);
  }

  /// Adds a block that must have been live before the first event. Requires that nothing named
  /// `address` so far.
  void begin_with(std::uint64_t address, std::uint64_t bytes, const Context& context) {
    const Block block{next_id_++, bytes, context.origin, true};
    blocks_.emplace(address, block);
    trace_.initial_blocks.push_back({block.id, bytes, 0, streams_(context.stream)});
  }

  /// How many events there are so far.
  [[nodiscard]] std::size_t events() const { return trace_.events.size(); }

  /// The trace's number for a stream's handle.
  [[nodiscard]] std::uint64_t stream(std::uint64_t handle) { return streams_(handle); }

  /// The trace, without a name. The builder is used up.
  Trace finish(const char* source) {
    trace_.source = source;
    return std::move(trace_);
  }

 private:
  void add(Operation operation, const Block& block, const Context& context) {
    Event event;
    event.sequence = trace_.events.size();
    event.time_ns = context.time_ns;
    event.id = block.id;
    event.bytes = block.bytes;
    event.stream = streams_(context.stream);
    event.thread = static_cast<std::uint32_t>(threads_(context.thread));
    event.operation = operation;
    trace_.events.push_back(event);
  }

  UntrustedMap<Block> blocks_;
  Numbering streams_;
  Numbering threads_;
  Trace trace_;
  std::uint64_t next_id_ = 0;
};

}  // namespace cistern::detail
