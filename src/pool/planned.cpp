#include "cistern/pool/planned.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "cistern/core/device.hpp"
#include "cistern/core/size_tally.hpp"

namespace cistern {
namespace {

using EventKind = CycleRecord::Kind;

// Of the steps around the one that is expected, so many are looked at.
constexpr std::ptrdiff_t longest_plan_search = 16;

// Where there was no memory for the slab.
constexpr std::uint64_t cycles_between_attempts = 16;

}  // namespace

Planned::Planned(Ref<Resource> upstream, const Options& options)
    : OwnedPool(std::move(upstream), "planned"),
      alignment_(device().limits().alignment),
      options_(options) {}

// --- Requests that are not the next step's. ---

Expected<Block> Planned::seek(const Request& request, Until until) noexcept {
  if (request.bytes == 0) return Block{};
  const Expected<void> entered = enter(request.bytes);
  if (entered) {
    has_held_ = has_held_ || until == Until::freed;
    last_asked_ = request.stream;
  }
  Expected<Block> block = !entered                  ? tl::unexpected(entered.error())
                          : mode_ == Mode::in_order ? seek_in_order(request, until)
                          : mode_ == Mode::by_search
                              ? search(request, until)
                              : pass_on(request, until, now_.add_allocation(request));
  if (!block) count_failure();
  return block;
}

// The next step may be one that the fast path does not take: of a stream or an alignment of its
// own, one that is always passed on, one whose size has outgrown its place.
Expected<Block> Planned::seek_in_order(const Request& request, Until until) noexcept {
  const CyclePlan& plan = *laid_.plan;
  PlanStep* const step = next_.read();
  const bool is_due =
      step != plan.barrier(static_cast<std::size_t>(next_free_.read() - plan.frees().data()));
  if (is_due && step->accepts(request)) {
    const std::uint64_t bits = until == Until::freed ? held_bit : 0;
    const Block block = take(*step, request.bytes, generation_ | bits);
    settle();
    open_way();
    return block;
  }
  const bool is_like = is_due && step->stream == request.stream.id &&
                       std::max(request.alignment, alignment_) == step->alignment;
  const bool has_outgrown = is_like && step->varies && request.bytes > step->granted;
  const bool is_elsewhere = is_like && step->is_elsewhere() && request.bytes == step->usual;
  if (has_outgrown || is_elsewhere) {
    has_outgrown_ = has_outgrown_ || has_outgrown;
    step->requested.set(request.bytes);
    pass_over();
    return pass_on(request, until, plan.number_of(*step));
  }
  deviate();
  return search(request, until);
}

// The step's block comes from elsewhere, and is no part of the plan's figures.
void Planned::pass_over() noexcept {
  next_.set(next_.read() + 1);
  settled_steps_.rise(1);
  open_way();
}

void Planned::open_way() noexcept {
  const CyclePlan& plan = *laid_.plan;
  const auto done = static_cast<std::size_t>(next_free_.read() - plan.frees().data());
  barrier_.set(checks_owner() ? nullptr : plan.barrier(done));
}

Expected<Block> Planned::search(const Request& request, Until until) noexcept {
  PlanStep* const step = find_step(request);
  const std::uint32_t number = now_.add_allocation(request);
  if (step == nullptr) return pass_on(request, until, number);
  step->born = cycles();
  step->number = number;
  step->requested.set(request.bytes);
  const std::uint64_t generation = generation_ | (until == Until::freed ? held_bit : 0);
  step->generation.store(generation, std::memory_order_relaxed);
  live_.insert(step);
  const Sum sum{.blocks = 1, .requested = request.bytes, .granted = step->granted};
  count_grant(sum);
  live_planned_ += sum;
  ++counts_.served;
  return Block{.memory = step->memory,
               .offset = step->offset,
               .bytes = step->granted,
               .requested = request.bytes,
               .node = step,
               .generation = generation};
}

// What was left out or inserted is not known when it happens. So there are two guesses: that the
// cycle goes on where it was, and that it goes on behind the step that was last found elsewhere.
PlanStep* Planned::find_step(const Request& request) noexcept {
  const CyclePlan& plan = *laid_.plan;
  PlanStep* const first = plan.steps().data();
  PlanStep* const end = plan.end();
  if (expected_ != end && can_take(*expected_, request)) return expected_++;
  if (jump_ != nullptr && jump_ != end && can_take(*jump_, request)) {
    expected_ = std::exchange(jump_, nullptr);
    return expected_++;
  }
  for (PlanStep* step = expected_; step != end && step - expected_ < longest_plan_search; ++step) {
    if (!can_take(*step, request)) continue;
    jump_ = step + 1;
    return step;
  }
  for (PlanStep* step = expected_; step != first && expected_ - step < longest_plan_search;) {
    if (can_take(*--step, request)) return step;
  }
  return nullptr;
}

bool Planned::can_take(const PlanStep& step, const Request& request) const noexcept {
  return step.accepts(request) && !was_taken(step) && is_free(step);
}

// Nothing that is live overlaps its place. Those that are live do not overlap each other, so that
// the first that ends behind the start of the place decides.
bool Planned::is_free(const PlanStep& step) const noexcept {
  const PlanStep* const other = live_.first_reached(
      [&](const PlanStep& live) { return live.place + live.granted > step.place; });
  return other == nullptr || other->place >= step.place + step.granted;
}

// From here on the cycle is matched to the plan by search, and recorded, what has happened so far
// included.
void Planned::deviate() noexcept {
  settle();
  ++counts_.deviations;
  record_so_far();
  mode_ = Mode::by_search;
  expected_ = next_.read();
  jump_ = nullptr;
  barrier_.set(nullptr);
  last_free_ = next_free_.read();
  live_ = {};
  for (PlanStep& step : laid_.plan->steps()) {
    if (!is_live_step(step)) continue;
    live_.insert(&step);
    if (has_kept_ && !was_taken(step)) {
      step.born = cycles() - 1;
      step.number = laid_.plan->number_of(step);
    }
  }
}

// As the plan was recorded, as far as the cycle has come.
void Planned::record_so_far() noexcept {
  now_.clear();
  const CyclePlan& plan = *laid_.plan;
  const std::span<PlanStep> steps = plan.steps();
  const auto taken = static_cast<std::size_t>(next_.read() - steps.data());
  auto frees = static_cast<std::size_t>(next_free_.read() - plan.frees().data());
  const auto before = [](const CycleRecord::Event& a, const CycleRecord::Event& b) {
    return std::pair(a.kind, a.allocation) < std::pair(b.kind, b.allocation);
  };
  std::ranges::sort(passed_frees_, before);
  std::size_t number = 0;
  for (const CycleRecord::Event& event : plan.record().events()) {
    if (event.kind == EventKind::allocate) {
      if (number == taken) continue;
      PlanStep& step = steps[number];
      step.born = cycles();
      step.number = static_cast<std::uint32_t>(number++);
      now_.add_allocation({.bytes = step.requested.read(),
                           .alignment = event.alignment_bits > 0
                                            ? std::size_t{1} << (event.alignment_bits - 1U)
                                            : 0,
                           .stream = {.handle = nullptr, .id = event.stream}});
    } else if (event.allocation < steps.size() && !steps[event.allocation].is_elsewhere()) {
      if (frees == 0) continue;
      --frees;
      now_.add_free(event.kind, event.allocation);
    } else if (std::ranges::binary_search(passed_frees_, event, before)) {
      now_.add_free(event.kind, event.allocation);
    }
  }
}

Expected<Block> Planned::pass_on(const Request& request, Until until,
                                 std::uint32_t number) noexcept {
  Expected<Block> block = ask_upstream([&] { return upstream().try_allocate(request); });
  Passed* const record = block ? passed_.take() : nullptr;
  if (record == nullptr) {
    now_.give_up();
    if (!block) return block;
    upstream().deallocate(*block, request.stream);
    return tl::unexpected(fail(Errc::out_of_memory, request.bytes));
  }
  record->below = *block;
  record->stream = request.stream;
  record->is_held = until == Until::freed;
  record->born = cycles();
  record->number = number;
  const std::uint64_t before =
      std::max(record->generation.load(std::memory_order_relaxed), first_generation());
  const std::uint64_t generation = ((before | (life_step - 1)) + 1) | passed_bit | 1U;
  record->generation.store(generation, std::memory_order_relaxed);
  live_passed_.push(record);
  hold_more(block->bytes);
  count_grant({.blocks = 1, .requested = block->requested, .granted = block->bytes});
  count_miss();
  ++counts_.passed_on;
  block->node = record;
  block->generation = generation;
  return block;
}

// --- Frees. ---

// In the order of the plan, and of a block of this cycle: no more is to be known.
bool Planned::deallocate(const Block& block, Stream stream) noexcept {
  PlanStep* const* const free = next_free_.read();
  if (!is_owner() || free == last_free_ || block.node != *free || has_queue() || has_uses() ||
      !is_ready(stream, laid_.stream) || block.generation < generation_ ||
      block.generation != (*free)->generation.load(std::memory_order_relaxed)) {
    return OwnedPool::deallocate(block, stream);
  }
  // What is live is counted before it falls.
  const std::size_t taken = static_cast<std::size_t>(next_.read() - laid_.plan->steps().data());
  if (taken != settled_steps_.read()) settle();
  freed_requested_.rise((*free)->requested.read());
  (*free)->end_life();
  next_free_.set(free + 1);
  open_way();
  return true;
}

void Planned::take_back(Node& record, Stream stream) noexcept {
  if (is_passed(record)) {
    take_back_passed(static_cast<Passed&>(record), stream);
  } else {
    take_back_step(static_cast<PlanStep&>(record), stream);
  }
  note_cached_peak();
}

void Planned::take_back_step(PlanStep& step, Stream stream) noexcept {
  Laid& laid = laid_of(step);
  const bool is_of_plan = &laid == &laid_;
  laid.behind = end_uses(step, join(laid.behind, stream));
  if (is_of_plan && mode_ == Mode::in_order) {
    if (laid.is_home() && next_free_.read() != last_free_ && *next_free_.read() == &step) {
      freed_requested_.rise(step.requested.read());
      step.end_life();
      next_free_.set(next_free_.read() + 1);
      settle();
      open_way();
      if (is_closed()) trim_own(0);
      return;
    }
    deviate();
  }
  if (is_of_plan && mode_ == Mode::by_search) {
    live_.erase(&step);
    note_free(step.born, step.number);
  }
  const Sum sum = sum_of(step);
  count_free(sum);
  live_planned_ -= sum;
  step.end_life();
  if (is_of_plan && !laid.is_home()) {
    now_.give_up();
    stop_serving();
  }
  if (!is_of_plan) forget_retired();
  if (is_closed()) trim_own(0);
}

void Planned::take_back_passed(Passed& record, Stream stream) noexcept {
  if (mode_ == Mode::in_order) {
    follow_passed_free(record);
  } else {
    note_free(record.born, record.number);
  }
  end_passed(record, stream);
}

// A block that was passed on in the place of a step: its free is the step's.
void Planned::follow_passed_free(const Passed& record) noexcept {
  const std::uint64_t age = cycles() - record.born;
  const std::span<PlanStep> steps = laid_.plan->steps();
  if (age > 1 || record.number >= steps.size()) return;
  const PlanStep& step = steps[record.number];
  if (step.is_elsewhere()) return note_free(record.born, record.number);
  const bool is_awaited = next_free_.read() != last_free_ && *next_free_.read() == &step;
  if (is_awaited && (age == 1) == step.outlives_cycle && !is_live_step(step)) {
    next_free_.set(next_free_.read() + 1);
    settled_frees_.rise(1);
    open_way();
  } else {
    deviate();
    note_free(record.born, record.number);
  }
}

void Planned::end_passed(Passed& record, Stream stream) noexcept {
  const Block below = record.below;
  const Stream last = end_uses(record, stream);
  count_free(sum_of(record));
  record.end_life();
  live_passed_.remove(&record);
  hold_less(below.bytes);
  passed_.put(&record);
  upstream().deallocate(below, last);
}

// Of older cycles nothing is known.
void Planned::note_free(std::uint64_t born, std::uint32_t number) noexcept {
  if (born + 1 < cycles()) return;
  const EventKind kind = born == cycles() ? EventKind::free : EventKind::free_of_cycle_before;
  if (mode_ != Mode::in_order) return now_.add_free(kind, number);
  try {
    passed_frees_.push_back({.kind = kind, .allocation = number});
  } catch (const std::bad_alloc&) {
    before_.give_up();  // a deviation will not be told from the plan: it is learned later
  }
}

void Planned::take_all_back() noexcept {
  if (mode_ == Mode::in_order) {
    bool is_kept_to = next_.read() == laid_.plan->end();
    if (has_held_) {
      each_live_step(laid_, [&](const PlanStep& step) {
        is_kept_to = is_kept_to && (!is_held(step) || step.outlives_cycle);
      });
    }
    if (!is_kept_to) deviate();
  }
  if (mode_ != Mode::in_order) record_reset();
  for (Passed* record = live_passed_.oldest(); record != nullptr;) {
    Passed* const newer = decltype(live_passed_)::newer(record);
    if (!record->is_held) end_passed(*record, record->stream);
    record = newer;
  }
  end_uses_of_reset(laid_);
  for (Laid& retired : retired_)
    end_uses_of_reset(retired);
  // The steps are over because their generations are of before the reset.
  Sum ended = live_planned_;
  if (has_held_) {
    const auto keep = [&](const PlanStep& step) {
      if (is_held(step)) ended -= sum_of(step);
    };
    each_live_step(keep);
  }
  live_planned_ -= ended;
  count_free(ended);
  note_cached_peak();
}

void Planned::end_uses_of_reset(Laid& laid) noexcept {
  const auto ends = [&](const Node& record) {
    if (is_passed(record)) return false;
    const auto& step = static_cast<const PlanStep&>(record);
    return !is_held(step) && &laid_of(step) == &laid;
  };
  laid.behind = end_uses_if(ends, laid.behind);
}

// What a reset ends is recorded in the order in which it was taken.
void Planned::record_reset() noexcept try {
  std::vector<std::pair<std::uint64_t, std::uint32_t>> ended;
  for (const Passed* record = live_passed_.oldest(); record != nullptr;
       record = decltype(live_passed_)::newer(record)) {
    if (!record->is_held) ended.emplace_back(record->born, record->number);
  }
  if (mode_ == Mode::by_search) {
    live_.each([&](const PlanStep& step) {
      if (!is_held(step)) ended.emplace_back(step.born, step.number);
    });
  }
  std::ranges::sort(ended);
  for (const auto& [born, number] : ended)
    note_free(born, number);
} catch (const std::bad_alloc&) {
  now_.give_up();
}

// --- Between cycles. ---

void Planned::end_cycle(bool is_reset) noexcept {
  if (mode_ == Mode::in_order && !is_reset &&
      (next_.read() != laid_.plan->end() || next_free_.read() != last_free_)) {
    deviate();
  }
  if (mode_ == Mode::in_order && is_reset) {
    // The frees that the plan still awaits are those of the reset.
    const std::lock_guard lock(laid_mutex_);
    settled_frees_.set(laid_.plan->frees().size());
    next_free_.set(last_free_);
  }
  learn();
}

// Two cycles in a row that are alike make a plan. One that has kept to the plan says nothing new,
// unless sizes have outgrown their places.
void Planned::learn() noexcept try {
  if (mode_ == Mode::in_order) {
    before_.give_up();
    if (has_outgrown_) grow_plan();
    return;
  }
  if (now_.is_like(before_) && !is_planned(now_)) {
    std::vector<std::size_t> bytes = now_.bytes();
    const std::vector<std::size_t> bytes_before = before_.bytes();
    std::vector<bool> varies(bytes.size());
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      varies[i] = !is_alike(bytes[i], bytes_before[i]);
      bytes[i] = std::max(bytes[i], bytes_before[i]);
    }
    if (laid_.plan != nullptr && now_.is_like(laid_.plan->record())) {
      // What varied once is taken to vary again.
      for (const PlanStep& step : laid_.plan->steps()) {
        const std::size_t i = laid_.plan->number_of(step);
        varies[i] = varies[i] || step.varies || !is_alike(step.usual, bytes[i]);
      }
    }
    CycleRecord larger = now_;
    larger.set_bytes(bytes);
    make_plan(std::move(larger), varies);
  }
  std::swap(before_, now_);
} catch (const std::bad_alloc&) {
  before_.give_up();
}

