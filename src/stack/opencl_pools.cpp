#include "cistern/stack/opencl_pools.hpp"

#include <mutex>
#include <string>
#include <tuple>
#include <utility>

namespace cistern {

OpenClPool::OpenClPool(Ref<OpenClDevice> device, const Options& options)
    : device_(std::move(device)),
      stack_(open("cache(buckets=table, max_bytes=" + std::to_string(options.max_cached_bytes) +
                      ", per_bucket=" + std::to_string(options.max_buffers_per_bucket) +
                      ", idle_ratio=none) > context",
                  {{"context", device_}})) {}

Buffer OpenClPool::buffer(_cl_command_queue* queue, std::size_t bytes) {
  return stack_.buffer({.bytes = bytes, .stream = device_->stream(queue)});
}

OpenClPool::PoolStats OpenClPool::get_stats() const {
  const Stats stats = stack_->stats();
  PoolStats told{.hits = stats.hits,
                 .misses = stats.misses,
                 .hit_rate = 0,
                 .bytes_cached = stats.cached.current,
                 .bytes_allocated = stats.reserved.current,
                 .per_bucket = {}};
  if (stats.hits + stats.misses > 0)
    told.hit_rate =
        static_cast<double>(stats.hits) / static_cast<double>(stats.hits + stats.misses);
  for (const BucketStats& bucket : stack_->buckets())
    told.per_bucket[bucket.capacity] += bucket.cached_blocks;
  return told;
}

/// Those that are held. A context cannot go, nor its handle be used again, while its pool is.
class OpenClPools {
 public:
  static OpenClPools& all() {
    static OpenClPools pools;
    return pools;
  }

  std::shared_ptr<OpenClPool> get(_cl_command_queue* queue, const OpenClDevice::Options& memory,
                                  const OpenClPool::Options& options) {
    _cl_context* const context = OpenClDevice::context_of(queue);
    const std::lock_guard lock(mutex_);
    std::erase_if(pools_, [](const auto& entry) { return entry.second.expired(); });
    std::weak_ptr<OpenClPool>& known = pools_[{context, memory.memory, options}];
    std::shared_ptr<OpenClPool> pool = known.lock();
    if (pool == nullptr) {
      pool.reset(new OpenClPool(make<OpenClDevice>(context, queue, memory), options));
      known = pool;
    }
    return pool;
  }

 private:
  using Key = std::tuple<_cl_context*, OpenClDevice::Memory, OpenClPool::Options>;

  std::mutex mutex_;  // guards all below
  std::map<Key, std::weak_ptr<OpenClPool>> pools_;
};

std::shared_ptr<OpenClPool> get_persistent_pool(_cl_command_queue* queue,
                                                const OpenClPool::Options& options) {
  return OpenClPools::all().get(queue, {.memory = OpenClDevice::Memory::buffer}, options);
}

std::shared_ptr<OpenClPool> get_pinned_pool(_cl_command_queue* queue,
                                            const OpenClPool::Options& options) {
  return OpenClPools::all().get(queue, {.memory = OpenClDevice::Memory::pinned}, options);
}

}  // namespace cistern
