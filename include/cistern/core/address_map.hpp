// Which block stands at an address, for callers that keep only a pointer: the standard library, C,
// the hooks of other frameworks. It stands at the edge of a stack, which itself never looks an
// address up. Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <memory_resource>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "cistern/core/block.hpp"

namespace cistern {

/// Blocks by the address of their first byte. Operations are O(1), and on different addresses
/// seldom wait for one another.
class AddressMap {
 public:
  AddressMap() = default;
  AddressMap(const AddressMap&) = delete;
  AddressMap& operator=(const AddressMap&) = delete;
  AddressMap(AddressMap&&) = delete;
  AddressMap& operator=(AddressMap&&) = delete;
  ~AddressMap() = default;

  /// False, with nothing changed, if the host is out of memory or a block of this address is in the
  /// map already. The caller then gives the block back.
  [[nodiscard]] bool insert(const Block& block) noexcept;

  /// Takes the block of this address out of the map; nothing if there is none. Allocates nothing.
  [[nodiscard]] std::optional<Block> take(void* address) noexcept;

  /// Takes any block out, for emptying the map; nothing if it is empty.
  [[nodiscard]] std::optional<Block> take_any() noexcept;

  /// Blocks in the map, exact at rest.
  [[nodiscard]] std::size_t size() const noexcept;

 private:
  // Two threads meet in a shard only if their addresses do; each has cache lines of its own. The
  // pool keeps the nodes of the table for the next blocks, so that at rest in a program's cycle
  // nothing is allocated.
  struct alignas(64) Shard {
    mutable std::mutex mutex;  // guards all below
    std::pmr::unsynchronized_pool_resource nodes{std::pmr::new_delete_resource()};
    std::pmr::unordered_map<void*, Block> blocks{&nodes};
  };

  static constexpr std::size_t shard_bits = 5;

  Shard& shard_of(void* address) noexcept;

  std::array<Shard, std::size_t{1} << shard_bits> shards_;
};

}  // namespace cistern
