// Which block stands at an address, for callers that keep only a pointer: the standard library, C,
// the hooks of other frameworks. It stands at the edge of a stack, which itself never looks an
// address up. Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "cistern/core/block.hpp"

namespace cistern {

/// Blocks by the address of their first byte. Operations are O(1), and on different addresses
/// seldom wait for one another. The host's memory is used only to hold more blocks than ever
/// before, and kept until the map is destroyed.
class AddressMap {
 public:
  struct Entry {
    Block block;
    Stream stream;  // it was requested for, where that was said
  };

  AddressMap() = default;
  AddressMap(const AddressMap&) = delete;
  AddressMap& operator=(const AddressMap&) = delete;
  AddressMap(AddressMap&&) = delete;
  AddressMap& operator=(AddressMap&&) = delete;
  ~AddressMap() = default;

  /// False, with nothing changed, if the host is out of memory, if a block of this address is in
  /// the map already, or if the address is null. The caller then gives the block back.
  [[nodiscard]] bool insert(const Block& block, Stream stream = {}) noexcept;

  /// Takes the block of this address out of the map; nothing if there is none. Allocates nothing.
  [[nodiscard]] std::optional<Entry> take(void* address) noexcept;

  /// The same, and leaves it there.
  [[nodiscard]] std::optional<Entry> find(void* address) const noexcept;

  /// Takes all blocks out and calls `visit(entry)` for each, outside every lock.
  template <class Visit>
  void drain(Visit&& visit) {
    for (Shard& shard : shards_) {
      Table taken;
      {
        const std::lock_guard lock(shard.mutex);
        std::swap(taken, shard.table);
      }
      taken.each(visit);
    }
  }

  /// Blocks in the map, exact at rest.
  [[nodiscard]] std::size_t size() const noexcept;

  /// The law of the map that does not hold; empty if all hold. For tests: O(capacity).
  [[nodiscard]] std::string validate() const;

 private:
  /// A hash table with linear probing. It is not the standard one, because that allocates for each
  /// block, and with a pool of nodes does not survive the host's running out of memory.
  class Table {
   public:
    [[nodiscard]] bool insert(const Entry& entry) noexcept;
    [[nodiscard]] std::optional<Entry> take(const void* address) noexcept;
    [[nodiscard]] std::optional<Entry> entry_at(const void* address) const noexcept;
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] std::string validate() const;

    template <class Visit>
    void each(Visit& visit) const {
      for (std::size_t i = 0; i < capacity(); ++i) {
        if (slots_[i].block.memory != nullptr) visit(slots_[i]);
      }
    }

   private:
    [[nodiscard]] std::size_t capacity() const noexcept {
      return slots_ == nullptr ? 0 : std::size_t{1} << bits_;
    }
    [[nodiscard]] std::size_t next(std::size_t slot) const noexcept {
      return (slot + 1) & (capacity() - 1);
    }
    [[nodiscard]] std::size_t home(const void* address) const noexcept;
    [[nodiscard]] std::size_t find(const void* address) const noexcept;
    [[nodiscard]] bool grow() noexcept;

    std::unique_ptr<Entry[]> slots_;  // a null address marks an empty one
    unsigned bits_ = 0;               // of the capacity, a power of two
    std::size_t size_ = 0;
  };

  // Two threads meet in a shard only if their addresses do; each has cache lines of its own.
  struct alignas(64) Shard {
    mutable std::mutex mutex;
    Table table;  // guarded by it
  };

  static constexpr unsigned shard_bits = 5;

  static std::size_t shard_of(const void* address) noexcept;

  std::array<Shard, std::size_t{1} << shard_bits> shards_;
};

}  // namespace cistern
