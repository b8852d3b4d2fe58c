// What each thread keeps of a pool for itself: blocks that it has freed and will take again without
// the pool's lock, without a line of the CPU's cache that another thread writes. The pool lends
// each thread the room to do so, and calls room and blocks back when it needs them, whether the
// thread runs or sleeps: no bound is exceeded, and each can be used to the full.
//
// The pool's slow path sees to that with three steps, each under its lock: `settle` for the
// figures, `call_back` for the blocks, and `lend`. After `call_back` no thread has room or blocks,
// so that nothing changes until the lock is let go of. (Magazines: J. Bonwick, J. Adams, "Magazines
// and Vmem", USENIX 2001; what is lent here is bytes, not rounds.)
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#include "cistern/core/biased_lock.hpp"
#include "cistern/core/per_thread.hpp"
#include "cistern/core/stats.hpp"

namespace cistern {

/// `N` is a node with `next_free`, `requested`, `capacity()` and, so that what comes back can be
/// put in order, `idle_since`, which may take the place of `requested`.
template <class N>
class alignas(64) Magazine {
 public:
  /// Guards what follows against the pool; the thread enters it, whoever holds the pool's lock
  /// closes it.
  BiasedLock lock;

  [[nodiscard]] N* newest(std::size_t bin) const noexcept { return bins_[bin]; }

  /// The newest of a bin, which is `node`, goes out.
  void take(std::size_t bin, N* node, std::size_t requested) noexcept {
    bins_[bin] = node->next_free;
    ++takes_;
    raise(most_blocks_, static_cast<std::int64_t>(takes_ - puts_));
    requested_ += static_cast<std::int64_t>(requested);
    raise(most_requested_, requested_);
    room_ += node->capacity();
    if (room_ > most_room_) [[unlikely]]
      most_room_ = room_;
  }

  [[nodiscard]] bool has_room_for(const N& node) const noexcept { return node.capacity() <= room_; }
  void put(std::size_t bin, N* node) noexcept {
    requested_ -= static_cast<std::int64_t>(node->requested);
    node->set_idle_since(++puts_);
    node->next_free = bins_[bin];
    bins_[bin] = node;
    room_ -= node->capacity();
    if (room_ < least_room_) [[unlikely]]
      least_room_ = room_;
  }

  [[nodiscard]] std::size_t bins() const noexcept { return size_; }

  // --- for the pool ---

  /// An idle block of the pool's comes in: room is for what is put.
  void fill(std::size_t bin, N* node) noexcept {
    node->set_idle_since(puts_);
    node->next_free = std::exchange(bins_[bin], node);
  }

  /// The bytes that may still be put.
  [[nodiscard]] std::size_t room() const noexcept { return room_; }
  /// To be settled before.
  void set_room(std::size_t bytes) noexcept {
    most_room_ = least_room_ = settled_room_ = room_ = bytes;
  }

  /// Adds to `stats` what was taken and put since the last time. What was taken was idle before,
  /// and the other way round. The peaks are exact while no other thread changes the levels. Returns
  /// by how much the granted bytes rose at most.
  std::size_t settle(Stats& stats) noexcept {
    const std::uint64_t blocks = takes_ - puts_;
    stats.allocations += takes_ - settled_takes_;
    stats.hits += takes_ - settled_takes_;
    stats.frees += puts_ - settled_puts_;
    const std::uint64_t blocks_before = settled_takes_ - settled_puts_;
    move(stats.live_blocks, blocks - blocks_before,
         static_cast<std::uint64_t>(most_blocks_) - blocks_before);
    move(stats.live_requested, static_cast<std::size_t>(requested_),
         static_cast<std::size_t>(most_requested_));
    const std::size_t most_granted = most_room_ - settled_room_;
    move(stats.live_granted, room_ - settled_room_, most_granted);
    move(stats.cached, settled_room_ - room_, settled_room_ - least_room_);
    settled_takes_ = takes_;
    settled_puts_ = puts_;
    most_blocks_ = static_cast<std::int64_t>(blocks);
    requested_ = most_requested_ = 0;
    set_room(room_);
    return most_granted;
  }

  /// Takes all out, of one bin or of all of them: chained, the longest idle first.
  [[nodiscard]] N* empty_bin(std::size_t bin) noexcept {
    return reversed(std::exchange(bins_[bin], nullptr));
  }
  [[nodiscard]] N* empty() noexcept {
    std::array<N*, 64> runs{};  // that of place i was merged of 2^i bins
    for (std::size_t bin = 0; bin < size_; ++bin) {
      N* run = std::exchange(bins_[bin], nullptr);
      if (run == nullptr) continue;
      std::size_t place = 0;
      for (; runs[place] != nullptr; ++place)
        run = merged(std::exchange(runs[place], nullptr), run);
      runs[place] = run;
    }
    N* all = nullptr;
    for (N* run : runs)
      all = merged(all, run);
    return reversed(all);
  }

