// The arena that learns. A loop that allocates alike each turn (a decoded token, a training step)
// needs no search for memory: once a cycle has repeated, its blocks are given places in one slab,
// as tightly as the planner can, and the n-th request of the next cycles is served by comparing it
// with the n-th of the plan. Of one thread, as `owned_pool.hpp` says; a turn begins with `cycle`,
// or with `reset`, which also takes back all that is not held.
//
// **What is learned.** Two cycles in a row that are alike in everything but sizes: the order of
// allocations and frees, alignments, streams. A size that differed between them is one that varies:
// its place has room for an eighth more than the larger, and it may be any size up to that.
//
// **What is promised.** As long as cycles keep to the plan, the n-th allocation of each lies at the
// same address. `pin` keeps the plan and its slab as they are, whatever deviates, until `unpin`.
//
// **What deviates** goes upstream, without harm to what is live: a place is given only while
// nothing that is live overlaps it. A size that outgrew its place is passed on, and the plan is
// made anew for the next cycle. After any other deviation (a request left out, inserted, or of
// another size; a free that comes late, or in another order) the rest of the cycle is matched to
// the plan step by step, in O(log n) instead of one comparison; most of it is still served. A
// deviation that repeats is learned.
//
// Blocks that live longer than until the next cycle has come to where they were taken are passed
// on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "cistern/core/intrusive_list.hpp"
#include "cistern/core/intrusive_tree.hpp"
#include "cistern/core/slab.hpp"
#include "cistern/pool/cycle_plan.hpp"
#include "cistern/pool/cycle_record.hpp"
#include "cistern/pool/owned_pool.hpp"

namespace cistern {

class Planned final : public OwnedPool {
 public:
  struct Options {
    std::uint64_t steps = 20'000;  // that the planner may take each time
  };

  struct Counts {
    std::uint64_t plans = 0;       // cycles that were learned
    std::uint64_t served = 0;      // requests, from a plan
    std::uint64_t passed_on = 0;   // requests that went upstream
    std::uint64_t deviations = 0;  // cycles that did not keep to the plan
  };

  /// Throws std::invalid_argument if `upstream` is null. A request and a free in the order of the
  /// plan are O(1), others O(log n) and a call upstream; a cycle that is learned or begins anew
  /// after a deviation is O(n), and plans.
  Planned(Ref<Resource> upstream, const Options& options);
  explicit Planned(Ref<Resource> upstream) : Planned(std::move(upstream), Options{}) {}

  [[nodiscard]] Counts counts() const noexcept;
  /// True while the cycle keeps to the plan.
  [[nodiscard]] bool is_served_from_plan() const noexcept { return mode_ == Mode::in_order; }
  /// Bytes of the slab that the plan lies in; 0 where there is none.
  [[nodiscard]] std::size_t slab_bytes() const noexcept { return laid_.slab.bytes; }

  /// Keeps plan and slab. False, and nothing is kept, if there is none. Not idle, so not trimmed.
  bool pin() noexcept;
  void unpin() noexcept { is_pinned_ = false; }

