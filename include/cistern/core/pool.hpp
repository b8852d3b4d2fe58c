// What the stages that keep idle memory share: their figures are composed alike, and every one of
// them is known to the device it stands on, so that a stack which runs out can ask the others to
// give back what they hoard.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cistern/core/intrusive_list.hpp"
#include "cistern/core/stage.hpp"

namespace cistern {

class PoolRegistry;

class Pool : public Stage {
 public:
  /// The idle bytes that a trim of this stage would return to the device by itself, or a lower
  /// bound: what goes to another pool below counts for nothing.
  [[nodiscard]] virtual std::size_t trimmable() const noexcept { return 0; }

 protected:
  explicit Pool(Ref<Resource> upstream) : Stage(std::move(upstream)) {}

  /// The figures of a pool that has `own` live, cached, hits and misses, and stands on this
  /// upstream.
  [[nodiscard]] Stats as_pool(const Stats& own) const noexcept {
    const Stats below = upstream().stats();
    Stats stats = own;
    stats.cached.current += below.cached.current;
    stats.cached.peak += below.cached.peak;  // no less than the peak of the sum
    stats.reserved = below.reserved;
    stats.spilled = below.spilled;
    stats.resident = below.resident;
    stats.hits += below.hits;
    if (below.pools > 0) stats.misses = below.misses;
    stats.device_allocations = below.device_allocations;
    stats.device_frees = below.device_frees;
    stats.residency_commits = below.residency_commits;
    stats.residency_refusals = below.residency_refusals;
    stats.pools = below.pools + 1;
    return stats;
  }

 private:
  friend class PoolRegistry;

  void opened() noexcept final;
  void closing() noexcept final;

  PoolRegistry* registry_ = nullptr;
  ListLinks<Pool> in_registry_;
  std::uint64_t joined_ = 0;
};

/// The pools through which a question comes down a stack, the innermost first.
struct PoolsAbove {
  const Pool* pool = nullptr;
  const PoolsAbove* next = nullptr;

  /// True if `sought` is one of `pools`.
  static bool contain(const PoolsAbove* pools, const Pool& sought) noexcept {
    for (; pools != nullptr; pools = pools->next) {
      if (pools->pool == &sought) return true;
    }
    return false;
  }
};

}  // namespace cistern
