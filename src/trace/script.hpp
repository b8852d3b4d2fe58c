// Writes the events of a program that is made up: what it allocates, frees and begins anew.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "cistern/trace/event.hpp"

namespace cistern::detail {

class Script {
 public:
  struct Block {
    std::uint64_t id = 0;
    std::uint64_t bytes = 0;
  };
  using Blocks = std::vector<Block>;

  Block allocate(std::uint64_t bytes, std::uint64_t stream) {
    const Block block{next_id_++, bytes};
    add(Operation::allocate, block, stream);
    return block;
  }
  void free(const Block& block, std::uint64_t stream) { add(Operation::free, block, stream); }

  Blocks allocate_all(const std::vector<std::uint64_t>& sizes, std::uint64_t stream) {
    Blocks blocks;
    blocks.reserve(sizes.size());
    for (const std::uint64_t bytes : sizes)
      blocks.push_back(allocate(bytes, stream));
    return blocks;
  }
  /// The last first, as scopes end.
  void free_all(const Blocks& blocks, std::uint64_t stream) {
    for (std::size_t i = blocks.size(); i-- > 0;)
      free(blocks[i], stream);
  }
  /// Blocks that live for some work alone.
  void use(const std::vector<std::uint64_t>& sizes, std::uint64_t stream) {
    free_all(allocate_all(sizes, stream), stream);
  }

  /// A turn of the program's loop begins.
  void cycle() { add(Operation::cycle, {.id = ++turns_, .bytes = 0}, 0); }

  /// The script is used up.
  Trace finish(std::string_view name) {
    trace_.name = name;
    trace_.source = "cistern";
    return std::move(trace_);
  }

 private:
  void add(Operation operation, const Block& block, std::uint64_t stream) {
    Event event;
    event.sequence = trace_.events.size();
    event.id = block.id;
    event.bytes = block.bytes;
    event.stream = stream;
    event.operation = operation;
    trace_.events.push_back(event);
  }

  Trace trace_;
  std::uint64_t next_id_ = 0;
  std::uint64_t turns_ = 0;
};

}  // namespace cistern::detail