bool Planned::is_alike(std::size_t bytes, std::size_t other) const noexcept {
  return (bytes - 1) / alignment_ == (other - 1) / alignment_;
}

// The plan in use is one for such a cycle, and another would be the same: what is still live of
// cycles before is in its way, or there is no memory for its slab.
bool Planned::is_planned(const CycleRecord& cycle) const {
  if (laid_.plan == nullptr || !cycle.is_like(laid_.plan->record())) return false;
  const auto has_room = [](const PlanStep& step, std::size_t bytes) {
    return step.is_elsewhere() ? bytes == step.usual : bytes - step.lowest < step.span;
  };
  return std::ranges::equal(laid_.plan->steps(), cycle.bytes(), has_room);
}

void Planned::grow_plan() noexcept try {
  CycleRecord record = laid_.plan->record();
  std::vector<std::size_t> bytes = record.bytes();
  std::vector<bool> varies(bytes.size());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const PlanStep& step = laid_.plan->steps()[i];
    varies[i] = step.varies;
    if (step.varies) bytes[i] = std::max(bytes[i], step.requested.read());
  }
  record.set_bytes(bytes);
  make_plan(std::move(record), varies);
} catch (const std::bad_alloc&) {
  return;
}

void Planned::make_plan(CycleRecord record, const std::vector<bool>& varies) noexcept try {
  if (is_pinned_) return;
  PlanSteps& steps = spare_steps(record.allocations());
  auto plan = std::make_unique<CyclePlan>(
      std::move(record), varies, steps,
      CyclePlan::Options{.steps = options_.steps, .granule = alignment_, .headroom = 8});
  const Stream stream =
      laid_.plan != nullptr && mode_ == Mode::in_order ? laid_.stream : last_asked_;
  if (plan->slab_bytes() == 0 || !can_order(*plan, stream)) return;
  Laid next{.steps = std::move(spare_.back()),
            .plan = std::move(plan),
            .slab = {},
            .stream = stream,
            .behind = stream};
  spare_.pop_back();
  if (laid_.plan != nullptr) put_plan_aside();
  const std::lock_guard lock(laid_mutex_);
  laid_ = std::move(next);
  lay_out_at_ = 0;
  ++counts_.plans;
} catch (const std::exception&) {
  return;  // no memory, or sizes beyond any memory: the cycle is not learned
}

