// The values that travel through a stack: what is asked for, what is handed out, and in which
// stream's order.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace cistern {

struct Node;

/// A device's queue in whose order a block is used. The id of a stream is never used again; its
/// handle may be. Id 0 is the default stream, and the only one where the device has no queues.
struct Stream {
  void* handle = nullptr;
  std::uint64_t id = 0;

  /// Set in the id of a queue that does not run what is enqueued in order.
  static constexpr std::uint64_t out_of_order = std::uint64_t{1} << 63U;
  [[nodiscard]] bool runs_out_of_order() const noexcept { return (id & out_of_order) != 0; }

  friend bool operator==(const Stream&, const Stream&) = default;
};

/// `alignment` is a power of two, or 0 for the device's default. Zero `bytes` is answered with the
/// empty block. (32 bytes: a larger argument is passed by value at the price of a string
/// operation.)
struct Request {
  std::size_t bytes = 0;
  std::size_t alignment = 0;
  Stream stream{};
};

/// What a resource hands out and takes back, by value: a handle, of which only `memory`, `offset`
/// and `bytes` concern the program. The empty block has no node; it costs nothing, is counted
/// nowhere, and may be freed any number of times.
struct Block {
  void* memory = nullptr;        // an address, or the device's object (cl_mem)
  std::size_t offset = 0;        // bytes from the start of `memory`; 0 where memory is an address
  std::size_t bytes = 0;         // granted: the capacity, at least what was requested
  std::size_t requested = 0;     // as in the request
  Node* node = nullptr;          // the owning stage's record of this block: free needs no lookup
  std::uint64_t generation = 0;  // of that record: a stale or repeated free is refused

  [[nodiscard]] bool empty() const noexcept { return node == nullptr; }
};

/// The same as naming all of its members, for fast paths: they are written two at a time. A copy is
/// read so, and a CPU makes it wait for stores that were narrower (8 to 12 ns a pair, measured).
[[nodiscard]] inline Block make_block(void* memory, std::size_t offset, std::size_t bytes,
                                      std::size_t requested, Node* node,
                                      std::uint64_t generation) noexcept {
  using Pair [[gnu::vector_size(16), gnu::aligned(8), gnu::may_alias]] = std::uint64_t;
  Block block;
  auto* const pairs = reinterpret_cast<Pair*>(&block);
  pairs[0] = Pair{std::bit_cast<std::uint64_t>(memory), offset};
  pairs[1] = Pair{bytes, requested};
  pairs[2] = Pair{std::bit_cast<std::uint64_t>(node), generation};
  return block;
}

}  // namespace cistern
