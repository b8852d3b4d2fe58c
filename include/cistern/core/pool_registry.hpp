// The pools that stand on one device. A pool joins when it is made and leaves when its last owner
// lets go; in between, whoever runs out of the device's memory can have it trimmed. Thread-safe.
//
// The mutex is held for a look at the list and for nothing else: a pool is trimmed outside it, by a
// counted reference. Whoever drops the last reference to a pool closes it, be it the one who trims.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>

#include "cistern/core/pool.hpp"

namespace cistern {

class PoolRegistry {
 public:
  PoolRegistry() = default;
  PoolRegistry(const PoolRegistry&) = delete;
  PoolRegistry& operator=(const PoolRegistry&) = delete;
  PoolRegistry(PoolRegistry&&) = delete;
  PoolRegistry& operator=(PoolRegistry&&) = delete;
  ~PoolRegistry() = default;

  /// A pool's own business: after it was made, and before it ends. O(1).
  void join(Pool& pool) noexcept;
  void leave(Pool& pool) noexcept;

  /// Has the pools give idle memory back, those that joined first first, until `bytes` have come
  /// back to the device; returns how many did (roughly, while other threads allocate). Only those
  /// that stand on `below`, if it is not null.
  std::size_t trim(std::size_t bytes, const Resource* below = nullptr) noexcept;

  /// A lower bound of what `trim` could get from pools that are not among `except`.
  [[nodiscard]] std::size_t trimmable(const PoolsAbove* except = nullptr) noexcept;

  [[nodiscard]] std::size_t size() const noexcept;

 private:
  /// The first pool that joined after the `place`-th and still has an owner; null behind the last.
  /// Moves `place` on to it.
  Ref<Pool> next(std::uint64_t& place) noexcept;

  mutable std::mutex mutex_;  // guards all below, and the pools' links
  IntrusiveList<Pool, &Pool::in_registry_> pools_;
  std::uint64_t joins_ = 0;
};

}  // namespace cistern
