// The figures every stage reports, with one set of keys for all stacks. A figure that a stage does
// not have is zero. Live blocks, allocations, frees and failures are the outermost stage's;
// reserved and resident bytes and device calls the device's; idle bytes are summed over the stages;
// misses are the innermost pool's (on a bare device every request is one). Where a stage has two
// upstreams, what is not its own is the sum of theirs, and a peak the sum of the peaks, which is no
// less than the peak of the sum.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cistern {

/// A level and the highest it stood at since its peak was last reset. Where parts of a level are
/// counted apart and added one after another, a fall may come before its rise: in between, the
/// level stands below zero (modulo 2^64), which is no peak.
struct Gauge {
  std::size_t current = 0;
  std::size_t peak = 0;

  static constexpr bool is_below_zero(std::size_t level) noexcept {
    return static_cast<std::ptrdiff_t>(level) < 0;
  }
  static constexpr void raise_peak(std::size_t& peak, std::size_t level) noexcept {
    if (level > peak && !is_below_zero(level)) peak = level;
  }

  void rise(std::size_t by) noexcept {
    current += by;
    raise_peak(peak, current);
  }
  void fall(std::size_t by) noexcept { current -= by; }
  void move_to(std::size_t level) noexcept {
    current = level;
    raise_peak(peak, level);
  }
  void reset_peak(std::size_t floor) noexcept { peak = std::max(current, floor); }

  friend bool operator==(const Gauge&, const Gauge&) = default;
};

struct Stats {
  Gauge live_requested;  // bytes callers asked for and hold
  Gauge live_granted;    // bytes of the blocks that callers hold
  Gauge live_blocks;
  Gauge cached;    // idle bytes that pools keep for reuse
  Gauge reserved;  // bytes obtained from the device and not given back
  Gauge spilled;   // bytes that fallbacks obtained elsewhere than from their first choice
  Gauge resident;  // bytes that the device has taken the hint for to keep them resident

  std::uint64_t allocations = 0;  // requests that were granted
  std::uint64_t frees = 0;        // frees that were accepted
  std::uint64_t failures = 0;     // requests that failed, as the caller saw it
  std::uint64_t refused_frees =
      0;                     // frees of what was not a live block here: stale, repeated, foreign
  std::uint64_t hits = 0;    // requests served without a call to the device
  std::uint64_t misses = 0;  // requests that needed one
  std::uint64_t device_allocations = 0;
  std::uint64_t device_frees = 0;
  std::uint64_t residency_commits = 0;   // calls that made memory resident
  std::uint64_t residency_refusals = 0;  // those that the device did not take

  std::uint32_t pools = 0;  // stages of the stack that keep memory

  // What a stage counts of its own, in one step each.
  void count_grant(std::size_t requested, std::size_t granted) noexcept {
    ++allocations;
    live_blocks.rise(1);
    live_requested.rise(requested);
    live_granted.rise(granted);
  }
  void count_free(std::size_t requested, std::size_t granted) noexcept {
    ++frees;
    live_blocks.fall(1);
    live_requested.fall(requested);
    live_granted.fall(granted);
  }
  void count_growth(std::size_t requested, std::size_t granted) noexcept {
    live_requested.rise(requested);
    live_granted.rise(granted);
  }
  void reset_live_peaks(const Stats& floor) noexcept {
    live_blocks.reset_peak(floor.live_blocks.peak);
    live_requested.reset_peak(floor.live_requested.peak);
    live_granted.reset_peak(floor.live_granted.peak);
  }

  /// Replaces the figures that are the outermost stage's by those of `stage`.
  void take_outermost_figures(const Stats& stage) noexcept {
    live_requested = stage.live_requested;
    live_granted = stage.live_granted;
    live_blocks = stage.live_blocks;
    allocations = stage.allocations;
    frees = stage.frees;
    failures = stage.failures;
    refused_frees = stage.refused_frees;
  }

  /// hits / (hits + misses); 0 before the first request.
  [[nodiscard]] double hit_rate() const noexcept {
    const auto served = static_cast<double>(hits + misses);
    return served > 0 ? static_cast<double>(hits) / served : 0;
  }

  /// Peak of the bytes requested over peak of the bytes reserved; 0 before the first request.
  [[nodiscard]] double utilisation() const noexcept {
    return reserved.peak > 0
               ? static_cast<double>(live_requested.peak) / static_cast<double>(reserved.peak)
               : 0;
  }

  /// Calls `visit(key, gauge...)` for every gauge in a fixed order, with that gauge of each of
  /// `stats`.
  template <class Visit, class... S>
  static void each_gauge(Visit&& visit, S&... stats) {
    visit(std::string_view("live_requested"), stats.live_requested...);
    visit(std::string_view("live_granted"), stats.live_granted...);
    visit(std::string_view("live_blocks"), stats.live_blocks...);
    visit(std::string_view("cached"), stats.cached...);
    visit(std::string_view("reserved"), stats.reserved...);
    visit(std::string_view("spilled"), stats.spilled...);
    visit(std::string_view("resident"), stats.resident...);
  }

  /// The same for every counter.
  template <class Visit, class... S>
  static void each_counter(Visit&& visit, S&... stats) {
    visit(std::string_view("allocations"), stats.allocations...);
    visit(std::string_view("frees"), stats.frees...);
    visit(std::string_view("failures"), stats.failures...);
    visit(std::string_view("refused_frees"), stats.refused_frees...);
    visit(std::string_view("hits"), stats.hits...);
    visit(std::string_view("misses"), stats.misses...);
    visit(std::string_view("device_allocations"), stats.device_allocations...);
    visit(std::string_view("device_frees"), stats.device_frees...);
    visit(std::string_view("residency_commits"), stats.residency_commits...);
    visit(std::string_view("residency_refusals"), stats.residency_refusals...);
  }

  friend bool operator==(const Stats&, const Stats&) = default;
};

/// One bucket of a cache: the capacity its blocks have at least, and what lies idle in it. Made on
/// demand.
struct BucketStats {
  std::size_t capacity = 0;
  std::size_t cached_blocks = 0;
  std::size_t cached_bytes = 0;
};

/// What callers still hold of a resource.
struct Outstanding {
  std::size_t blocks = 0;
  std::size_t bytes = 0;    // granted
  std::size_t largest = 0;  // granted

  void add(std::size_t granted) noexcept {
    ++blocks;
    bytes += granted;
    largest = std::max(largest, granted);
  }
};

}  // namespace cistern
