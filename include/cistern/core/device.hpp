// What all devices share. A device obtains memory from the system and gives it back; the checks of
// a request, the record of each block, the figures and the refusal of stale frees are the same for
// every device and stand here once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "cistern/core/handover.hpp"
#include "cistern/core/pool_registry.hpp"
#include "cistern/core/ref.hpp"
#include "cistern/core/resource.hpp"
#include "cistern/core/slab.hpp"

namespace cistern {

/// What a device can give. Sizes in bytes; alignment and granularity are powers of two.
struct DeviceLimits {
  const char* kind = "device";     // a literal, as in the stack language: "host", "simulated", ...
  std::string name;                // which one, for people
  std::size_t total_memory = 0;    // what this program may use of it; 0 where unknown
  std::size_t max_allocation = 0;  // the largest single request
  std::size_t alignment = 1;       // every block has at least this
  std::size_t max_alignment = 1;   // the largest that can be asked for
  std::size_t granularity = 1;     // sizes are rounded up to a multiple of it
  bool memory_is_address = true;   // else `Block::memory` is an object, aligned to max_alignment
  bool host_addressable = false;   // the CPU can read and write the memory
  bool extensible = false;         // a block can be made larger where it lies
  bool joins_adjacent = false;     // blocks that touch may be used as one
  bool has_queues = false;  // streams run beside each other: what one freed, another waits for
};

/// Thrown where a device is made that this build or this machine does not have: a program that can
/// do without it catches this, and the stage `first` takes the next.
class DeviceAbsent : public std::runtime_error {
 public:
  DeviceAbsent(const std::string& device, const std::string& reason)
      : std::runtime_error("there is no " + device + " device: " + reason) {}

  /// Of several devices, one reason each.
  explicit DeviceAbsent(const std::string& reasons) : std::runtime_error(reasons) {}
};

/// True if a request may ask for `alignment`: 0 or a power of two that the device can give.
inline bool can_align(std::size_t alignment, const DeviceLimits& limits) noexcept {
  return (alignment & (alignment - 1)) == 0 && alignment <= limits.max_alignment;
}

/// True if the block's first byte is aligned to `alignment`, a power of two.
inline bool is_aligned(const Block& block, std::size_t alignment,
                       const DeviceLimits& limits) noexcept {
  const std::uintptr_t start =
      limits.memory_is_address ? reinterpret_cast<std::uintptr_t>(block.memory) : 0;
  return ((start + block.offset) & (alignment - 1)) == 0;
}

class Residency;
class StreamOrder;
class Transfer;
class VirtualMemory;

class Device : public Resource {
 public:
  [[nodiscard]] const DeviceLimits& limits() const noexcept { return limits_; }

  /// The device's way of mapping memory behind reserved addresses; null where it has none.
  [[nodiscard]] virtual VirtualMemory* virtual_memory() noexcept { return nullptr; }

  /// The device's way of keeping memory resident; null where it has none.
  [[nodiscard]] virtual Residency* residency() noexcept { return nullptr; }

  /// The device's way of ordering its queues; null where it has none.
  [[nodiscard]] virtual StreamOrder* stream_order() noexcept { return nullptr; }

  /// The device's way of copying and filling memory; null where it has none.
  [[nodiscard]] virtual Transfer* transfer() noexcept { return nullptr; }

  /// The pools that stand on this device, or on another object for the same memory.
  [[nodiscard]] virtual PoolRegistry& registry() noexcept { return registry_; }

  /// Bytes that the device can still give, or a lower bound; `unbounded` where nobody knows. May
  /// read files, and allocates nothing.
  [[nodiscard]] virtual std::size_t free_memory() const noexcept;

  using Resource::deallocate;
  using Resource::reset_peaks;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept final;
  /// What is obtained for a batch that fails goes back within the call, and is counted nowhere.
  [[nodiscard]] Expected<void> try_allocate_batch(std::span<const Request> requests,
                                                  std::span<Block> blocks) noexcept final;
  bool deallocate(const Block& block, Stream stream) noexcept final;
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept final;
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept final;
  [[nodiscard]] bool is_live(const Block& block) const noexcept final;
  [[nodiscard]] Stats stats() const noexcept final;
  void reset_peaks(const Stats& floor) noexcept final;
  [[nodiscard]] Outstanding outstanding() const noexcept final;
  [[nodiscard]] Device& device() const noexcept final {
    return const_cast<Device&>(*this);
  }  // NOLINT(*-const-cast)
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override;
  void explain(Shortage& shortage) const noexcept override;
  [[nodiscard]] std::string validate() const override;

