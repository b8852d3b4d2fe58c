// What the pools of one thread share. A pool that a single thread allocates from needs neither lock
// nor atomic operation, and that is what makes an arena fast. Still, a block may be freed anywhere:
// by a collector, by another thread that was handed a buffer. Such frees wait in a list until the
// owner looks at it.
//
// The first thread that allocates is the owner; requests of others are refused where the check is
// on. `deallocate`, `stats` and `trim` are safe on every thread, though what another thread frees
// or trims goes its way only when the owner next calls the pool for more than a hit. Everything
// else is the owner's. The last `Ref` is let go of by the owner, or while it leaves the pool alone.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <utility>

#include "cistern/core/handover.hpp"
#include "cistern/core/node.hpp"
#include "cistern/core/pool.hpp"
#include "cistern/core/size.hpp"

namespace cistern {

/// A number that one thread writes and any may read.
template <class T = std::size_t>
class Owned {
 public:
  Owned() noexcept = default;
  explicit Owned(T value) noexcept : value_(value) {}
  [[nodiscard]] T read() const noexcept { return value_.load(std::memory_order_relaxed); }
  void set(T value) noexcept { value_.store(value, std::memory_order_relaxed); }
  void rise(T by) noexcept { set(read() + by); }
  void fall(T by) noexcept { set(read() - by); }
  void raise_to(T value) noexcept {
    if (value > read()) set(value);
  }

 private:
  std::atomic<T> value_{};
};

/// Blocks, and what they come to.
struct Sum {
  std::size_t blocks = 0;
  std::size_t requested = 0;
  std::size_t granted = 0;

  Sum& operator+=(const Sum& other) noexcept {
    blocks += other.blocks;
    requested += other.requested;
    granted += other.granted;
    return *this;
  }
  Sum& operator-=(const Sum& other) noexcept {
    blocks -= other.blocks;
    requested -= other.requested;
    granted -= other.granted;
    return *this;
  }
  friend bool operator==(const Sum&, const Sum&) = default;
};

/// A sum that one thread writes and any may read.
struct OwnedSum {
  Owned<> blocks;
  Owned<> requested;
  Owned<> granted;

  [[nodiscard]] Sum read() const noexcept {
    return {.blocks = blocks.read(), .requested = requested.read(), .granted = granted.read()};
  }
  void set(const Sum& sum) noexcept {
    blocks.set(sum.blocks);
    requested.set(sum.requested);
    granted.set(sum.granted);
  }
};

/// The free of a block on another thread than the owner's, until the owner sees to it. One for each
/// record.
struct RemoteFree {
  std::atomic<bool> is_queued{false};  // what follows is guarded by the pool's lock
  Node* record = nullptr;
  Sum sum;
  Stream stream;
  RemoteFree* next = nullptr;
};

class OwnedPool : public Pool {
 public:
  using Stage::deallocate;
  using Stage::reset_peaks;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Expected<void> try_allocate_held_batch(std::span<const Request> requests,
                                                       std::span<Block> blocks) noexcept override {
    return allocate_each(requests, blocks, &Resource::try_allocate_held);
  }
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept final;
  [[nodiscard]] bool is_live(const Block& block) const noexcept final;
  [[nodiscard]] Stats stats() const noexcept final;
  void reset_peaks(const Stats& floor) noexcept final;

  /// Both make the count of cycles, which starts at 1, go on by one.
  void cycle() noexcept final;
  std::size_t reset() noexcept final;
  [[nodiscard]] std::uint64_t cycles() const noexcept { return cycle_; }

  /// Whether a request on another thread than the owner's is refused, with wrong_thread, instead of
  /// being a race. On at first in builds of the library without NDEBUG.
  void check_owner(bool on) noexcept {
    is_check_asked_ = on;
    owner_changed();
  }

  /// The owner gives the pool up: the next thread that allocates is its owner. What the two do must
  /// be ordered, as when the pool is handed over through a queue.
  void hand_over() noexcept;

 protected:
  /// `stage` is a literal, as in the stack language.
  OwnedPool(Ref<Resource> upstream, const char* stage);

