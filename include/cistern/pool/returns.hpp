// What a pool gives back to its upstream: taken out of the pool under its lock, given back outside
// it. Another thread whose request the upstream refuses meanwhile has not run out of memory: it
// waits for what is on its way, and asks again.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace cistern {

/// Nodes on their way upstream, chained by their `next_free`. One thread's own.
template <class Node>
class Leaving {
 public:
  void add(Node& node) noexcept {
    node.next_free = first_;
    first_ = &node;
    ++size_;
  }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// `visit(node)` may put the node elsewhere.
  template <class Visit>
  void each(Visit visit) const noexcept {
    for (Node* node = first_; node != nullptr;) {
      Node* next = node->next_free;
      visit(*node);
      node = next;
    }
  }

 private:
  Node* first_ = nullptr;
  std::size_t size_ = 0;
};

/// The count of what has left a pool and of what has arrived upstream, guarded by the pool's mutex.
class Returns {
 public:
  /// So often a request that would fail waits for what other threads are giving back.
  static constexpr int most_waits = 16;

  explicit Returns(std::mutex& mutex) noexcept : mutex_(mutex) {}

  // Under the lock.
  void begin() noexcept { ++leaving_; }
  void end(std::size_t nodes) noexcept {
    leaving_ -= nodes;
    arrived_ += nodes;
    has_arrived_.notify_all();
  }
  [[nodiscard]] bool none_leaving() const noexcept { return leaving_ == 0; }

  // Outside it.
  [[nodiscard]] std::uint64_t arrived() const noexcept {
    const std::lock_guard lock(mutex_);
    return arrived_;
  }
  /// True once more than `before` have arrived; false if no more have, and none is on its way.
  [[nodiscard]] bool wait_for_more_than(std::uint64_t before) noexcept {
    std::unique_lock lock(mutex_);
    if (leaving_ == 0 && arrived_ == before) return false;
    has_arrived_.wait(lock, [&] { return arrived_ != before; });
    return true;
  }

 private:
  std::mutex& mutex_;
  std::size_t leaving_ = 0;
  std::uint64_t arrived_ = 0;
  std::condition_variable has_arrived_;
};

}  // namespace cistern
