// Memory of the host through which uploads pass, in a few slots, each in use until what is in it
// has been sent. `Mark` is the device's event for that; a default one stands for nothing to wait
// for. Thread-safe: who has taken a slot may use it outside the lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "cistern/core/block.hpp"

namespace cistern {

template <class Mark>
class StagingSlots {
 public:
  struct Slot {
    std::byte* memory = nullptr;
    Mark sent{};               // when what is in it has been sent
    std::uint64_t stream = 0;  // in which it was
    bool is_taken = false;
  };

  /// Of so many bytes in all; 0 for none.
  explicit StagingSlots(std::size_t bytes) noexcept : slot_bytes_(bytes / most_slots) {}

  [[nodiscard]] std::size_t slot_bytes() const noexcept { return slot_bytes_; }

  /// A slot that is free; else the oldest of the stream's own, whose mark is then to be waited for.
  /// Other streams are not waited for: theirs may stand behind an event that this thread would set.
  /// Null then, and where `obtain`, asked under the lock for the memory of all, answers null.
  template <class Obtain, class IsSent>
  Slot* take(Stream stream, Obtain&& obtain, IsSent&& is_sent) noexcept {
    const std::lock_guard lock(mutex_);
    if (!is_there(obtain)) return nullptr;
    Slot* found = nullptr;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      Slot& slot = slots_[(next_slot_ + i) % slots_.size()];
      if (slot.is_taken) continue;
      if (slot.sent == Mark{} || is_sent(slot.sent)) {
        found = &slot;
        break;
      }
      if (found == nullptr && slot.stream == stream.id) found = &slot;
    }
    if (found == nullptr) return nullptr;
    found->is_taken = true;
    next_slot_ = static_cast<std::size_t>(found - slots_.data() + 1) % slots_.size();
    return found;
  }
  void put(Slot& slot, Mark sent, Stream stream) noexcept {
    const std::lock_guard lock(mutex_);
    slot.sent = sent;
    slot.stream = stream.id;
    slot.is_taken = false;
  }

  /// At the end, when nobody else is here: the memory of all, or null, after `visit(slot)` for
  /// each.
  template <class Visit>
  std::byte* close(Visit&& visit) noexcept {
    for (Slot& slot : slots_)
      visit(slot);
    return slots_.front().memory;
  }

 private:
  static constexpr std::size_t most_slots = 4;

  // Under the lock. Where there is none to be had, uploads do without.
  template <class Obtain>
  bool is_there(Obtain&& obtain) noexcept {
    if (slots_.front().memory != nullptr || slot_bytes_ == 0) return slot_bytes_ != 0;
    std::byte* const memory = obtain();
    if (memory == nullptr) return false;
    for (std::size_t i = 0; i < slots_.size(); ++i)
      slots_[i].memory = memory + i * slot_bytes_;
    return true;
  }

  const std::size_t slot_bytes_;
  std::mutex mutex_;  // guards all below
  std::array<Slot, most_slots> slots_;
  std::size_t next_slot_ = 0;
};

}  // namespace cistern
