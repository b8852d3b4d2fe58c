// Pools that a program does not have to pass around: whoever has a command queue asks for the pool
// of its context, and all who ask for the same get the same.
//
// A pool lives as long as anyone holds it, and keeps the context; nothing is kept by a list
// somewhere that nobody empties. So it goes when those who use the context let go of it.
#pragma once

#include <cstddef>
#include <map>
#include <memory>

#include "cistern/core/ref.hpp"
#include "cistern/device/opencl.hpp"
#include "cistern/stack/stack.hpp"

namespace cistern {

/// A cache with bounds on the memory of one context. Thread-safe.
class OpenClPool {
 public:
  struct Options {
    std::size_t max_cached_bytes = std::size_t{4} << 30;
    std::size_t max_buffers_per_bucket = 16;

    auto operator<=>(const Options&) const = default;
  };

  /// `hit_rate` is 0 before the first request; `per_bucket` tells how many buffers of a capacity
  /// are cached.
  struct PoolStats {
    std::size_t hits = 0;
    std::size_t misses = 0;
    double hit_rate = 0;
    std::size_t bytes_cached = 0;
    std::size_t bytes_allocated = 0;  // now held of the driver, in use or cached
    std::map<std::size_t, std::size_t> per_bucket;
  };

  /// Memory to be used on `queue`, of the pool's context. Throws OutOfMemory, or
  /// std::invalid_argument for another context's queue.
  [[nodiscard]] Buffer buffer(_cl_command_queue* queue, std::size_t bytes);

  [[nodiscard]] PoolStats get_stats() const;
  /// Gives all cached buffers back to the driver.
  void clear() noexcept { stack_->trim(); }

  [[nodiscard]] OpenClDevice& device() const noexcept { return *device_; }
  [[nodiscard]] Resource& resource() const noexcept { return *stack_; }

 private:
  friend class OpenClPools;
  OpenClPool(Ref<OpenClDevice> device, const Options& options);

  Ref<OpenClDevice> device_;
  Stack stack_;
};

/// The pool of buffers of the queue's context and these options, made if there is none. Throws
/// DeviceAbsent where there is no OpenCL, else what making an OpenClDevice throws. Thread-safe.
[[nodiscard]] std::shared_ptr<OpenClPool> get_persistent_pool(
    _cl_command_queue* queue, const OpenClPool::Options& options = {});

/// The same of pinned memory, for staging.
[[nodiscard]] std::shared_ptr<OpenClPool> get_pinned_pool(_cl_command_queue* queue,
                                                          const OpenClPool::Options& options = {});

}  // namespace cistern
