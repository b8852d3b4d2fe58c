// A lock for what one thread uses all the time and others hardly ever: its owner enters with one
// plain store, and whoever else wants in pays for both with a fence that the system runs on every
// CPU of the process (Linux's membarrier). Where the system has no such fence there are no such
// locks. (The idea is asymmetric Dekker synchronization: D. Dice, H. Huang, M. Yang, 2001.)
#pragma once

#include <atomic>
#include <thread>

namespace cistern {

class BiasedLock {
 public:
  /// Whether there can be any.
  [[nodiscard]] static bool is_supported() noexcept;

  /// The owner's alone, who does not wait: false while another thread has closed it.
  [[nodiscard]] bool try_enter() noexcept {
    is_inside_.store(true, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // `fence` does the rest
    if (!is_closed_.load(std::memory_order_acquire)) [[likely]]
      return true;
    leave();
    return false;
  }
  void leave() noexcept { is_inside_.store(false, std::memory_order_release); }

  /// Another thread's, of which there is one at a time: `close`, then `fence` (one does for any
  /// number of locks), then `wait`; what the lock guards is its own until it calls `open`.
  void close() noexcept { is_closed_.store(true, std::memory_order_relaxed); }
  /// Aborts if the system refuses, which it did not when it was first asked.
  static void fence() noexcept;
  void wait() const noexcept {
    while (is_inside_.load(std::memory_order_acquire))
      std::this_thread::yield();
  }
  void open() noexcept { is_closed_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> is_inside_{false};
  std::atomic<bool> is_closed_{false};
};

}  // namespace cistern
