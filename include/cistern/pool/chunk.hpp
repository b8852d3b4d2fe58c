// The parts of the memory that a coalescing pool obtained. A region is a block of the upstream; it
// is tiled by chunks, each a block in a caller's hands or a hole, linked in the order of their
// addresses. Regions that touch may be joined: then their chunks are one list, and a chunk may
// reach from one into the next.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cistern/core/intrusive_list.hpp"
#include "cistern/core/intrusive_tree.hpp"
#include "cistern/core/node.hpp"

namespace cistern {

struct Chunk;

/// `start` is an address. Where the device's memory has none, it is a place in an address space of
/// the pool's own, in which no two regions overlap.
struct Region : Node {
  Block upstream;
  std::uintptr_t start = 0;
  std::size_t bytes = 0;
  std::size_t size_class = 0;
  Region* joined_before = nullptr;  // the regions that touch this one and are joined with it
  Region* joined_after = nullptr;
  Chunk* first = nullptr;   // of a region without joined_before: the chunk that begins it
  Chunk* last = nullptr;    // of a region without joined_after: the chunk that ends it
  std::size_t blocks = 0;   // live ones that touch it; it is idle if there are none
  Stream last_used{};       // once it is on its way upstream
  bool is_growing = false;  // the upstream is being asked to extend it
  TreeLinks<Region> by_address;
  ListLinks<Region> by_idleness;
  Region* next_free = nullptr;

  [[nodiscard]] std::uintptr_t end() const noexcept { return start + bytes; }
};

class HoleIndex;

// What a search and a merge read stands first, in one line of the CPU's cache.
struct alignas(64) Chunk : Node {
  std::uintptr_t start = 0;
  std::size_t bytes = 0;
  Chunk* before = nullptr;  // neighbours by address, where they touch
  Chunk* after = nullptr;
  TreeLinks<Chunk> by_fit;

  HoleIndex* index = nullptr;     // of a hole: where it is found; else null
  Region* region = nullptr;       // in which it starts
  Stream stream{};                // of a hole: in whose order its memory was last used
  std::size_t requested = 0;      // of a block
  std::size_t largest_below = 0;  // of a hole in order of addresses: the largest in its subtree
  Chunk* next_free = nullptr;

  [[nodiscard]] bool is_hole() const noexcept { return index != nullptr; }
  [[nodiscard]] std::uintptr_t end() const noexcept { return start + bytes; }
};

}  // namespace cistern
