// What a caller may expect of the blocks it holds, checked: they do not overlap, are as large and
// as aligned as was asked, and, where the memory can be written, keep what was written to them.
#pragma once

#include <cstring>
#include <map>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/device.hpp"
#include "cistern/core/resource.hpp"

namespace cistern::testing {

class Ledger {
 public:
  explicit Ledger(Resource& resource) : resource_(resource), limits_(resource.device().limits()) {}

  /// Allocates and checks; false if the request failed.
  bool allocate(const Request& request) { return add(request, resource_.try_allocate(request)); }

  /// The same for a block that a reset leaves alone.
  bool allocate_held(const Request& request) {
    const std::size_t before = size();
    if (!add(request, resource_.try_allocate_held(request))) return false;
    if (size() > before) is_held_.back() = true;  // zero bytes are no block
    return true;
  }

  /// Resets, and checks that all came back but what is held.
  void reset() {
    std::vector<Block> ended;
    for (std::size_t i = 0; i < blocks_.size();) {
      if (is_held_[i]) {
        ++i;
        continue;
      }
      ended.push_back(forget(i));
    }
    EXPECT_EQ(resource_.reset(), ended.size());
    for (const Block& block : ended)
      EXPECT_FALSE(resource_.is_live(block));
    for (const Block& block : blocks_)
      EXPECT_TRUE(resource_.is_live(block));
  }

  /// Checks the answer to a request and takes it in.
  bool add(const Request& request, const Expected<Block>& block) {
    if (!block) return false;
    EXPECT_GE(block->bytes, request.bytes);
    EXPECT_EQ(block->requested, request.bytes);
    EXPECT_EQ(block->empty(), request.bytes == 0);
    EXPECT_TRUE(is_aligned(*block, std::max(request.alignment, limits_.alignment), limits_));
    if (block->empty()) return true;
    const std::uintptr_t start = start_of(*block);
    const auto after = by_address_.lower_bound(start);
    if (after != by_address_.end()) {
      EXPECT_LE(start + block->bytes, after->first) << "overlaps the next block";
    }
    if (after != by_address_.begin()) {
      EXPECT_LE(std::prev(after)->second, start) << "overlaps the one before";
    }
    by_address_[start] = start + block->bytes;
    requested_ += request.bytes;
    granted_ += block->bytes;
    fill(*block);
    blocks_.push_back(*block);
    is_held_.push_back(false);
    return true;
  }

  /// The same for a batch.
  bool allocate_batch(std::span<const Request> requests) {
    std::vector<Block> blocks(requests.size(), Block{.bytes = 1});  // that nothing stays as it was
    const Expected<void> granted = resource_.try_allocate_batch(requests, blocks);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (granted) {
        add(requests[i], blocks[i]);
      } else {
        EXPECT_TRUE(blocks[i].empty() && blocks[i].bytes == 0);
      }
    }
    return granted.has_value();
  }

  /// Grows the `index`-th of the blocks held and checks; false, with nothing changed, if that
  /// failed.
  bool grow(std::size_t index, std::size_t bytes) {
    const Block before = blocks_.at(index);
    const Expected<Block> grown = resource_.try_grow(before, bytes);
    expect_kept(before);
    if (!grown) return false;
    EXPECT_GE(grown->bytes, std::max(bytes, before.bytes));
    EXPECT_EQ(grown->requested, std::max(bytes, before.requested));
    EXPECT_EQ(grown->memory, before.memory);
    EXPECT_EQ(grown->offset, before.offset);
    const Expected<void> stale = resource_.also_used_on(before, {});
    EXPECT_TRUE(!stale && stale.error().code == Errc::invalid_block);
    const auto place = by_address_.find(start_of(before));
    place->second = place->first + grown->bytes;
    if (const auto next = std::next(place); next != by_address_.end()) {
      EXPECT_LE(place->second, next->first) << "grew over the next block";
    }
    requested_ += grown->requested - before.requested;
    granted_ += grown->bytes - before.bytes;
    fill(*grown);
    blocks_[index] = *grown;
    return true;
  }

