// Hands values from one thread to another, in order: what a producer and a consumer of blocks have
// between them. As little as it can be, for it is measured with what it hands over.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <thread>

namespace cistern::command {

/// One thread puts, one other takes. Each waits for the other where it must.
template <class Value>
class HandoverRing {
 public:
  void put(const Value& value) noexcept {
    const std::size_t place = put_.load(std::memory_order_relaxed);
    while (place - taken_.load(std::memory_order_acquire) == slots)
      std::this_thread::yield();
    values_[place % slots] = value;
    put_.store(place + 1, std::memory_order_release);
  }

  [[nodiscard]] Value take() noexcept {
    const std::size_t place = taken_.load(std::memory_order_relaxed);
    while (put_.load(std::memory_order_acquire) == place)
      std::this_thread::yield();
    const Value value = values_[place % slots];
    taken_.store(place + 1, std::memory_order_release);
    return value;
  }

 private:
  static constexpr std::size_t slots = 256;
  static constexpr std::size_t line = 64;  // of the processor's cache, which threads fight for

  alignas(line) std::atomic<std::size_t> put_{0};
  alignas(line) std::atomic<std::size_t> taken_{0};
  alignas(line) std::array<Value, slots> values_{};
};

}  // namespace cistern::command
