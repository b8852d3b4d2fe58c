#include "cistern/pool/cycle_plan.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "cistern/core/size.hpp"
#include "cistern/plan/plan.hpp"

namespace cistern {
namespace {

using EventKind = CycleRecord::Kind;

constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();

/// When a block of a cycle begins, when it ends in it, and when in the cycle after: numbers of
/// events.
struct Life {
  std::uint64_t begin = 0;
  std::uint64_t end = never;
  std::uint64_t end_after = never;
};

std::vector<Life> lives_in(const CycleRecord& record) {
  std::vector<Life> lives(record.allocations());
  std::uint64_t now = 0;
  for (const CycleRecord::Event& event : record.events()) {
    ++now;
    if (event.allocation >= lives.size()) continue;  // the cycle before was longer
    Life& life = lives[event.allocation];
    (event.kind == EventKind::allocate ? life.begin
     : event.kind == EventKind::free   ? life.end
                                       : life.end_after) = now;
  }
  return lives;
}

}  // namespace

CyclePlan::CyclePlan(CycleRecord record, const std::vector<bool>& varies, PlanSteps& steps,
                     const Options& options)
    : record_(std::move(record)), steps_(steps.data(), record_.allocations()) {
  describe_steps(varies, options);
  place(options);
  order_frees();
}

void CyclePlan::describe_steps(const std::vector<bool>& varies, const Options& options) {
  std::size_t number = 0;
  for (const CycleRecord::Event& event : record_.events()) {
    if (event.kind != EventKind::allocate) continue;
    PlanStep& step = steps_[number];
    const std::size_t asked =
        event.alignment_bits > 0 ? std::size_t{1} << (event.alignment_bits - 1U) : 1;
    step.granted = step.plain_span = step.span = 0;
    step.alignment = std::max(asked, options.granule);
    step.stream = event.stream;
    step.usual = event.bytes;
    step.varies = varies[number];
    step.outlives_cycle = false;
    ++number;
  }
}

// Lives become times of one cycle. A block that is freed in the cycle after keeps its place for the
// whole of it, so that the next one can lie there again; one that is not even freed then, or not
// before the next one is taken, has no place.
void CyclePlan::place(const Options& options) {
  const std::vector<Life> lives = lives_in(record_);
  std::vector<Lifetime> buffers;
  std::vector<PlanStep*> placed;
  for (PlanStep& step : steps_) {
    const Life& life = lives[number_of(step)];
    const bool is_of_cycle = life.end != never;
    step.outlives_cycle = !is_of_cycle && life.end_after < life.begin;
    const std::size_t more = step.varies ? step.usual / options.headroom : 0;
    const std::optional<std::size_t> capacity =
        round_up(saturating_add(step.usual, more), options.granule);
    if ((!is_of_cycle && !step.outlives_cycle) || !capacity) continue;
    step.granted = *capacity;
    step.lowest = step.varies ? 1 : ((step.usual - 1) & ~(options.granule - 1)) + 1;
    step.span = step.granted - step.lowest + 1;
    step.plain_span = step.stream == 0 ? step.span : 0;
    slab_alignment_ = std::max(slab_alignment_, step.alignment);
    buffers.push_back({.lower = is_of_cycle ? life.begin : 0,
                       .upper = is_of_cycle ? life.end : record_.events().size() + 1,
                       .bytes = step.granted,
                       .alignment = step.alignment});
    placed.push_back(&step);
  }
  const Plan plan = make_plan(buffers, {.steps = options.steps});
  for (std::size_t i = 0; i < placed.size(); ++i)
    placed[i]->place = plan.offsets[i];
  slab_bytes_ = plan.peak_bytes;
}

// A free opens the way to all steps up to the next one that was recorded behind a free.
void CyclePlan::order_frees() {
  std::size_t number = 0;
  granted_.push_back(0);
  freed_.push_back(0);
  for (const CycleRecord::Event& event : record_.events()) {
    if (event.kind == EventKind::allocate) {
      granted_.push_back(granted_.back() + steps_[number++].granted);
    } else if (event.allocation < steps_.size() && !steps_[event.allocation].is_elsewhere()) {
      PlanStep& step = steps_[event.allocation];
      frees_.push_back(&step);
      freed_.push_back(freed_.back() + step.granted);
      barriers_.push_back(steps_.data() + number);
    }
  }
  barriers_.push_back(end());
}

bool CyclePlan::has(const PlanStep& step) const noexcept {
  constexpr std::less<const PlanStep*> before;
  return !before(&step, steps_.data()) && before(&step, end());
}

bool CyclePlan::has_one_stream() const noexcept {
  return std::ranges::all_of(
      steps_, [&](const PlanStep& step) { return step.stream == steps_.front().stream; });
}

const char* CyclePlan::validate() const noexcept {
  if (barriers_.size() != frees_.size() + 1) return "planned: each free opens the way to a barrier";
  if (!std::ranges::is_sorted(barriers_)) return "planned: what was opened stays open";
  if (barriers_.back() != end()) return "planned: after all frees every step can be taken";
  for (const PlanStep& step : steps_) {
    if (step.is_elsewhere()) continue;
    if (step.place + step.granted > slab_bytes_) return "planned: every place is in the slab";
    if (step.place % step.alignment != 0) return "planned: every place is aligned";
    if (step.usual - step.lowest >= step.span) return "planned: a step accepts what was recorded";
    if (step.lowest + step.span != step.granted + 1)
      return "planned: a step accepts what it has room for";
  }
  return nullptr;
}

}  // namespace cistern