  /// Frees the `index`-th of the blocks held (the last one takes its place).
  void free(std::size_t index, Stream stream = {}) {
    EXPECT_TRUE(resource_.deallocate(forget(index), stream));
  }

  void free_all() {
    while (!blocks_.empty())
      free(blocks_.size() - 1);
  }

  /// The stack's laws hold, and its live figures are the ledger's.
  void expect_in_order() const {
    EXPECT_EQ(resource_.validate(), "");
    const Stats stats = resource_.stats();
    EXPECT_EQ(stats.live_blocks.current, blocks_.size());
    EXPECT_EQ(stats.live_requested.current, requested_);
    EXPECT_EQ(stats.live_granted.current, granted_);
    EXPECT_GE(stats.reserved.current, stats.live_granted.current + stats.cached.current);
  }

  [[nodiscard]] const std::vector<Block>& blocks() const { return blocks_; }
  [[nodiscard]] std::size_t size() const { return blocks_.size(); }

 private:
  Block forget(std::size_t index) {
    const Block block = blocks_.at(index);
    blocks_[index] = blocks_.back();
    blocks_.pop_back();
    is_held_[index] = is_held_.back();
    is_held_.pop_back();
    expect_kept(block);
    by_address_.erase(start_of(block));
    requested_ -= block.requested;
    granted_ -= block.bytes;
    return block;
  }

  // Only the ends of large blocks are written: the middle would be the same test, a thousand times
  // slower.
  static constexpr std::size_t written = 4096;

  // Where memory has no address, each object has a place of its own.
  [[nodiscard]] std::uintptr_t start_of(const Block& block) {
    if (limits_.memory_is_address) return reinterpret_cast<std::uintptr_t>(block.memory);
    const auto place = objects_.try_emplace(block.memory, objects_.size() + 1).first;
    return (place->second << 44U) + block.offset;
  }
  [[nodiscard]] static int pattern(const Block& block) {
    return static_cast<int>(block.generation * 31 % 251) + 1;
  }

  void fill(const Block& block) const {
    if (!limits_.host_addressable) return;
    auto* bytes = static_cast<unsigned char*>(block.memory);
    const std::size_t length = std::min(block.bytes, written);
    std::memset(bytes, pattern(block), length);
    std::memset(bytes + block.bytes - length, pattern(block), length);
  }

  void expect_kept(const Block& block) const {
    if (!limits_.host_addressable) return;
    const auto* bytes = static_cast<const unsigned char*>(block.memory);
    const std::size_t length = std::min(block.bytes, written);
    for (std::size_t i = 0; i < length; ++i) {
      ASSERT_EQ(bytes[i], pattern(block)) << "byte " << i << " was overwritten";
      ASSERT_EQ(bytes[block.bytes - 1 - i], pattern(block))
          << "the " << i << "-th last byte was overwritten";
    }
  }

  Resource& resource_;
  const DeviceLimits& limits_;
  std::vector<Block> blocks_;
  std::vector<bool> is_held_;  // of each block
  std::map<std::uintptr_t, std::uintptr_t> by_address_;
  std::map<const void*, std::uintptr_t> objects_;  // in the order they were seen
  std::size_t requested_ = 0;
  std::size_t granted_ = 0;
};

/// Everything was given back: nothing live, and nothing reserved once the idle memory is trimmed.
inline void expect_nothing_held(Resource& resource) {
  EXPECT_EQ(resource.validate(), "");
  EXPECT_EQ(resource.stats().live_blocks.current, 0U);
  EXPECT_EQ(resource.stats().live_requested.current, 0U);
  EXPECT_EQ(resource.stats().live_granted.current, 0U);
  resource.trim();
  EXPECT_EQ(resource.stats().cached.current, 0U);
  EXPECT_EQ(resource.stats().reserved.current, 0U);
  EXPECT_EQ(resource.validate(), "");
}

/// The same, where the device was asked for each block once: none was grown, and no pages mapped.
inline void expect_all_accounted_for(Resource& resource) {
  expect_nothing_held(resource);
  if (!resource.device().limits().extensible) {  // extending takes a call, giving back one for all
    EXPECT_EQ(resource.stats().device_allocations, resource.stats().device_frees);
  }
}

}  // namespace cistern::testing