// Where streams run beside each other a plan is of one, which waits for whatever else uses its
// memory; one that runs out of order would need a barrier for each block.
bool Planned::can_order(const CyclePlan& plan, Stream stream) const noexcept {
  if (!device().limits().has_queues) return true;
  return !stream.runs_out_of_order() && plan.has_one_stream() &&
         plan.steps().front().stream == stream.id;
}

// The last of `spare_`. There is room then for all that may come to lie there and in `retired_`.
PlanSteps& Planned::spare_steps(std::size_t number) {
  retired_.reserve(retired_.size() + 1);
  spare_.reserve(spare_.size() + retired_.size() + 2);
  const auto fits = [&](const auto& steps) { return steps->size() >= number; };
  const auto found = std::ranges::find_if(spare_, fits);
  if (found != spare_.end()) {
    std::swap(*found, spare_.back());
  } else {
    spare_.push_back(std::make_unique<PlanSteps>(number + number / 2));
    for (PlanStep& step : *spare_.back())
      step.owner = this;
  }
  return *spare_.back();
}

// Its slab goes back at once, or with the last block that lies in it.
void Planned::put_plan_aside() noexcept {
  stop_serving();
  {
    const std::lock_guard lock(laid_mutex_);
    retired_.push_back(std::exchange(laid_, {}));
  }
  forget_retired();
}

