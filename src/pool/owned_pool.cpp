#include "cistern/pool/owned_pool.hpp"

#include <utility>

#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"

namespace cistern {
namespace {

constexpr unsigned cycle_shift = 32;  // of a generation

// While the owner goes on, another thread may read a part of the figures before a step and a part
// behind it, and find less than nothing.
Sum at_least_nothing(Sum sum) noexcept {
  for (std::size_t* part : {&sum.blocks, &sum.requested, &sum.granted}) {
    if (*part > unbounded / 2) *part = 0;
  }
  return sum;
}

}  // namespace

OwnedPool::OwnedPool(Ref<Resource> upstream, const char* stage)
    : Pool(std::move(upstream)), stage_(stage), handover_(device().stream_order()) {}

bool OwnedPool::checks_owner_at_first() noexcept {
#ifdef NDEBUG
  return false;
#else
  return true;
#endif
}

// --- Frees: the owner's, other threads', and those after the pool was closed. ---

bool OwnedPool::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  if (!is_owner()) return free_elsewhere(block, stream);
  settle();
  if (!is_live(block)) return refuse(block);
  take_back(*block.node, stream);
  return true;
}

bool OwnedPool::refuse(const Block& block) noexcept {
  refused_.fetch_add(1, std::memory_order_relaxed);
  const Error error = invalid(block);
  if (error.from_cycle == 0) return refuse_free(stage_, block);
  report("%s refused to free a block of %zu bytes of cycle %llu, which a reset has ended", stage_,
         block.bytes, static_cast<unsigned long long>(error.from_cycle));
  return false;
}

Error OwnedPool::invalid(const Block& block) const noexcept {
  Error error = fail(Errc::invalid_block, block.bytes);
  if (block.node->owner == this && block.generation <= first_generation())
    error.from_cycle = block.generation >> cycle_shift;
  return error;
}

bool OwnedPool::free_elsewhere(const Block& block, Stream stream) noexcept {
  bool was_live = false;
  bool is_over = false;
  {
    const std::lock_guard lock(mutex_);
    was_live = is_live(block);
    if (was_live && is_closed_) {
      take_back(*block.node, stream);
      is_over = live().blocks == 0;
    } else if (was_live) {
      queue_free(*block.node, stream);
    }
  }
  if (!was_live) return refuse(block);
  if (is_over) delete this;
  return true;
}

void OwnedPool::queue_free(Node& record, Stream stream) noexcept {
  RemoteFree& free = remote_free(record);
  free.is_queued.store(true, std::memory_order_relaxed);
  free.record = &record;
  free.sum = sum_of(record);
  free.stream = stream;
  free.next = queue_.load(std::memory_order_relaxed);
  queue_.store(&free, std::memory_order_relaxed);
  Sum queued = queued_.read();
  queued_.set(queued += free.sum);
}

// In the order in which they were freed.
void OwnedPool::take_queued_back() noexcept {
  RemoteFree* newest = queue_.exchange(nullptr, std::memory_order_relaxed);
  queued_.set({});
  RemoteFree* oldest = nullptr;
  while (newest != nullptr)
    oldest = std::exchange(newest, std::exchange(newest->next, oldest));
  while (oldest != nullptr) {
    RemoteFree& free = *std::exchange(oldest, oldest->next);
    free.is_queued.store(false, std::memory_order_relaxed);
    take_back(*free.record, free.stream);
  }
}

// --- The owner's turn. ---

Expected<void> OwnedPool::enter(std::size_t bytes) noexcept {
  const void* owner = nullptr;
  if (owner_.compare_exchange_strong(owner, this_thread(), std::memory_order_relaxed)) {
    owner_changed();
  } else if (owner != this_thread()) {
    return tl::unexpected(fail(Errc::wrong_thread, bytes));
  }
  settle();
  if (has_queue()) {
    const std::lock_guard lock(mutex_);
    take_queued_back();
  }
  if (keep_asked_.load(std::memory_order_relaxed) != unbounded)
    trim_own(keep_asked_.exchange(unbounded, std::memory_order_relaxed));
  return {};
}

void OwnedPool::hand_over() noexcept {
  if (!is_owner() || !enter(0)) return;
  owner_.store(nullptr, std::memory_order_relaxed);
  owner_changed();
}

void OwnedPool::cycle() noexcept {
  if (!enter(0)) {
    report("%s: only its owner thread may begin a cycle", stage_);
    return;
  }
  end_cycle(false);
  ++cycle_;
  begin_cycle(false);
  Pool::cycle();
}

std::size_t OwnedPool::reset() noexcept {
  if (!enter(0)) {
    report("%s: only its owner thread may reset it", stage_);
    return 0;
  }
  std::size_t ended = 0;
  {
    const std::lock_guard lock(mutex_);
    take_queued_back();
    const std::size_t before = live().blocks;
    take_all_back();
    ended = before - live().blocks;
    first_generation_.store(std::max((cycle_ + 1) << cycle_shift, last_generation() + 1),
                            std::memory_order_relaxed);
  }
  end_cycle(true);
  ++cycle_;
  begin_cycle(true);
  note_cached_peak();
  Pool::cycle();
  return ended;
}

