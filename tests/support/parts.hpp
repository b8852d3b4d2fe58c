// The bookkeeping of a coalescing pool by itself: regions at addresses of the test's choice, blocks
// whose lives the test begins and ends, and its laws checked after every step.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/pool/suballocator.hpp"

namespace cistern::testing {

class Parts {
 public:
  using Want = Suballocator::Want;

  explicit Parts(const Suballocator::Options& options = {}) : parts_(nullptr, options) {}
  [[nodiscard]] Suballocator& operator*() { return parts_; }
  [[nodiscard]] Suballocator* operator->() { return &parts_; }

  /// The region at `start` becomes idle memory; null if there was no memory for the records.
  Region* add(std::uintptr_t start, std::size_t bytes, Stream stream = {},
              std::size_t size_class = 0) {
    const Chunk* hole = parts_.adopt({.bytes = bytes}, start, size_class, stream);
    expect_lawful();
    return hole != nullptr ? region_at(start) : nullptr;
  }

  bool remove(Region* region) {
    const bool is_removed = parts_.remove(*region);
    if (is_removed) parts_.recycle(*region);
    expect_lawful();
    return is_removed;
  }

  Chunk* take(std::size_t bytes, Stream stream = {}) {
    return begin(parts_.take({.bytes = bytes, .stream = stream}));
  }
  Chunk* take(const Want& want) { return begin(parts_.take(want)); }

  /// Begins the life of what one of the ways to take a block answered.
  Chunk* begin(Chunk* chunk) const {
    if (chunk != nullptr) chunk->begin_life();
    expect_lawful();
    return chunk;
  }

  void put(Chunk* block, Stream stream = {}) {
    block->end_life();
    parts_.put(block, stream);
    expect_lawful();
  }

  [[nodiscard]] Region* region_at(std::uintptr_t start) const {
    Region* found = nullptr;
    parts_.each_region([&](Region& region) {
      if (region.start == start) found = &region;
    });
    return found;
  }

  /// Where the holes are and how large, in order of address.
  [[nodiscard]] std::vector<std::pair<std::uintptr_t, std::size_t>> holes() const {
    std::vector<std::pair<std::uintptr_t, std::size_t>> all;
    parts_.each_hole([&](const Chunk& hole) { all.emplace_back(hole.start, hole.bytes); });
    std::sort(all.begin(), all.end());
    return all;
  }

  void expect_lawful() const { EXPECT_EQ(parts_.validate(), ""); }

 private:
  Suballocator parts_;
};

using Places = std::vector<std::pair<std::uintptr_t, std::size_t>>;

}  // namespace cistern::testing