void Planned::forget_retired() noexcept {
  std::erase_if(retired_, [&](Laid& laid) {
    if (live_in(laid).blocks > 0) return false;
    give_up_slab(laid);
    spare_.push_back(std::move(laid.steps));
    return true;
  });
}

// What the learned cycle left idle below goes back first: the slab takes its place.
void Planned::lay_out() noexcept {
  const CyclePlan& plan = *laid_.plan;
  trim_upstream(0);
  const std::size_t alignment = plan.slab_alignment();
  const Expected<Block> slab =
      upstream().try_allocate({.bytes = plan.slab_bytes(),
                               .alignment = alignment > alignment_ ? alignment : 0,
                               .stream = laid_.stream});
  if (!slab) return;
  laid_.slab = *slab;
  hold_more(slab->bytes);
  note_cached_peak();
  const bool is_address = device().limits().memory_is_address;
  for (PlanStep& step : plan.steps()) {
    step.memory = static_cast<std::byte*>(slab->memory) + (is_address ? step.place : 0);
    step.offset = slab->offset + (is_address ? 0 : step.place);
  }
}

void Planned::give_up_slab(Laid& laid) noexcept {
  if (laid.slab.empty()) return;
  hold_less(laid.slab.bytes);
  const Stream last = join(std::exchange(laid.behind, laid.stream), laid.stream);
  upstream().deallocate(std::exchange(laid.slab, {}), last);
}

