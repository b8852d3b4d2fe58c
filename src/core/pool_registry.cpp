#include "cistern/core/pool_registry.hpp"

#include "cistern/core/device.hpp"
#include "cistern/core/size.hpp"

namespace cistern {

void Pool::opened() noexcept {
  registry_ = &device().registry();
  registry_->join(*this);
}

void Pool::closing() noexcept {
  registry_->leave(*this);
}

void PoolRegistry::join(Pool& pool) noexcept {
  const std::lock_guard lock(mutex_);
  pool.joined_ = ++joins_;
  pools_.push(&pool);
}

void PoolRegistry::leave(Pool& pool) noexcept {
  const std::lock_guard lock(mutex_);
  pools_.remove(&pool);
}

Ref<Pool> PoolRegistry::next(std::uint64_t& place) noexcept {
  const std::lock_guard lock(mutex_);
  for (Pool* pool = pools_.oldest(); pool != nullptr; pool = decltype(pools_)::newer(pool)) {
    if (pool->joined_ <= place) continue;
    if (Ref<Pool> owned = Ref<Pool>::if_owned(pool)) {
      place = pool->joined_;
      return owned;
    }
  }
  return {};
}

std::size_t PoolRegistry::trim(std::size_t bytes, const Resource* below) noexcept {
  std::size_t returned = 0;
  std::uint64_t place = 0;
  while (returned < bytes) {
    const Ref<Pool> pool = next(place);
    if (!pool) break;
    if (below != nullptr && !pool->stands_on(*below)) continue;
    const std::size_t idle = pool->stats().cached.current;
    returned += pool->trim(saturating_subtract(idle, bytes - returned));
  }
  return returned;
}

std::size_t PoolRegistry::trimmable(const PoolsAbove* except) noexcept {
  std::size_t bytes = 0;
  std::uint64_t place = 0;
  while (const Ref<Pool> pool = next(place)) {
    if (!PoolsAbove::contain(except, *pool)) bytes += pool->trimmable();
  }
  return bytes;
}

std::size_t PoolRegistry::size() const noexcept {
  const std::lock_guard lock(mutex_);
  return pools_.size();
}

}  // namespace cistern
