// What a program asked for in one turn of its loop: the sizes of its allocations in order, and
// which of them each free ended. Two cycles that are alike in this can be served alike.
//
// Not thread-safe: a pool of one thread writes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cistern/core/block.hpp"

namespace cistern {

class CycleRecord {
 public:
  static constexpr std::size_t most_events = std::size_t{1} << 20U;

  enum class Kind : std::uint8_t {
    allocate,
    free,  // of a block of this cycle
    free_of_cycle_before,
  };

  struct Event {
    Kind kind = Kind::allocate;
    std::uint8_t alignment_bits = 0;  // of the alignment asked for, as a width: 0 stands for none
    std::uint32_t allocation = 0;     // its number among the allocations of its cycle
    std::uint64_t stream = 0;         // of an allocation
    std::size_t bytes = 0;            // of an allocation

    /// The same but for the size.
    [[nodiscard]] bool is_like(const Event& other) const noexcept {
      return kind == other.kind && alignment_bits == other.alignment_bits &&
             allocation == other.allocation && stream == other.stream;
    }
    friend bool operator==(const Event&, const Event&) = default;
  };

  /// Begins anew.
  void clear() noexcept {
    events_.clear();
    allocations_ = 0;
    is_whole_ = true;
  }
  /// What was recorded is not the cycle: too much happened, or memory ran out, or it did not begin
  /// at the beginning.
  void give_up() noexcept { is_whole_ = false; }
  [[nodiscard]] bool is_whole() const noexcept { return is_whole_; }

  /// The allocation's number.
  std::uint32_t add_allocation(const Request& request) noexcept;
  void add_free(Kind kind, std::uint32_t allocation) noexcept;

  [[nodiscard]] const std::vector<Event>& events() const noexcept { return events_; }
  [[nodiscard]] std::uint32_t allocations() const noexcept { return allocations_; }

  /// The bytes of each allocation; `set_bytes` requires as many.
  [[nodiscard]] std::vector<std::size_t> bytes() const;
  void set_bytes(const std::vector<std::size_t>& bytes) noexcept;

  /// True if both are whole, not empty, and the same but for sizes.
  [[nodiscard]] bool is_like(const CycleRecord& other) const noexcept;

 private:
  void add(const Event& event) noexcept;

  std::vector<Event> events_;
  std::uint32_t allocations_ = 0;
  bool is_whole_ = true;
};

}  // namespace cistern