// Until the next cycle begins, all is passed on.
void Planned::stop_serving() noexcept {
  settle();
  if (mode_ == Mode::in_order) now_.give_up();
  mode_ = Mode::learning;
  const std::lock_guard lock(laid_mutex_);
  next_.set(nullptr);
  barrier_.set(nullptr);
  next_free_.set(nullptr);
  last_free_ = nullptr;
  live_ = {};
}

void Planned::begin_cycle(bool was_reset) noexcept {
  has_kept_ = mode_ == Mode::in_order;
  generation_ = ((was_reset ? first_generation() : generation_) | (cycle_step - 1)) + 2;
  if (was_reset) {
    has_held_ = has_held_ && live_planned_.blocks > 0;
    forget_retired();
  }
  has_outgrown_ = false;
  passed_frees_.clear();
  if (laid_.plan != nullptr && laid_.slab.empty() && cycles() >= lay_out_at_) {
    lay_out();
    lay_out_at_ = cycles() + cycles_between_attempts;
  }
  if (make_ready(laid_.behind, laid_.stream)) laid_.behind = laid_.stream;
  if (laid_.plan == nullptr || laid_.slab.empty() || !laid_.is_home()) {
    stop_serving();
    now_.clear();
    return;
  }
  bool is_clear = true;
  if (!has_kept_ && live_planned_.blocks > 0) {
    each_live_step(laid_,
                   [&](const PlanStep& step) { is_clear = is_clear && step.outlives_cycle; });
  }
  if (is_clear) {
    begin_in_order();
  } else {
    begin_by_search();
  }
}