 private:
  template <class>
  friend class Magazines;
  explicit Magazine(std::size_t bins) noexcept
      : bins_(new (std::nothrow) N* [bins] {}), size_(bins) {}

  static void raise(std::int64_t& most, std::int64_t level) noexcept {
    if (level > most) [[unlikely]]
      most = level;
  }
  // Both are modulo 2^64, so that they may be falls.
  static void move(Gauge& gauge, std::size_t by, std::size_t by_at_most) noexcept {
    Gauge::raise_peak(gauge.peak, gauge.current + by_at_most);
    gauge.current += by;
  }
  static N* reversed(N* node) noexcept {
    N* behind = nullptr;
    while (node != nullptr)
      behind = std::exchange(node, std::exchange(node->next_free, behind));
    return behind;
  }
  // Both run from the newest on, as a bin does.
  static N* merged(N* a, N* b) noexcept {
    N* first = nullptr;
    N** end = &first;
    for (; a != nullptr && b != nullptr; end = &(*end)->next_free) {
      N*& newer = a->idle_since() > b->idle_since() ? a : b;
      *end = std::exchange(newer, newer->next_free);
    }
    *end = a != nullptr ? a : b;
    return first;
  }

  std::unique_ptr<N*[]> bins_;  // NOLINT(modernize-avoid-c-arrays): sized at run time
  std::size_t size_;

  // What a hit counts: as little as will do. Blocks and bytes fall where more is put than was
  // taken.
  std::uint64_t takes_ = 0;
  std::uint64_t puts_ = 0;
  std::int64_t most_blocks_ = 0;  // of the takes less the puts
  std::int64_t requested_ = 0;    // since it was settled
  std::int64_t most_requested_ = 0;
  std::size_t room_ = 0;  // falls by what is put, and so tells what is granted and idle
  std::size_t most_room_ = 0;
  std::size_t least_room_ = 0;

  std::uint64_t settled_takes_ = 0;
  std::uint64_t settled_puts_ = 0;
  std::size_t settled_room_ = 0;
  std::unique_ptr<Magazine> next_;
};

template <class N>
class Magazines {
 public:
  using Of = Magazine<N>;

  /// `bins` each. `ended(pool, magazine)` is called, without the pool's lock, by a thread that
  /// ends: it empties the magazine and calls `remove`. Throws std::bad_alloc.
  Magazines(std::size_t bins, PerThread::Ended ended, void* pool)
      : bins_(bins), per_thread_(ended, pool) {}
  Magazines(const Magazines&) = delete;
  Magazines& operator=(const Magazines&) = delete;
  Magazines(Magazines&&) = delete;
  Magazines& operator=(Magazines&&) = delete;
  ~Magazines() = default;

  /// The calling thread's, or null.
  [[nodiscard]] Of* mine() const noexcept { return static_cast<Of*>(per_thread_.get()); }

  /// Gives the calling thread one, which is empty; `mutex` is the pool's lock, which it does not
  /// hold. Without effect if the host has no memory, or there are no biased locks.
  void add_mine(std::mutex& mutex) noexcept {
    if (!BiasedLock::is_supported()) return;
    std::unique_ptr<Of> added(new (std::nothrow) Of(bins_));
    if (added == nullptr || added->bins_ == nullptr || !per_thread_.set(added.get())) return;
    const std::lock_guard lock(mutex);
    added->next_ = std::move(first_);
    first_ = std::move(added);
    ++size_;
  }

  // Under the pool's lock.

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool has_others() const noexcept { return size_ > (mine() != nullptr ? 1U : 0U); }

  /// Calls `visit` with each magazine, while no thread is in any.
  template <class Visit>
  void each(Visit&& visit) const noexcept {
    Of* const own = mine();
    bool has_others = false;
    for (Of* each = first_.get(); each != nullptr; each = each->next_.get()) {
      if (each == own) continue;
      each->lock.close();
      has_others = true;
    }
    if (has_others) BiasedLock::fence();
    for (Of* each = first_.get(); each != nullptr; each = each->next_.get()) {
      if (each != own) each->lock.wait();
      visit(*each);
      if (each != own) each->lock.open();
    }
  }

  void remove(Of* removed) noexcept {
    std::unique_ptr<Of>* link = &first_;
    while (link->get() != removed)
      link = &(*link)->next_;
    *link = std::move(removed->next_);
    --size_;
  }

 private:
  const std::size_t bins_;
  std::unique_ptr<Of> first_;
  std::size_t size_ = 0;
  PerThread per_thread_;  // the first to go: nobody ends from then on
};

}  // namespace cistern
