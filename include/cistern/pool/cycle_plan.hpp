// A cycle that has repeated, with a place for each of its blocks: what `planned` serves the next
// cycles from. It knows the order of things and where they lie, not what is live.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cistern/core/device.hpp"
#include "cistern/core/intrusive_tree.hpp"
#include "cistern/pool/cycle_record.hpp"
#include "cistern/pool/owned_pool.hpp"

namespace cistern {

class CyclePlan;

/// The n-th allocation of a cycle. It serves a request of `lowest` bytes or so many more, fewer
/// than `span`. The first cache line is all that a request or a free in the order of the plan
/// touches.
struct alignas(64) PlanStep : Node {
  Owned<> requested;  // last
  std::size_t granted = 0;
  std::size_t lowest = 1;
  std::size_t plain_span = 0;  // `span` if the request is for the default stream, else 0
  void* memory = nullptr;      // as in a block of it
  std::size_t offset = 0;

  std::size_t place = 0;  // in the slab
  std::size_t span = 0;   // 0 where it is always passed on
  std::size_t alignment = 1;
  std::uint64_t stream = 0;
  std::size_t usual = 0;        // bytes, as recorded
  std::uint64_t born = 0;       // the cycle in which a block of it was last taken, and its number
  std::uint32_t number = 0;     // in the record of that cycle
  bool varies = false;          // from cycle to cycle
  bool outlives_cycle = false;  // its block is freed in the cycle after
  TreeLinks<PlanStep> links;    // among those that are live, by place
  RemoteFree remote;

  [[nodiscard]] bool accepts_plain(std::size_t bytes) const noexcept {
    return bytes - lowest < plain_span;
  }
  [[nodiscard]] bool accepts(const Request& request) const noexcept {
    return request.bytes - lowest < span && is_alignment_within(request.alignment, alignment) &&
           request.stream.id == stream;
  }
  [[nodiscard]] bool is_elsewhere() const noexcept { return span == 0; }
};

/// The records of a plan's steps. They outlive it, as nodes do, and serve another.
using PlanSteps = std::vector<PlanStep>;

class CyclePlan {
 public:
  struct Options {
    std::uint64_t steps = 0;   // the planner's budget
    std::size_t granule = 1;   // of sizes and places, and their alignment: a power of two
    std::size_t headroom = 8;  // a size that varies has room for one in so many bytes more
  };

  /// Plans what was recorded. `varies` says of each allocation whether its size does; `steps` has
  /// one for each at least, none of them live. Throws std::bad_alloc.
  CyclePlan(CycleRecord record, const std::vector<bool>& varies, PlanSteps& steps,
            const Options& options);

  [[nodiscard]] std::size_t slab_bytes() const noexcept { return slab_bytes_; }
  [[nodiscard]] std::size_t slab_alignment() const noexcept { return slab_alignment_; }
  [[nodiscard]] const CycleRecord& record() const noexcept { return record_; }

  [[nodiscard]] std::span<PlanStep> steps() const noexcept { return steps_; }
  [[nodiscard]] PlanStep* end() const noexcept { return steps_.data() + steps_.size(); }
  [[nodiscard]] bool has(const PlanStep& step) const noexcept;
  [[nodiscard]] std::uint32_t number_of(const PlanStep& step) const noexcept {
    return static_cast<std::uint32_t>(&step - steps_.data());
  }
  [[nodiscard]] bool has_one_stream() const noexcept;

  /// The steps in the order in which they are freed within a cycle, those of the cycle before
  /// included. After so many of these frees, `barrier` is the first step that may not be taken
  /// before the next one.
  [[nodiscard]] std::span<PlanStep* const> frees() const noexcept { return frees_; }
  [[nodiscard]] PlanStep* barrier(std::size_t frees) const noexcept { return barriers_[frees]; }

  /// Granted bytes of the first so many steps, and of the first so many frees.
  [[nodiscard]] std::size_t granted_to(std::size_t steps) const noexcept { return granted_[steps]; }
  [[nodiscard]] std::size_t granted_of_frees(std::size_t frees) const noexcept {
    return freed_[frees];
  }

  /// The law that does not hold; null if all hold.
  [[nodiscard]] const char* validate() const noexcept;

 private:
  void describe_steps(const std::vector<bool>& varies, const Options& options);
  void place(const Options& options);
  void order_frees();

  CycleRecord record_;
  std::span<PlanStep> steps_;
  std::vector<PlanStep*> frees_;
  std::vector<PlanStep*> barriers_;
  std::vector<std::size_t> granted_;
  std::vector<std::size_t> freed_;
  std::size_t slab_bytes_ = 0;
  std::size_t slab_alignment_ = 1;
};

}  // namespace cistern