void Planned::begin_in_order() noexcept {
  const CyclePlan& plan = *laid_.plan;
  const std::lock_guard lock(laid_mutex_);
  mode_ = Mode::in_order;
  live_ = {};
  next_.set(plan.steps().data());
  next_free_.set(plan.frees().data());
  last_free_ = plan.frees().data() + plan.frees().size();
  requested_.set(0);
  freed_requested_.set(0);
  settled_steps_.set(0);
  settled_frees_.set(0);
  settled_requested_.set(0);
  settled_freed_requested_.set(0);
  open_way();
}

// What is left of cycles before is in the way of the plan.
void Planned::begin_by_search() noexcept {
  begin_in_order();
  deviate();
}

bool Planned::pin() noexcept {
  if (!enter(0) || laid_.plan == nullptr || laid_.slab.empty()) return false;
  is_pinned_ = true;
  return true;
}

// In the middle of a cycle, what would come of the slab is passed on until the cycle ends.
void Planned::trim_own(std::size_t keep_bytes) noexcept {
  if (laid_.slab.empty() || (is_pinned_ && !is_closed()) || idle_bytes() <= keep_bytes ||
      live_in(laid_).blocks > 0) {
    return;
  }
  stop_serving();
  give_up_slab(laid_);
  lay_out_at_ = 0;
}

void Planned::check_owner_changed() noexcept {
  if (mode_ == Mode::in_order) open_way();
}

// --- Its records. ---

bool Planned::names(const Block& block) const noexcept {
  return block.node->names(block, this) && ((block.generation & (passed_bit | held_bit)) != 0 ||
                                            block.generation > first_generation());
}