  /// True on the owner's thread, while the pool has owners.
  [[nodiscard]] bool is_owner() const noexcept {
    return owner_.load(std::memory_order_relaxed) == this_thread();
  }

  /// True if other threads have freed what the owner does not know of yet.
  [[nodiscard]] bool has_queue() const noexcept {
    return queue_.load(std::memory_order_relaxed) != nullptr;
  }

  // --- what each pool knows of its records ---

  /// True if `block`, which has a record, is a live block of this pool. Any thread.
  [[nodiscard]] virtual bool names(const Block& block) const noexcept = 0;
  /// Of any record, live or not. Any thread.
  [[nodiscard]] virtual RemoteFree& remote_free(Node& record) const noexcept = 0;
  /// Of a live record. Any thread.
  [[nodiscard]] virtual Sum sum_of(const Node& record) const noexcept = 0;

  /// What was granted, and what was freed before that, since `set_settled`: fast paths do not
  /// count.
  [[nodiscard]] virtual Sum unsettled_grants() const noexcept = 0;
  [[nodiscard]] virtual Sum unsettled_frees() const noexcept { return {}; }
  virtual void set_settled() noexcept = 0;
  /// The fast path does not check who its caller is: it is off while that is checked, and while
  /// there is no owner.
  virtual void check_owner_changed() noexcept {}
  [[nodiscard]] bool checks_owner() const noexcept { return checks_owner_; }

  /// The life of a live block ends. Called on the owner's thread or, once the owners have left,
  /// under the lock; all is settled.
  virtual void take_back(Node& record, Stream stream) noexcept = 0;
  /// The same for all that are not held, under the lock.
  virtual void take_all_back() noexcept = 0;
  /// A cycle ends, after `take_all_back` if it `is_reset`; and another has begun.
  virtual void end_cycle(bool /*is_reset*/) noexcept {}
  virtual void begin_cycle(bool was_reset) noexcept = 0;
  /// Gives idle memory upstream until no more than `keep_bytes` of it are left in this pool.
  virtual void trim_own(std::size_t keep_bytes) noexcept = 0;

  // --- the order of streams ---

  /// True if a live block may be used on more streams than one.
  [[nodiscard]] bool has_uses() const noexcept { return has_uses_.load(std::memory_order_relaxed); }
  /// Of one block that is freed, or of all that a reset ends. As `Handover`'s.
  [[nodiscard]] Stream end_uses(const Node& record, Stream freed_on) noexcept {
    return end_uses_if([&](const Node& other) { return &other == &record; }, freed_on);
  }
  template <class Ends>
  [[nodiscard]] Stream end_uses_if(Ends&& ends, Stream freed_on) noexcept {
    if (!has_uses()) return freed_on;
    const std::lock_guard lock(uses_mutex_);
    const Stream last = handover_.end_uses_if(ends, freed_on);
    has_uses_.store(handover_.has_uses(), std::memory_order_relaxed);
    return last;
  }
  [[nodiscard]] bool is_ready(Stream last, Stream next) const noexcept {
    return handover_.is_ready(last, next);
  }
  [[nodiscard]] bool make_ready(Stream last, Stream next) const noexcept {
    return handover_.make_ready(last, next);
  }
  [[nodiscard]] Stream join(Stream first, Stream other) const noexcept {
    return handover_.join(first, other);
  }

  // --- the slow path's parts ---

  /// Makes the calling thread the owner, if there is none; then does what other threads have asked
  /// for, and settles. Error: wrong_thread.
  Expected<void> enter(std::size_t bytes) noexcept;

  void settle() noexcept;
  void count_grant(const Sum& sum) noexcept;
  void count_free(const Sum& sum) noexcept;
  void count_growth(std::size_t requested, std::size_t granted) noexcept {
    live_requested_.rise(requested);
    live_granted_.rise(granted);
  }
  void count_miss() noexcept { misses_.rise(1); }
  void count_failure() noexcept { failures_.fetch_add(1, std::memory_order_relaxed); }

