// The live figures of a stage that takes no lock: what callers hold, and how many requests were granted, freed, refused.
// Exact at rest; peaks are exact on one thread and sampled across threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cistern/core/block.hpp"
#include "cistern/core/stats.hpp"

namespace cistern {

class LiveCounters {
 public:
  void granted(const Block& block) noexcept {
    allocations_.fetch_add(1, std::memory_order_relaxed);
    blocks_.rise(1);
    requested_.rise(block.requested);
    granted_.rise(block.bytes);
  }
  void freed(const Block& block) noexcept {
    frees_.fetch_add(1, std::memory_order_relaxed);
    blocks_.fall(1);
    requested_.fall(block.requested);
    granted_.fall(block.bytes);
  }
  void failed() noexcept { failures_.fetch_add(1, std::memory_order_relaxed); }
  void refused() noexcept { refused_.fetch_add(1, std::memory_order_relaxed); }

  /// Replaces the live figures of `stats` by these.
  void write_to(Stats& stats) const noexcept {
    stats.live_blocks = blocks_.read();
    stats.live_requested = requested_.read();
    stats.live_granted = granted_.read();
    stats.allocations = allocations_.load(std::memory_order_relaxed);
    stats.frees = frees_.load(std::memory_order_relaxed);
    stats.failures = failures_.load(std::memory_order_relaxed);
    stats.refused_frees = refused_.load(std::memory_order_relaxed);
  }

  void reset_peaks(const Stats& floor) noexcept {
    blocks_.reset_peak(floor.live_blocks.peak);
    requested_.reset_peak(floor.live_requested.peak);
    granted_.reset_peak(floor.live_granted.peak);
  }

 private:
  class Level {
   public:
    void rise(std::size_t by) noexcept {
      const std::size_t now = current_.fetch_add(by, std::memory_order_relaxed) + by;
      std::size_t peak = peak_.load(std::memory_order_relaxed);
      while (now > peak && !peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
      }
    }
    void fall(std::size_t by) noexcept { current_.fetch_sub(by, std::memory_order_relaxed); }
    [[nodiscard]] Gauge read() const noexcept {
      const std::size_t now = current_.load(std::memory_order_relaxed);
      return {.current = now, .peak = std::max(now, peak_.load(std::memory_order_relaxed))};
    }
    void reset_peak(std::size_t floor) noexcept {
      peak_.store(std::max(floor, current_.load(std::memory_order_relaxed)),
                  std::memory_order_relaxed);
    }

   private:
    std::atomic<std::size_t> current_{0};
    std::atomic<std::size_t> peak_{0};
  };

  Level blocks_;
  Level requested_;
  Level granted_;
  std::atomic<std::uint64_t> allocations_{0};
  std::atomic<std::uint64_t> frees_{0};
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<std::uint64_t> refused_{0};
};

}  // namespace cistern
