// An address space without memory behind it: for replaying the traces of large devices on any
// machine, for counting what device calls would have cost, and for making a device fail on demand.
// Addresses are deterministic and never used again, unless the device follows those of another.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "cistern/core/device.hpp"
#include "cistern/core/size.hpp"

namespace cistern {

class SimulatedQueues;

class SimulatedDevice final : public Device {
 public:
  using Duration = std::chrono::nanoseconds;

  struct Options {
    std::size_t capacity = std::size_t{16} << 30;
    std::size_t granularity = 512;  // sizes are rounded up to a multiple; a power of two
    std::size_t alignment = 512;    // of every block; a power of two

    // Where the addresses begin: those of several devices in one stack should not be the same.
    std::size_t first_address = std::size_t{4} << 30;

    // Each block stands alone in a window of addresses as large as the capacity, and grows there.
    bool extensible = false;
    // Blocks that touch may be used as one; those of one after the other do.
    bool joins_adjacent = false;

    // Streams run beside each other, and what is launched on them is checked.
    bool queues = false;

    // What a call costs, in virtual time: nothing sleeps.
    Duration allocate_latency{0};
    Duration free_latency{0};
    Duration residency_latency{0};  // of making memory resident, or ending that, at once
    double ns_per_byte = 0;         // of an allocation

    // Failures on demand, of allocations, of growing and of mapping pages, counted from 1 since the
    // device was made.
    std::uint64_t fail_at = 0;     // the n-th call fails; 0 for none
    std::uint64_t fail_every = 0;  // every n-th call fails; 0 for none
    double fail_probability = 0;   // each call fails with this probability, drawn from `seed`
    std::uint64_t seed = 1;
    std::size_t fail_beyond =
        unbounded;  // a call that would take `reserved` beyond so many bytes fails

    // Refusals of residency, of the calls that make memory resident.
    std::uint64_t refuse_residency_at = 0;     // the n-th is refused; 0 for none
    std::uint64_t refuse_residency_every = 0;  // every n-th is; 0 for none
  };

  SimulatedDevice() : SimulatedDevice(Options{}) {}
  /// Throws std::invalid_argument where a power of two or a probability is none.
  explicit SimulatedDevice(const Options& options);

  /// The calls made so far, failed ones included, and what all calls would have cost.
  [[nodiscard]] std::uint64_t allocation_calls() const noexcept;
  [[nodiscard]] std::uint64_t free_calls() const noexcept;
  [[nodiscard]] Duration virtual_time() const noexcept;

  /// Makes the n-th allocation call from now fail; 0 takes it back.
  void fail_next(std::uint64_t n) noexcept;

  /// The calls that made memory resident, refused ones included; and making the n-th from now be
  /// refused, or with 0 none.
  [[nodiscard]] std::uint64_t residency_calls() const noexcept;
  void refuse_next_residency(std::uint64_t n) noexcept;

  /// Where a device that is being followed put a piece, and how large it was.
  struct Placement {
    std::uintptr_t address = 0;
    std::size_t bytes = 0;
  };

  /// Answers the allocations to come at the addresses of another device: the first that is, when
  /// rounded, as large as the first of `placements` is put there, and so on in their order. Any
  /// other is put above all placements, and so is one whose placement is not aligned as it asks or
  /// overlaps what is live. Replaces what is left of an earlier list. Placements at address 0 or
  /// beyond 2^61 are left out; a piece that was put at one does not grow. Allocates; O(placements).
  /// Throws std::logic_error if the device gave addresses before it was first told to follow.
  void follow(std::span<const Placement> placements);
  /// The allocations so far that were put at a placement.
  [[nodiscard]] std::uint64_t followed_calls() const noexcept;

  /// Pages from 4 KiB to 1 GiB, whatever the granularity of blocks is.
  [[nodiscard]] VirtualMemory* virtual_memory() noexcept override;

  /// Of any memory, as long as the device is not told to refuse.
  [[nodiscard]] Residency* residency() noexcept override;

  /// Null without `Options::queues`. To launch work on, which is what they check.
  [[nodiscard]] SimulatedQueues* queues() const noexcept { return queues_.get(); }
  [[nodiscard]] StreamOrder* stream_order() noexcept override;

  /// Bytes in use, by blocks and by pages that are mapped.
  [[nodiscard]] std::size_t used() const noexcept;

  [[nodiscard]] std::size_t free_memory() const noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  class Pages;
  class Resident;

  ~SimulatedDevice() override;
  Expected<Piece> obtain(std::size_t bytes, std::size_t alignment, Stream stream) noexcept override;
  void give_back(Piece piece, Stream stream) noexcept override;
  Expected<Piece> extend(const Piece& piece, std::size_t bytes) noexcept override;

  // Under the lock.
  Expected<void> take(std::size_t bytes) noexcept;
  void count_free_call() noexcept;
  bool take_commit() noexcept;
  void count_end_of_residency_call() noexcept;
  void* next_addresses(std::size_t bytes, std::size_t alignment) noexcept;
  bool fails_on_demand(std::size_t bytes) noexcept;
  void* take_placement(std::size_t bytes, std::size_t alignment) noexcept;

  const Options options_;
  mutable std::mutex mutex_;  // guards all below
  // Pieces by address, and where each ends.
  using Ends = std::map<std::uintptr_t, std::uintptr_t>;

  std::uintptr_t next_address_;
  Ends followed_;                            // the live ones that were put at placements
  std::vector<Ends::node_type> placements_;  // to come, the next one last; made in advance
  std::uint64_t followed_calls_ = 0;
  std::size_t used_ = 0;
  std::uint64_t allocation_calls_ = 0;
  std::uint64_t free_calls_ = 0;
  std::uint64_t fail_call_ = 0;
  std::uint64_t residency_calls_ = 0;
  std::uint64_t refused_residency_call_ = 0;
  std::uint64_t random_state_;
  double virtual_ns_ = 0;
  const std::unique_ptr<Pages> pages_;
  const std::unique_ptr<Resident> resident_;
  const std::unique_ptr<SimulatedQueues> queues_;  // has a lock of its own
};

}  // namespace cistern