bool Planned::is_live_step(const PlanStep& step) const noexcept {
  const std::uint64_t generation = step.generation.load(std::memory_order_relaxed);
  return (generation & 1U) != 0 &&
         ((generation & held_bit) != 0 || generation > first_generation());
}

template <class Visit>
void Planned::each_live_step(const Laid& laid, Visit&& visit) const {
  if (laid.plan == nullptr) return;
  for (const PlanStep& step : laid.plan->steps()) {
    if (is_live_step(step)) visit(step);
  }
}

template <class Visit>
void Planned::each_live_step(Visit&& visit) const {
  each_live_step(laid_, visit);
  for (const Laid& retired : retired_)
    each_live_step(retired, visit);
}

Sum Planned::live_in(const Laid& laid) const noexcept {
  Sum sum;
  each_live_step(laid, [&](const PlanStep& step) { sum += sum_of(step); });
  return sum;
}

RemoteFree& Planned::remote_free(Node& record) const noexcept {
  return is_passed(record) ? static_cast<Passed&>(record).remote
                           : static_cast<PlanStep&>(record).remote;
}

Sum Planned::sum_of(const Node& record) const noexcept {
  if (is_passed(record)) {
    const Block& below = static_cast<const Passed&>(record).below;
    return {.blocks = 1, .requested = below.requested, .granted = below.bytes};
  }
  const auto& step = static_cast<const PlanStep&>(record);
  return {.blocks = 1, .requested = step.requested.read(), .granted = step.granted};
}

Planned::Laid& Planned::laid_of(const PlanStep& step) noexcept {
  if (laid_.plan != nullptr && laid_.plan->has(step)) return laid_;
  const auto owns = [&](const Laid& laid) { return laid.plan->has(step); };
  return *std::ranges::find_if(retired_, owns);
}

// --- Figures. ---

Sum Planned::unsettled_grants() const noexcept {
  std::unique_lock lock(laid_mutex_, std::defer_lock);
  if (!is_owner()) lock.lock();
  const PlanStep* const next = next_.read();
  if (next == nullptr) return {};
  const CyclePlan& plan = *laid_.plan;
  const auto steps = static_cast<std::size_t>(next - plan.steps().data());
  const std::size_t settled = settled_steps_.read();
  return {.blocks = steps - settled,
          .requested = requested_.read() - settled_requested_.read(),
          .granted = plan.granted_to(steps) - plan.granted_to(settled)};
}

Sum Planned::unsettled_frees() const noexcept {
  std::unique_lock lock(laid_mutex_, std::defer_lock);
  if (!is_owner()) lock.lock();
  PlanStep* const* const next = next_free_.read();
  if (next == nullptr) return {};
  const CyclePlan& plan = *laid_.plan;
  const auto frees = static_cast<std::size_t>(next - plan.frees().data());
  const std::size_t settled = settled_frees_.read();
  return {.blocks = frees - settled,
          .requested = freed_requested_.read() - settled_freed_requested_.read(),
          .granted = plan.granted_of_frees(frees) - plan.granted_of_frees(settled)};
}

void Planned::set_settled() noexcept {
  const Sum granted = unsettled_grants();
  const Sum freed = unsettled_frees();
  counts_.served += granted.blocks;
  live_planned_ += granted;
  live_planned_ -= freed;
  settled_steps_.rise(granted.blocks);
  settled_frees_.rise(freed.blocks);
  settled_requested_.set(requested_.read());
  settled_freed_requested_.set(freed_requested_.read());
}

Planned::Counts Planned::counts() const noexcept {
  Counts counts = counts_;
  counts.served += unsettled_grants().blocks;
  return counts;
}