  using OwnedPool::allocate;
  using OwnedPool::deallocate;
  using OwnedPool::reset_peaks;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override {
    PlanStep* const step = next_.read();
    if (is_served_by(step, request)) [[likely]]
      return take(*step, request.bytes, generation_);
    return seek(request, Until::reset);
  }
  [[nodiscard]] Expected<Block> try_allocate_held(const Request& request) noexcept override {
    PlanStep* const step = next_.read();
    if (is_served_by(step, request)) [[likely]] {
      has_held_ = true;
      return take(*step, request.bytes, generation_ | held_bit);
    }
    return seek(request, Until::freed);
  }
  /// What `Resource::allocate` does, in fewer steps for a caller that knows that this is planned.
  [[nodiscard]] Block allocate(std::size_t bytes) {
    PlanStep* const step = next_.read();
    if (step < barrier_.read() && step->accepts_plain(bytes)) [[likely]]
      return take(*step, bytes, generation_);
    return OwnedPool::allocate(bytes);
  }
  bool deallocate(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override;
  void explain(Shortage& shortage) const noexcept override;
  [[nodiscard]] std::size_t trimmable() const noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  enum class Mode : std::uint8_t {
    learning,   // there is no plan, or no slab for it: all is passed on and recorded
    in_order,   // the cycle keeps to the plan
    by_search,  // it has deviated: steps are found by search, and all is recorded
  };
  enum class Until : bool { reset, freed };

  /// A block of the upstream's.
  struct Passed : Node {
    Block below;
    Stream stream;
    bool is_held = false;
    RemoteFree remote;
    std::uint64_t born = 0;    // the cycle
    std::uint32_t number = 0;  // in the record of that cycle
    ListLinks<Passed> links;   // of all that are live
    Passed* next_free = nullptr;
  };

  /// A plan, and the memory it lies in.
  struct Laid {
    std::unique_ptr<PlanSteps> steps;
    std::unique_ptr<CyclePlan> plan;
    Block slab;     // empty where there is no memory for it
    Stream stream;  // all that is used again of the slab is used on it
    Stream behind;  // comes after all that has used it: the same, if that can be made to wait

    [[nodiscard]] bool is_home() const noexcept { return behind.id == stream.id; }
  };

  struct ByPlace {
    static bool before(const PlanStep& a, const PlanStep& b) noexcept { return a.place < b.place; }
  };

  // Generations are odd while a block is live. Their other lowest bits say what a reset and a free
  // must know; a block that grows has another life in the same cycle.
  static constexpr std::uint64_t held_bit = 2;
  static constexpr std::uint64_t passed_bit = 4;
  static constexpr std::uint64_t life_step = 8;  // of one record, within a cycle
  static constexpr std::uint64_t cycle_step = 4096;

  // --- the fast path ---

  [[nodiscard]] bool is_served_by(const PlanStep* step, const Request& request) const noexcept {
    return step < barrier_.read() && step->accepts_plain(request.bytes) &&
           is_alignment_within(request.alignment, alignment_) && request.stream.id == 0;
  }
  [[nodiscard]] Block take(PlanStep& step, std::size_t bytes, std::uint64_t generation) noexcept {
    next_.set(&step + 1);
    requested_.rise(bytes);
    step.requested.set(bytes);
    step.generation.store(generation, std::memory_order_relaxed);
    return {.memory = step.memory,
            .offset = step.offset,
            .bytes = step.granted,
            .requested = bytes,
            .node = &step,
            .generation = generation};
  }

  // --- the slow path: requests ---

  Expected<Block> seek(const Request& request, Until until) noexcept;
  Expected<Block> seek_in_order(const Request& request, Until until) noexcept;
  Expected<Block> search(const Request& request, Until until) noexcept;
  Expected<Block> pass_on(const Request& request, Until until, std::uint32_t number) noexcept;
  PlanStep* find_step(const Request& request) noexcept;
  [[nodiscard]] bool can_take(const PlanStep& step, const Request& request) const noexcept;
  [[nodiscard]] bool is_free(const PlanStep& step) const noexcept;
  void deviate() noexcept;
  void record_so_far() noexcept;
  void open_way() noexcept;
  void pass_over() noexcept;

  // --- frees ---

  void take_back_step(PlanStep& step, Stream stream) noexcept;
  void take_back_passed(Passed& record, Stream stream) noexcept;
  void follow_passed_free(const Passed& record) noexcept;
  void end_passed(Passed& record, Stream stream) noexcept;
  void note_free(std::uint64_t born, std::uint32_t number) noexcept;
  void end_uses_of_reset(Laid& laid) noexcept;
  void record_reset() noexcept;
  [[nodiscard]] bool is_live_step(const PlanStep& step) const noexcept;
  [[nodiscard]] static bool is_held(const PlanStep& step) noexcept {
    return (step.generation.load(std::memory_order_relaxed) & held_bit) != 0;
  }
  [[nodiscard]] static bool is_passed(const Node& live) noexcept {
    return (live.generation.load(std::memory_order_relaxed) & passed_bit) != 0;
  }
  [[nodiscard]] bool was_taken(const PlanStep& step) const noexcept {
    return step.generation.load(std::memory_order_relaxed) >= generation_;
  }

  // --- between cycles ---

  void learn() noexcept;
  [[nodiscard]] bool is_planned(const CycleRecord& cycle) const;
  void make_plan(CycleRecord record, const std::vector<bool>& varies) noexcept;
  [[nodiscard]] bool is_alike(std::size_t bytes, std::size_t other) const noexcept;
  void grow_plan() noexcept;
  [[nodiscard]] bool can_order(const CyclePlan& plan, Stream stream) const noexcept;
  PlanSteps& spare_steps(std::size_t number);
  void put_plan_aside() noexcept;
  void forget_retired() noexcept;
  void lay_out() noexcept;
  void give_up_slab(Laid& laid) noexcept;
  void stop_serving() noexcept;
  void begin_in_order() noexcept;
  void begin_by_search() noexcept;
  template <class Visit>
  void each_live_step(const Laid& laid, Visit&& visit) const;
  template <class Visit>
  void each_live_step(Visit&& visit) const;
  // The step's block is live.
  [[nodiscard]] Laid& laid_of(const PlanStep& step) noexcept;
  [[nodiscard]] Sum live_in(const Laid& laid) const noexcept;
  [[nodiscard]] std::size_t trimmable_slab() const noexcept;

  void check_owner_changed() noexcept override;
  [[nodiscard]] bool names(const Block& block) const noexcept override;
  [[nodiscard]] RemoteFree& remote_free(Node& record) const noexcept override;
  [[nodiscard]] Sum sum_of(const Node& record) const noexcept override;
  [[nodiscard]] Sum unsettled_grants() const noexcept override;
  [[nodiscard]] Sum unsettled_frees() const noexcept override;
  void set_settled() noexcept override;
  void take_back(Node& record, Stream stream) noexcept override;
  void take_all_back() noexcept override;
  void end_cycle(bool is_reset) noexcept override;
  void begin_cycle(bool was_reset) noexcept override;
  void trim_own(std::size_t keep_bytes) noexcept override;
  [[nodiscard]] std::uint64_t last_generation() const noexcept override {
    return generation_ | (cycle_step - 1);
  }

  // Read and written by the fast path.
  const std::size_t alignment_;  // of every block
  Owned<PlanStep*> next_;        // the step that comes next
  Owned<PlanStep*> barrier_;     // the first that must wait for a free; null where this is off
  std::uint64_t generation_ = (std::uint64_t{1} << 32U) | 1U;
  Owned<> requested_;                     // bytes, in the cycle and of the plan
  Owned<PlanStep* const*> next_free_;     // the step of the free that comes next
  PlanStep* const* last_free_ = nullptr;  // behind the last
  Owned<> freed_requested_;
  bool has_held_ = false;  // a block of a plan may be

  const Options options_;
  Stream last_asked_;  // the stream of the last request that was recorded
  Mode mode_ = Mode::learning;
  bool is_pinned_ = false;
  std::uint64_t lay_out_at_ = 0;  // not before this cycle, since it failed
  bool has_outgrown_ = false;     // a size that varies was passed on in this cycle
  bool has_kept_ = false;         // the cycle before this one kept to the plan

  mutable std::mutex laid_mutex_;  // held to replace the plan, and to look at it on another thread
  Laid laid_;                      // the plan that is in use
  std::vector<Laid> retired_;      // those in whose slabs something is still live
  std::vector<std::unique_ptr<PlanSteps>> spare_;
  Slab<Passed> passed_{this};
  IntrusiveList<Passed, &Passed::links> live_passed_;

  // Where the figures stand.
  Owned<std::size_t> settled_steps_;
  Owned<std::size_t> settled_frees_;
  Owned<> settled_requested_;
  Owned<> settled_freed_requested_;
  Sum live_planned_;  // in all slabs, settled

  // Of a cycle that does not keep to the plan.
  CycleRecord now_;
  CycleRecord before_;
  std::vector<CycleRecord::Event> passed_frees_;  // of a cycle that still does
  PlanStep* expected_ = nullptr;
  PlanStep* jump_ = nullptr;  // behind the step that was last found elsewhere
  IntrusiveTree<PlanStep, &PlanStep::links, ByPlace> live_;

  Counts counts_;
};

}  // namespace cistern
