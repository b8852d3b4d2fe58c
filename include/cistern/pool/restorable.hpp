// Bringing a pool into a state that was recorded: its regions, what is live in them and where. A
// pool cannot be asked for an address, so that whoever wants to go on from where a recorded run
// stood (the replay of a snapshot) tells the pool all at once, before its first request.
//
// Implementations are as thread-safe as the pool they belong to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cistern/core/block.hpp"
#include "cistern/core/error.hpp"

namespace cistern {

/// What the pool had obtained in one piece from below.
struct RecordedRegion {
  std::uintptr_t address = 0;
  std::size_t bytes = 0;
  Stream stream{};     // whose requests it serves
  bool small = false;  // it serves small requests, where the pool keeps them apart
};

/// A block that was live. What lies between the blocks of a region is idle.
struct RecordedBlock {
  std::uintptr_t address = 0;
  std::size_t granted = 0;    // bytes, `requested` at least
  std::size_t requested = 0;  // bytes
  Stream stream{};
};

class RestorablePool {
 public:
  RestorablePool(const RestorablePool&) = delete;
  RestorablePool& operator=(const RestorablePool&) = delete;
  RestorablePool(RestorablePool&&) = delete;
  RestorablePool& operator=(RestorablePool&&) = delete;

  /// Makes a pool that holds nothing hold `regions` with `blocks` live in them, and returns the
  /// blocks, in their order. Asks the upstream for each region, in their order, and expects it at
  /// its address. Requires that the blocks stand in order of address, each inside one region, and
  /// do not overlap. O(blocks log blocks); allocates.
  ///
  /// Errors: what the upstream refuses a region with; invalid_block where it gave one elsewhere, or
  /// the pool is not empty, or the state is not one of this pool (an address or a size that it
  /// could not have granted). The pool then holds nothing.
  [[nodiscard]] virtual Expected<std::vector<Block>> restore(
      std::span<const RecordedRegion> regions, std::span<const RecordedBlock> blocks) = 0;

  /// Gives the region at `address` back upstream, which the recorded pool did at this point. False,
  /// and nothing changes, if there is none or something is live in it.
  virtual bool give_back(std::uintptr_t address) noexcept = 0;

 protected:
  RestorablePool() = default;
  ~RestorablePool() = default;
};

}  // namespace cistern
