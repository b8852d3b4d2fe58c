// Caches that keep what they are given back, and how to fill them: what neighbours on a device are
// asked to give up.
#pragma once

#include <cstddef>
#include <vector>

#include "cistern/pool/cache.hpp"

namespace cistern::testing {

inline Ref<Cache> unbounded_cache(const Ref<Resource>& upstream) {
  return make<Cache>(upstream, Cache::Options{.idle_ratio = Cache::no_ratio});
}

/// Leaves `count` idle blocks of `bytes` in `pool`.
inline void hoard(Resource& pool, std::size_t bytes, std::size_t count) {
  std::vector<Block> blocks;
  for (std::size_t i = 0; i < count; ++i)
    blocks.push_back(pool.allocate(bytes));
  for (const Block& block : blocks)
    pool.deallocate(block);
}

}  // namespace cistern::testing
