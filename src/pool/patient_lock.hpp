// Taking a pool's lock where several threads want it at once: what it guards takes some ten
// nanoseconds, and being woken by the system some thousand.
#pragma once

#include <mutex>

namespace cistern {

/// Tries again for a while before it lets the thread sleep. `was_taken` is set if the lock was not
/// free at once.
[[nodiscard]] inline std::unique_lock<std::mutex> lock_patiently(std::mutex& mutex,
                                                                 bool& was_taken) noexcept {
  constexpr int tries = 200;
  std::unique_lock lock(mutex, std::try_to_lock);
  was_taken = !lock.owns_lock();
  for (int i = 0; i < tries && !lock.owns_lock(); ++i) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
    static_cast<void>(lock.try_lock());
  }
  if (!lock.owns_lock()) lock.lock();
  return lock;
}

}  // namespace cistern
