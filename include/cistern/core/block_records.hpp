// What an adaptor keeps of the blocks that it hands out: a record of each, the live figures, and
// whether the last of them is home once the owners have left. Thread-safe, by one lock.
#pragma once

#include <cstddef>
#include <mutex>
#include <optional>
#include <span>

#include "cistern/core/block.hpp"
#include "cistern/core/node.hpp"
#include "cistern/core/slab.hpp"
#include "cistern/core/stats.hpp"

namespace cistern {

class BlockRecords {
 public:
  struct Record : Node {
    Block below;           // as the upstream handed it out
    bool spilled = false;  // it came from another upstream than the first choice
    Record* next_free = nullptr;
  };

  explicit BlockRecords(const Resource* owner) noexcept : owner_(owner) {}

  /// The owner's block for one of an upstream's; nothing if the host has no memory for the record.
  [[nodiscard]] std::optional<Block> hand_out(const Block& below, bool spilled = false) noexcept {
    const std::lock_guard lock(mutex_);
    Record* record = records_.take();
    if (record == nullptr) return std::nullopt;
    record->below = below;
    record->spilled = spilled;
    stats_.count_grant(below.requested, below.bytes);
    if (spilled) stats_.spilled.rise(below.bytes);
    Block block = below;
    block.node = record;
    block.generation = record->begin_life();
    return block;
  }

  /// The same for a batch, in place; empty blocks stay empty. False, with all blocks as they were,
  /// if the host has no memory for the records.
  [[nodiscard]] bool hand_out(std::span<Block> blocks) noexcept {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (blocks[i].empty()) continue;
      Record* record = records_.take();
      if (record == nullptr) {
        take_back(blocks.first(i));
        return false;
      }
      record->below = blocks[i];
      record->spilled = false;
      blocks[i].node = record;
    }
    for (Block& block : blocks) {
      if (block.empty()) continue;
      stats_.count_grant(block.requested, block.bytes);
      block.generation = block.node->begin_life();
    }
    return true;
  }

  /// The record of a live block; null for any other.
  [[nodiscard]] Record* find(const Block& block) const noexcept {
    return block.node->names(block, owner_) ? static_cast<Record*>(block.node) : nullptr;
  }

  /// The owner's block after the upstream's has grown to `below`.
  [[nodiscard]] Block grow(Record& record, const Block& below) noexcept {
    const std::lock_guard lock(mutex_);
    const std::size_t more = below.bytes - record.below.bytes;
    stats_.count_growth(below.requested - record.below.requested, more);
    if (record.spilled) stats_.spilled.rise(more);
    record.below = below;
    Block block = below;
    block.node = &record;
    block.generation = record.renew_life();
    return block;
  }

  /// Ends a record whose block is home. True if the owner is to destroy itself.
  [[nodiscard]] bool end(Record& record) noexcept {
    const std::lock_guard lock(mutex_);
    stats_.count_free(record.below.requested, record.below.bytes);
    if (record.spilled) stats_.spilled.fall(record.below.bytes);
    record.end_life();
    records_.put(&record);
    return is_over();
  }

  /// The owner's own owners have left. True if it is to destroy itself.
  [[nodiscard]] bool abandon() noexcept {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    return is_over();
  }

  void count_failure() noexcept {
    const std::lock_guard lock(mutex_);
    ++stats_.failures;
  }
  void count_refused_free() noexcept {
    const std::lock_guard lock(mutex_);
    ++stats_.refused_frees;
  }

  /// The figures that are an outermost stage's, and what is spilled.
  [[nodiscard]] Stats stats() const noexcept {
    const std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peaks(const Stats& floor) noexcept {
    const std::lock_guard lock(mutex_);
    stats_.reset_live_peaks(floor);
    stats_.spilled.reset_peak(0);
  }

  [[nodiscard]] Outstanding outstanding() const noexcept {
    const std::lock_guard lock(mutex_);
    Outstanding out;
    records_.each([&](const Record& record) {
      if (record.is_live()) out.add(record.below.bytes);
    });
    return out;
  }

  /// The law that does not hold; null if all hold.
  [[nodiscard]] const char* validate() const noexcept {
    const std::lock_guard lock(mutex_);
    Stats found;
    records_.each([&](const Record& record) {
      if (!record.is_live()) return;
      found.count_grant(record.below.requested, record.below.bytes);
      if (record.spilled) found.spilled.rise(record.below.bytes);
    });
    if (stats_.live_blocks.current != found.live_blocks.current)
      return "live_blocks is the number of live records";
    if (stats_.live_requested.current != found.live_requested.current)
      return "live_requested is the sum of the live records";
    if (stats_.live_granted.current != found.live_granted.current)
      return "live_granted is the sum of the live records";
    if (stats_.spilled.current != found.spilled.current)
      return "spilled is the sum of the live records from elsewhere";
    if (stats_.allocations - stats_.frees != found.live_blocks.current)
      return "allocations less frees are live";
    return nullptr;
  }

 private:
  void take_back(std::span<Block> blocks) noexcept {
    for (Block& block : blocks) {
      if (block.empty()) continue;
      auto* record = static_cast<Record*>(block.node);
      block = record->below;
      records_.put(record);
    }
  }
  [[nodiscard]] bool is_over() const noexcept {
    return abandoned_ && stats_.live_blocks.current == 0;
  }

  const Resource* owner_;
  mutable std::mutex mutex_;  // guards all below
  Slab<Record> records_{owner_};
  Stats stats_;
  bool abandoned_ = false;
};

}  // namespace cistern
