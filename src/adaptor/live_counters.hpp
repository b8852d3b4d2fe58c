// The live figures of a stage that takes no lock: what callers hold, and how many requests were
// granted, freed, refused. Exact at rest; peaks are exact on one thread and sampled across threads.
// Atomic additions are what such a stage costs, so that none is made which another figure implies:
// blocks are counted by the stage's pins, and frees are the allocations less the blocks.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cistern/core/block.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/stats.hpp"

namespace cistern {

class LiveCounters {
 public:
  /// A block was granted, the `live_blocks`-th of those now live.
  void granted(const Block& block, std::size_t live_blocks) noexcept {
    allocations_.fetch_add(1, std::memory_order_relaxed);
    raise(peak_blocks_, live_blocks);
    requested_.rise(block.requested);
    granted_.rise(block.bytes);
  }
  void freed(const Block& block) noexcept {
    requested_.fall(block.requested);
    granted_.fall(block.bytes);
  }
  void grew(const Block& before, const Block& after) noexcept {
    requested_.rise(after.requested - before.requested);
    granted_.rise(after.bytes - before.bytes);
  }
  void failed() noexcept { failures_.fetch_add(1, std::memory_order_relaxed); }
  void refused() noexcept { refused_.fetch_add(1, std::memory_order_relaxed); }

  /// Replaces the live figures of `stats` by these.
  void write_to(Stats& stats, std::size_t live_blocks) const noexcept {
    const std::size_t peak_blocks = peak_blocks_.load(std::memory_order_relaxed);
    stats.live_blocks = {.current = live_blocks, .peak = std::max(live_blocks, peak_blocks)};
    stats.live_requested = requested_.read();
    stats.live_granted = granted_.read();
    stats.allocations = allocations_.load(std::memory_order_relaxed);
    stats.frees = saturating_subtract(stats.allocations, live_blocks);
    stats.failures = failures_.load(std::memory_order_relaxed);
    stats.refused_frees = refused_.load(std::memory_order_relaxed);
  }

  void reset_peaks(const Stats& floor, std::size_t live_blocks) noexcept {
    peak_blocks_.store(std::max(floor.live_blocks.peak, live_blocks), std::memory_order_relaxed);
    requested_.reset_peak(floor.live_requested.peak);
    granted_.reset_peak(floor.live_granted.peak);
  }

 private:
  static void raise(std::atomic<std::size_t>& peak, std::size_t level) noexcept {
    std::size_t known = peak.load(std::memory_order_relaxed);
    while (level > known && !peak.compare_exchange_weak(known, level, std::memory_order_relaxed)) {
    }
  }

  class Level {
   public:
    [[nodiscard]] std::size_t current() const noexcept {
      return current_.load(std::memory_order_relaxed);
    }
    void rise(std::size_t by) noexcept {
      raise(peak_, current_.fetch_add(by, std::memory_order_relaxed) + by);
    }
    void fall(std::size_t by) noexcept { current_.fetch_sub(by, std::memory_order_relaxed); }
    void reset_peak(std::size_t floor) noexcept {
      peak_.store(std::max(floor, current()), std::memory_order_relaxed);
    }
    [[nodiscard]] Gauge read() const noexcept {
      const std::size_t now = current();
      return {.current = now, .peak = std::max(now, peak_.load(std::memory_order_relaxed))};
    }

   private:
    std::atomic<std::size_t> current_{0};
    std::atomic<std::size_t> peak_{0};
  };

  Level requested_;
  Level granted_;
  std::atomic<std::size_t> peak_blocks_{0};
  std::atomic<std::uint64_t> allocations_{0};
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<std::uint64_t> refused_{0};
};

}  // namespace cistern