Expected<Block> Planned::try_grow(const Block& block, std::size_t bytes) noexcept {
  if (block.empty()) return tl::unexpected(fail(Errc::cannot_grow, bytes));
  if (const Expected<void> entered = enter(bytes); !entered) return tl::unexpected(entered.error());
  if (!names(block)) return tl::unexpected(invalid(block));
  Block grown = block;
  grown.generation += life_step;
  if (is_passed(*block.node)) {
    auto& record = static_cast<Passed&>(*block.node);
    const Expected<Block> below = upstream().try_grow(record.below, bytes);
    if (!below) return below;
    count_growth(below->requested - record.below.requested, below->bytes - record.below.bytes);
    hold_more(below->bytes - record.below.bytes);
    record.below = *below;
    grown.bytes = below->bytes;
    grown.requested = below->requested;
  } else {
    auto& step = static_cast<PlanStep&>(*block.node);
    const bool is_last_life = (grown.generation & (cycle_step - 1)) + life_step >= cycle_step;
    if (bytes > step.granted || is_last_life) return tl::unexpected(fail(Errc::cannot_grow, bytes));
    grown.requested = std::max(bytes, step.requested.read());
    const std::size_t more = grown.requested - step.requested.read();
    count_growth(more, 0);
    live_planned_.requested += more;
    step.requested.set(grown.requested);
  }
  block.node->generation.store(grown.generation, std::memory_order_relaxed);
  return grown;
}

Outstanding Planned::outstanding() const noexcept {
  Outstanding out;
  const auto add = [&](const Node& record, const RemoteFree& remote) {
    if (!remote.is_queued.load(std::memory_order_relaxed)) out.add(sum_of(record).granted);
  };
  each_live_step([&](const PlanStep& step) { add(step, step.remote); });
  for (const Passed* record = live_passed_.oldest(); record != nullptr;
       record = decltype(live_passed_)::newer(record)) {
    add(*record, record->remote);
  }
  return out;
}

std::size_t Planned::largest_after(const Supposition& supposed) const noexcept {
  const PoolsAbove above{.pool = this, .next = supposed.pools};
  Supposition below = supposed;
  below.pools = &above;
  if (trimmable_slab() > 0) {
    below.requested = saturating_add(below.requested, laid_.slab.requested);
    below.granted = saturating_add(below.granted, laid_.slab.bytes);
  }
  return OwnedPool::largest_after(below);
}

void Planned::explain(Shortage& shortage) const noexcept {
  SizeTally sizes;
  each_live_step([&](const PlanStep& step) { sizes.add(step.granted, true); });
  for (const Passed* record = live_passed_.oldest(); record != nullptr;
       record = decltype(live_passed_)::newer(record)) {
    sizes.add(record->below.bytes, true);
  }
  shortage.add_sizes(sizes);
  shortage.add_holes(idle_bytes(), trimmable_slab());
  OwnedPool::explain(shortage);
}

std::size_t Planned::trimmable_slab() const noexcept {
  return is_owner() && !is_pinned_ && live_in(laid_).blocks == 0 ? laid_.slab.bytes : 0;
}

// What another thread asks to be trimmed does not go at once.
std::size_t Planned::trimmable() const noexcept {
  return upstream().stats().pools == 0 ? trimmable_slab() : 0;
}

std::string Planned::validate() const {
  if (laid_.plan != nullptr) {
    if (const char* broken = laid_.plan->validate()) return broken;
  }
  Sum planned = live_in(laid_);
  std::size_t slabs = laid_.slab.bytes;
  for (const Laid& retired : retired_) {
    planned += live_in(retired);
    slabs += retired.slab.bytes;
  }
  std::vector<const PlanStep*> steps;
  each_live_step(laid_, [&](const PlanStep& step) { steps.push_back(&step); });
  std::ranges::sort(steps, {}, [](const PlanStep* step) { return step->place; });
  for (std::size_t i = 1; i < steps.size(); ++i) {
    if (steps[i - 1]->place + steps[i - 1]->granted > steps[i]->place)
      return "planned: live steps do not overlap";
  }
  Sum expected = live_planned_;
  expected += unsettled_grants();
  expected -= unsettled_frees();
  if (planned != expected) return "planned: what is live of the plans is what the steps say";
  Sum passed;
  for (const Passed* record = live_passed_.oldest(); record != nullptr;
       record = decltype(live_passed_)::newer(record)) {
    passed += sum_of(*record);
  }
  if (passed.granted + slabs != held())
    return "planned: what is held is the slabs and what was passed on";
  planned += passed;
  if (planned != live()) return "planned: what is live is what the records say";
  return OwnedPool::validate();
}

}  // namespace cistern
