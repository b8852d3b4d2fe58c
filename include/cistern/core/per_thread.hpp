// One item for each thread that asks, found without a lock: what a thread keeps for itself of an
// object that many share. C++ has such variables for programs, not for objects, of which there are
// any number.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cistern {

class PerThread {
 public:
  /// `ended(context, item)` is called by a thread that ends, for the item it has here. It may take
  /// locks, if nobody makes or destroys a `PerThread`, or calls `set`, under one of them. Other
  /// threads that end, and who makes or destroys a `PerThread`, wait until it returns.
  using Ended = void (*)(void* context, void* item) noexcept;

  /// Throws std::bad_alloc.
  PerThread(Ended ended, void* context);
  PerThread(const PerThread&) = delete;
  PerThread& operator=(const PerThread&) = delete;
  PerThread(PerThread&&) = delete;
  PerThread& operator=(PerThread&&) = delete;
  /// Waits for threads that are ending now; no call is made afterwards.
  ~PerThread();

  /// The item of the calling thread, or null. A few nanoseconds.
  [[nodiscard]] void* get() const noexcept {
    const Table& table = thread_table;
    if (place_ >= table.size) return nullptr;
    const Entry& entry = table.entries[place_];
    if (entry.id != id_) return nullptr;
    if (entry.item == nullptr) __builtin_unreachable();
    return entry.item;
  }

  /// Gives the calling thread an item, which is not null. False if it is ending, or the host has no
  /// memory.
  [[nodiscard]] bool set(void* item) noexcept;

 private:
  struct Entry {
    std::uint64_t id = 0;  // whose: places are used again, ids are not
    void* item = nullptr;
  };
  struct Table {
    Entry* entries = nullptr;
    std::size_t size = 0;
    bool is_closed = false;
  };
  class Registry;
  struct AtThreadEnd;

  static constinit thread_local Table thread_table;

  std::uint64_t id_ = 0;
  std::size_t place_ = 0;
  Ended ended_;
  void* context_;
};

}  // namespace cistern