  /// A pool that its upstream refuses gives back what it keeps, and asks again.
  template <class Ask>
  auto ask_upstream(Ask&& ask) noexcept {
    auto answer = ask();
    if (!answer && answer.error().is_exhaustion()) {
      const std::size_t before = held();
      trim_own(0);
      if (held() < before) answer = ask();
    }
    return answer;
  }

  /// What this pool holds of its upstream, live or idle.
  void hold_more(std::size_t bytes) noexcept { held_.rise(bytes); }
  void hold_less(std::size_t bytes) noexcept { held_.fall(bytes); }
  [[nodiscard]] std::size_t held() const noexcept { return held_.read(); }
  /// After memory has become idle and is kept.
  void note_cached_peak() noexcept { peak_cached_.raise_to(held() - live_granted_.read()); }

  /// What is live, with what is not settled yet.
  [[nodiscard]] Sum live() const noexcept;
  [[nodiscard]] std::size_t idle_bytes() const noexcept {
    return saturating_subtract(held(), live().granted);
  }

  /// Even; the generations of what is granted now are odd and above it. The upper half tells the
  /// cycle of the last reset.
  [[nodiscard]] std::uint64_t first_generation() const noexcept {
    return first_generation_.load(std::memory_order_relaxed);
  }
  /// Odd, and at least as high as any generation that was handed out.
  [[nodiscard]] virtual std::uint64_t last_generation() const noexcept = 0;

  [[nodiscard]] bool is_closed() const noexcept { return is_closed_; }
  [[nodiscard]] Error fail(Errc code, std::size_t bytes) const noexcept {
    return {.code = code, .stage = stage_, .requested = bytes};
  }
  [[nodiscard]] Error invalid(const Block& block) const noexcept;

  void trim_to(std::size_t keep_bytes) noexcept final;
  void abandoned() noexcept final;

 private:
  [[nodiscard]] static const void* this_thread() noexcept {
    static thread_local const char place = 0;  // no two threads have it at one address
    return &place;
  }

  void owner_changed() noexcept {
    checks_owner_ = is_check_asked_ || owner_.load(std::memory_order_relaxed) == nullptr;
    check_owner_changed();
  }

  static bool checks_owner_at_first() noexcept;  // of the library's build, not the program's
  bool refuse(const Block& block) noexcept;
  bool free_elsewhere(const Block& block, Stream stream) noexcept;
  [[nodiscard]] Sum settled_live() const noexcept;
  void note_live_peaks() noexcept;

  // Under the lock.
  void queue_free(Node& record, Stream stream) noexcept;
  void take_queued_back() noexcept;

  const char* const stage_;
  std::atomic<const void*> owner_{nullptr};

  bool is_check_asked_ = checks_owner_at_first();
  bool checks_owner_ = true;

  // The owner's.
  std::uint64_t cycle_ = 1;
  std::atomic<std::uint64_t> first_generation_{std::uint64_t{1} << 32U};
  Owned<> allocations_;
  Owned<> frees_;
  Owned<> live_requested_;
  Owned<> live_granted_;
  Owned<> held_;
  Owned<> peak_blocks_;
  Owned<> peak_requested_;
  Owned<> peak_granted_;
  Owned<> peak_cached_;
  Owned<> misses_;

  // Any thread's.
  alignas(64) std::atomic<std::size_t> refused_{0};
  std::atomic<std::size_t> failures_{0};
  std::atomic<std::size_t> keep_asked_{unbounded};  // by a trim on another thread

  std::mutex uses_mutex_;
  Handover handover_;  // guarded by it, but for what depends on the device alone
  std::atomic<bool> has_uses_{false};

  // Guards what follows and, once the owners have left, the pool. Held while the owner ends lives
  // that another thread may be about to end. (The upstream may report then, and a sink of reports
  // use this pool: a request takes the lock only where something is queued, and nothing can be.)
  std::mutex mutex_;
  std::atomic<RemoteFree*> queue_{nullptr};  // the newest first
  OwnedSum queued_;                          // what is in it
  bool is_closed_ = false;
};

}  // namespace cistern
