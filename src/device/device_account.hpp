// What the objects for one device of the machine share: the pools on it, and how much of its memory
// they hold together. Lives as long as the process, since a stack may be closed as late as the
// program likes. Thread-safe.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cistern/core/pool_registry.hpp"

namespace cistern {

class DeviceAccount {
 public:
  [[nodiscard]] PoolRegistry& registry() noexcept { return registry_; }

  /// Adds `bytes`, if no more than `most` are held then.
  bool take(std::size_t bytes, std::size_t most) noexcept;
  void put(std::size_t bytes) noexcept { held_.fetch_sub(bytes, std::memory_order_relaxed); }

  [[nodiscard]] std::size_t held() const noexcept { return held_.load(std::memory_order_relaxed); }

 private:
  PoolRegistry registry_;
  std::atomic<std::size_t> held_{0};
};

/// Whose memory it is: the device's; the host's, for what a device with memory of its own has
/// there; or that which moves between the two.
enum class MemoryOwner : std::uint8_t { device, host, both };

/// That of the `id`-th device of a kind (a literal) as its driver numbers or names them. Throws
/// std::bad_alloc.
DeviceAccount& device_account(std::string_view kind, std::uintptr_t id, MemoryOwner owner);

}  // namespace cistern
