// What the objects for one device of the machine share: the pools on it, and how much of its memory
// they hold together. Lives as long as the process, since a stack may be closed as late as the
// program likes. Thread-safe.
#pragma once

#include <atomic>
#include <cstddef>

#include "cistern/core/pool_registry.hpp"
#include "device/opencl_api.hpp"

namespace cistern {

class OpenClAccount {
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

enum class OpenClOwner : bool { device, host };

/// That of the device's memory; or of the host's, for what a device with memory of its own has
/// there. Throws std::bad_alloc.
OpenClAccount& opencl_account(cl_device_id device, OpenClOwner owner);

}  // namespace cistern