bool OwnedPool::is_live(const Block& block) const noexcept {
  return !block.empty() && names(block) &&
         !remote_free(*block.node).is_queued.load(std::memory_order_relaxed);
}

Expected<void> OwnedPool::also_used_on(const Block& block, Stream stream) noexcept {
  if (block.empty()) return {};
  if (!is_live(block)) return tl::unexpected(invalid(block));
  const std::lock_guard lock(uses_mutex_);
  if (!handover_.add_use(*block.node, stream)) return tl::unexpected(fail(Errc::out_of_memory, 0));
  has_uses_.store(handover_.has_uses(), std::memory_order_relaxed);
  return {};
}

void OwnedPool::trim_to(std::size_t keep_bytes) noexcept {
  const bool is_ours = is_owner() && enter(0);
  const std::size_t all = stats().cached.current;
  const std::size_t own = saturating_subtract(all, upstream().stats().cached.current);
  const std::size_t own_keep = saturating_subtract(own, saturating_subtract(all, keep_bytes));
  if (is_ours) {
    trim_own(own_keep);
  } else {
    keep_asked_.store(own_keep, std::memory_order_relaxed);
  }
  trim_upstream(saturating_subtract(keep_bytes, own_keep));
}

// On the owner's thread, or while it leaves the pool alone. From here on whoever frees takes the
// lock.
void OwnedPool::abandoned() noexcept {
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    settle();
    owner_.store(nullptr, std::memory_order_relaxed);
    is_closed_ = true;
    take_queued_back();
    trim_own(0);
    over = live().blocks == 0;
  }
  if (over) delete this;
}

// --- Figures. ---

void OwnedPool::settle() noexcept {
  const Sum freed = unsettled_frees();
  const Sum granted = unsettled_grants();
  set_settled();
  if (freed.blocks > 0) {
    count_free(freed);
    note_cached_peak();
  }
  if (granted.blocks > 0) count_grant(granted);
}

void OwnedPool::count_grant(const Sum& sum) noexcept {
  allocations_.rise(sum.blocks);
  live_requested_.rise(sum.requested);
  live_granted_.rise(sum.granted);
}

// The peaks are what was live before.
void OwnedPool::count_free(const Sum& sum) noexcept {
  note_live_peaks();
  frees_.rise(sum.blocks);
  live_requested_.fall(sum.requested);
  live_granted_.fall(sum.granted);
}

void OwnedPool::note_live_peaks() noexcept {
  const Sum sum = settled_live();
  peak_blocks_.raise_to(sum.blocks);
  peak_requested_.raise_to(sum.requested);
  peak_granted_.raise_to(sum.granted);
}

Sum OwnedPool::settled_live() const noexcept {
  return {.blocks = allocations_.read() - frees_.read(),
          .requested = live_requested_.read(),
          .granted = live_granted_.read()};
}

Sum OwnedPool::live() const noexcept {
  Sum sum = settled_live();
  sum += unsettled_grants();
  sum -= unsettled_frees();
  return sum;
}

// What waits in the queue is free, as far as anybody else is concerned. What is not settled are
// frees, and then grants: live was most before them, or is now, and least between the two.
Stats OwnedPool::stats() const noexcept {
  const Sum queued = queued_.read();
  const Sum before = settled_live();
  const Sum freed = unsettled_frees();
  Sum now = before;
  now -= freed;
  const std::size_t cached_between = saturating_subtract(held(), now.granted);
  now += unsettled_grants();
  Stats own;
  const std::size_t frees = frees_.read() + freed.blocks;
  own.frees = frees + queued.blocks;
  own.allocations = frees + now.blocks;
  own.live_blocks.peak = std::max({peak_blocks_.read(), before.blocks, now.blocks});
  own.live_requested.peak = std::max({peak_requested_.read(), before.requested, now.requested});
  own.live_granted.peak = std::max({peak_granted_.read(), before.granted, now.granted});
  now -= queued;
  now = at_least_nothing(now);
  own.live_blocks.current = now.blocks;
  own.live_requested.current = now.requested;
  own.live_granted.current = now.granted;
  own.cached.current = saturating_subtract(held(), now.granted);
  own.cached.peak = std::max({peak_cached_.read(), cached_between, own.cached.current});
  own.misses = misses_.read();
  own.hits = own.allocations - own.misses;
  own.failures = failures_.load(std::memory_order_relaxed);
  own.refused_frees = refused_.load(std::memory_order_relaxed);
  return as_pool(own);
}

void OwnedPool::reset_peaks(const Stats& floor) noexcept {
  if (is_owner()) settle();
  Stats below = floor;
  below.cached.peak = 0;
  upstream().reset_peaks(below);
  const Stats now = stats();
  const std::size_t cached_below = upstream().stats().cached.peak;
  peak_blocks_.set(std::max(now.live_blocks.current, floor.live_blocks.peak));
  peak_requested_.set(std::max(now.live_requested.current, floor.live_requested.peak));
  peak_granted_.set(std::max(now.live_granted.current, floor.live_granted.peak));
  peak_cached_.set(std::max(saturating_subtract(held(), now.live_granted.current),
                            saturating_subtract(floor.cached.peak, cached_below)));
}

}  // namespace cistern