 protected:
  /// A piece of the device's memory as the system gave it.
  struct Piece {
    void* memory = nullptr;
    std::size_t bytes = 0;
    std::size_t alignment = 0;
  };

  /// Throws std::invalid_argument where an alignment or the granularity is no power of two.
  explicit Device(DeviceLimits limits);

  /// Obtains at least `bytes` (not zero, a multiple of the granularity) at `alignment` (at least
  /// the default), and gives a piece back, in the order of `stream`: where the system does not wait
  /// for what stands there, the device does. Called outside every lock of this class, by any number
  /// of threads at once. Errors: out_of_memory, too_large, device_failed.
  virtual Expected<Piece> obtain(std::size_t bytes, std::size_t alignment,
                                 Stream stream) noexcept = 0;
  virtual void give_back(Piece piece, Stream stream) noexcept = 0;

  /// Obtains what is missing to make a piece at least `bytes` large where it lies (more than it
  /// has, a multiple of the granularity); answers the whole of it. A call that is made to the
  /// system counts as a device allocation. Called like `obtain`; on failure the piece is as it was.
  /// Errors: those of `obtain`, and cannot_grow, which is all that this implementation answers.
  virtual Expected<Piece> extend(const Piece& piece, std::size_t bytes) noexcept;

  /// Called under the lock with every live piece; for a device's own `validate`.
  template <class Visit>
  void each_live_piece(Visit&& visit) const {
    const std::lock_guard lock(mutex_);
    nodes_.each([&](const DeviceNode& node) {
      if (node.is_live()) visit(node.piece);
    });
  }

  /// Bytes of the pages that are mapped.
  [[nodiscard]] std::size_t mapped_bytes() const noexcept {
    const std::lock_guard lock(mutex_);
    return mapped_;
  }

  Error fail(Errc code, std::size_t requested, std::size_t available = 0) const noexcept {
    return Error{
        .code = code, .stage = limits_.kind, .requested = requested, .available = available};
  }

  /// Most devices keep nothing idle: what goes back to them goes back to the system. One whose
  /// system keeps memory for it says how much beyond what is live, and gives it up when trimmed.
  void trim_to(std::size_t /*keep_bytes*/) noexcept override {}
  [[nodiscard]] virtual std::size_t kept_idle() const noexcept { return 0; }

 private:
  struct DeviceNode : Node {
    Piece piece;
    std::size_t requested = 0;
    DeviceNode* next_free = nullptr;
  };

  friend class Residency;
  friend class VirtualMemory;

  void opened() noexcept final { handover_ = Handover(stream_order()); }
  Expected<Piece> obtain_checked(const Request& request) noexcept;
  Block hand_out(DeviceNode& node) noexcept;
  bool take_nodes(std::span<const Request> requests, std::span<Block> blocks) noexcept;
  void put_nodes(std::span<const Block> blocks) noexcept;
  Expected<Piece> extend_checked(const Piece& piece, std::size_t bytes) noexcept;
  [[nodiscard]] bool names(const Block& block) const noexcept;

  // What the pages of `VirtualMemory` cost.
  void count_mapped(std::size_t bytes) noexcept;
  void count_unmapped(std::size_t bytes) noexcept;

  // What is resident.
  void count_commit(std::size_t bytes) noexcept;
  void count_refused_commit() noexcept;
  void count_end_of_residency(std::size_t bytes) noexcept;

  const DeviceLimits limits_;
  PoolRegistry registry_;
  mutable std::mutex mutex_;  // guards all below
  Slab<DeviceNode> nodes_{this};
  Handover handover_;
  Stats stats_;
  std::size_t mapped_ = 0;  // bytes of pages that are mapped
};

}  // namespace cistern
