#include "cistern/pool/coalesce.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <stdexcept>
#include <utility>

#include "cistern/core/batch.hpp"
#include "cistern/core/size_tally.hpp"
#include "core/failure.hpp"

namespace cistern {
namespace {

// So often a region is extended anew where other threads took what it was extended by.
constexpr int most_extensions = 8;

// What a device could give if it held nothing else.
std::size_t most_in_one_piece(const DeviceLimits& limits) noexcept {
  const std::size_t total = limits.total_memory != 0 ? limits.total_memory : unbounded;
  return std::min(total, limits.max_allocation) & ~(limits.granularity - 1);
}

// The same of any of the devices that a stage stands on. (The host's system promises more memory
// than there is, so that asking is no answer.)
std::size_t most_of_any_device(const Resource& stage) {
  std::optional<std::size_t> most;
  stage.each_upstream([&most](const Resource& below) {
    most = std::max(most.value_or(0), most_of_any_device(below));
  });
  return most ? *most : most_in_one_piece(stage.device().limits());
}

}  // namespace

// --- The fast path: a hole that fits, and a free that merges. ---

Expected<Block> Coalesce::try_allocate(const Request& request) noexcept {
  if (request.bytes == 0) return Block{};
  if (const std::optional<Want> want = want_for(request)) [[likely]] {
    const std::lock_guard lock(mutex_);
    if (Chunk* chunk = make_ready(parts_.take(*want), request.stream)) [[likely]] {
      ++stats_.hits;
      return hand_out(*chunk, request);
    }
  }
  const Found found = miss(request);
  const std::lock_guard lock(mutex_);
  growing_ -= found.growing;
  if (!found.chunk) {
    ++stats_.failures;
    return tl::unexpected(found.chunk.error());
  }
  ++(found.is_hit ? stats_.hits : stats_.misses);
  return hand_out(**found.chunk, request);
}

Expected<void> Coalesce::try_allocate_batch(std::span<const Request> requests,
                                            std::span<Block> blocks) noexcept {
  assert(requests.size() == blocks.size());
  std::ranges::fill(blocks, Block{});
  std::size_t missing = 0;
  std::size_t idle_before = 0;
  {
    const std::lock_guard lock(mutex_);
    idle_before = parts_.idle_bytes();
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (requests[i].bytes == 0) continue;
      const std::optional<Want> want = want_for(requests[i]);
      blocks[i].node = want ? make_ready(parts_.take(*want), want->stream) : nullptr;
      if (blocks[i].empty()) ++missing;
    }
    stats_.cached.move_to(parts_.idle_bytes());
    if (missing == 0) {
      hand_out(requests, blocks, 0);
      return {};
    }
  }
  std::size_t misses = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].bytes == 0 || !blocks[i].empty()) continue;
    const Found found = miss(requests[i]);
    {
      const std::lock_guard lock(mutex_);
      growing_ -= found.growing;
    }
    if (!found.chunk) return give_up(requests, blocks, i, found.chunk.error(), idle_before);
    blocks[i].node = *found.chunk;
    if (!found.is_hit) ++misses;
  }
  const std::lock_guard lock(mutex_);
  hand_out(requests, blocks, misses);
  return {};
}

// All of a batch, of which each block has its chunk.
void Coalesce::hand_out(std::span<const Request> requests, std::span<Block> blocks,
                        std::size_t misses) noexcept {
  std::size_t granted = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (blocks[i].empty()) continue;
    ++granted;
    blocks[i] = hand_out(static_cast<Chunk&>(*blocks[i].node), requests[i]);
  }
  stats_.misses += misses;
  stats_.hits += granted - misses;
}

bool Coalesce::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  Leaving leaving;
  bool accepted = false;
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    accepted = block.node->names(block, this);
    if (accepted) [[likely]] {
      auto* chunk = static_cast<Chunk*>(block.node);
      chunk->end_life();
      stats_.count_free(chunk->requested, chunk->bytes);
      const bool goes_home = options_.streams == StreamSharing::separate;
      const Stream home = goes_home ? chunk->stream : stream;
      parts_.put(chunk, handover_.end_uses(*chunk, handover_.join(home, stream)));
      stats_.cached.move_to(parts_.idle_bytes());
      if (parts_.idle_bytes() > max_idle_) release_idle(max_idle_, leaving);
      over = is_over();
    } else {
      ++stats_.refused_frees;
    }
  }
  if (!accepted) return refuse_free("coalesce", block);
  if (over) {
    delete this;
  } else if (!leaving.empty()) {  // else another thread may have deleted it by now
    send_upstream(leaving);
  }
  return true;
}

std::size_t Coalesce::class_of(std::size_t bytes) const noexcept {
  std::size_t size_class = 0;
  while (bytes > options_.classes[size_class].up_to)
    ++size_class;
  return size_class;
}

// Nothing where the size or the alignment is beyond any device.
std::optional<Coalesce::Want> Coalesce::want_for(const Request& request) const noexcept {
  const std::optional<std::size_t> bytes = round_up(request.bytes, options_.granule);
  if (!bytes || !can_align(request.alignment, device().limits())) return std::nullopt;
  const std::size_t size_class = class_of(*bytes);
  const std::size_t least_rest = options_.classes[size_class].least_rest;
  return Want{.bytes = *bytes,
              .alignment = std::max(request.alignment, device().limits().alignment),
              .size_class = size_class,
              .least_rest = options_.rest_ratio == no_ratio
                                ? least_rest
                                : std::min(least_rest, scale(*bytes, options_.rest_ratio)),
              .region = region_for(*bytes, size_class),
              .stream = request.stream,
              .shares_streams = options_.streams == StreamSharing::shared};
}

std::size_t Coalesce::region_for(std::size_t bytes, std::size_t size_class) const noexcept {
  const SizeClass& sizes = options_.classes[size_class];
  if (bytes >= sizes.region_for) return bytes;
  const std::size_t whole =
      options_.growth == Growth::fitted ? sizes.region / bytes * bytes : sizes.region;
  return std::max(whole, bytes);
}

Block Coalesce::hand_out(Chunk& chunk, const Request& request) noexcept {
  chunk.requested = request.bytes;
  chunk.stream = request.stream;
  stats_.count_grant(request.bytes, chunk.bytes);
  stats_.cached.move_to(parts_.idle_bytes());
  work_peak_ = std::max(work_peak_, stats_.live_granted.current);
  const Region& region = *chunk.region;
  return {.memory = is_address_
                        ? reinterpret_cast<void*>(chunk.start)  // NOLINT(performance-no-int-to-ptr)
                        : region.upstream.memory,
          .offset = is_address_ ? 0 : region.upstream.offset + (chunk.start - region.start),
          .bytes = chunk.bytes,
          .requested = request.bytes,
          .node = &chunk,
          .generation = chunk.begin_life()};
}

// --- The slow path: misses, what goes back, bounds. ---

std::vector<Coalesce::SizeClass> Coalesce::default_classes() {
  using namespace literals;
  return {{.up_to = 256_KiB, .region = 2_MiB, .region_for = 1_MiB},
          {.up_to = 64_MiB, .region = 32_MiB, .region_for = 16_MiB},
          {}};
}

Coalesce::Options Coalesce::checked(Options options, const DeviceLimits& limits) {
  const auto is_step = [](std::size_t step) { return step == 0 || std::has_single_bit(step); };
  if (!is_step(options.granule) || !is_step(options.region_step))
    throw std::invalid_argument("coalesce: sizes are rounded to powers of two");
  if (options.classes.empty()) options.classes = default_classes();
  if (options.classes.back().up_to != unbounded)
    throw std::invalid_argument("coalesce: the last class of sizes has no bound");
  for (std::size_t i = 1; i < options.classes.size(); ++i) {
    if (options.classes[i - 1].up_to >= options.classes[i].up_to)
      throw std::invalid_argument("coalesce: the classes of sizes rise");
  }
  if (!(options.idle_ratio >= 0) || !(options.rest_ratio >= 0))
    throw std::invalid_argument("coalesce: ratios are not negative");
  options.granule = std::max(options.granule, limits.alignment);
  options.region_step = std::max({options.region_step, limits.granularity, options.granule});
  for (SizeClass& size_class : options.classes)
    size_class.least_rest = std::max(size_class.least_rest, options.granule);
  return options;
}

Coalesce::Coalesce(Ref<Resource> upstream, const Options& options)
    : Pool(std::move(upstream)),
      options_(checked(options, device().limits())),
      is_address_(device().limits().memory_is_address),
      handover_(device().stream_order()),
      parts_(this, {.size_classes = options_.classes.size(),
                    .placement = options_.place,
                    .joins = device().limits().joins_adjacent && is_address_,
                    .extends = device().limits().extensible,
                    .merges_streams =
                        options_.streams == StreamSharing::shared && !device().limits().has_queues,
                    .order = device().stream_order()}),
      next_start_(device().limits().max_alignment),
      max_idle_(options.max_idle),
      idle_ratio_(options.idle_ratio) {}

// Nothing where the device cannot ever give what is wanted.
std::optional<Coalesce::Ask> Coalesce::ask_for(const Want& want) const noexcept {
  const std::size_t most = most_in_one_piece(device().limits());
  if (want.bytes > most) return std::nullopt;
  const std::size_t least =
      std::min(round_up(want.bytes, options_.region_step).value_or(most), most);
  Ask ask{.whole = least, .least = least};
  if (device().limits().extensible) return ask;  // a region grows with what it must hold

  const SizeClass& size_class = options_.classes[want.size_class];
  if (size_class.region > 0) {
    if (options_.growth == Growth::fixed) {
      const std::size_t regions = (ask.whole - 1) / size_class.region + 1;
      ask.whole = checked_multiply(regions, size_class.region).value_or(ask.whole);
    } else {
      ask.whole = std::max(ask.whole, want.region);
    }
  }
  if (options_.growth == Growth::doubling) {
    const std::lock_guard lock(mutex_);
    ask.whole = std::max(ask.whole, parts_.bytes());
  }
  ask.whole = std::min(round_up(ask.whole, options_.region_step).value_or(most), most);
  return ask;
}

// The upstream's own word on a request that cannot be met.
Expected<Chunk*> Coalesce::refused_by_upstream(const Request& request) noexcept {
  const Expected<Block> block = upstream().try_allocate(request);
  if (!block) return tl::unexpected(block.error());
  upstream().deallocate(*block, request.stream);
  return tl::unexpected(failure("coalesce", Errc::too_large, request.bytes));
}

Coalesce::Found Coalesce::miss(const Request& request) noexcept {
  const std::optional<Want> want = want_for(request);
  if (!want) return {.chunk = refused_by_upstream(request)};
  // Where the device can never give it, it says best why not, and nothing is given back for it; but
  // the upstream may stand on another device too.
  const std::optional<Ask> ask = ask_for(*want);
  if (!ask && want->bytes > most_of_any_device(*this))
    return {.chunk = refused_by_upstream(request)};
  Leaving leaving;
  {
    const std::lock_guard lock(mutex_);
    parts_.know(want->stream);
    if (Chunk* chunk = take_slowly(*want)) return {.chunk = chunk, .is_hit = true};
    if (ask) {
      growing_ += ask->whole;
      enforce_idle_ratio(*want, leaving);
    }
  }
  send_upstream(leaving);
  return {.chunk = ask ? climb(*ask, request, *want) : new_region(want->bytes, request, *want),
          .growing = ask ? ask->whole : 0};
}

// The end of a batch whose request at `place` failed: its blocks are holes again, and regions that
// were obtained for it go back.
Expected<void> Coalesce::give_up(std::span<const Request> requests, std::span<Block> blocks,
                                 std::size_t place, Error error, std::size_t idle_before) noexcept {
  std::size_t rest = 0;
  for (std::size_t i = place + 1; i < requests.size(); ++i) {
    if (blocks[i].empty()) rest = saturating_add(rest, requests[i].bytes);
  }
  Leaving leaving;
  {
    const std::lock_guard lock(mutex_);
    for (const Block& block : blocks) {
      if (block.empty()) continue;
      auto* chunk = static_cast<Chunk*>(block.node);
      parts_.put(chunk, chunk->stream);
    }
    release_idle(std::min(idle_before, max_idle_), leaving);
    stats_.cached.move_to(parts_.idle_bytes());
    ++stats_.failures;
  }
  send_upstream(leaving);
  return fail_batch(blocks, error, rest);
}

// What was freed meanwhile, and the holes of other streams: no request reaches the upstream while
// one of them would do.
Chunk* Coalesce::take_slowly(const Want& want) noexcept {
  const auto take_of_any_stream = [&] {
    return make_ready(parts_.take_of_any_stream(want), want.stream);
  };
  Chunk* chunk = make_ready(parts_.take(want), want.stream);
  if (chunk != nullptr || !want.shares_streams) return chunk;
  chunk = take_of_any_stream();
  return chunk == nullptr && parts_.merge_streams(want.stream) ? take_of_any_stream() : chunk;
}

// The ladder, from cheapest to dearest: a whole region; smaller and smaller ones; the holes that
// other classes keep; the least that will do, after giving back as many idle bytes, then all of
// them, then once what other threads are giving back has arrived.
Expected<Chunk*> Coalesce::climb(const Ask& ask, const Request& request,
                                 const Want& want) noexcept {
  std::uint64_t before = 0;  // so many returns when it was last asked
  const auto ask_for = [&](std::size_t bytes) {
    before = returns_.arrived();
    return obtain(bytes, request, want);
  };
  Expected<Chunk*> chunk = ask_for(ask.whole);
  const auto is_refused = [&] { return !chunk && chunk.error().is_exhaustion(); };
  for (std::size_t bytes = ask.whole; is_refused() && bytes > ask.least;) {
    bytes = std::max(ask.least, bytes / 2 & ~(options_.region_step - 1));
    chunk = ask_for(bytes);
  }
  const auto take_any = [&] {
    if (Expected<Chunk*> taken = take_any_hole(request, want)) chunk = taken;
  };
  if (is_refused()) take_any();
  if (is_refused() && give_back_idle(ask.least)) chunk = ask_for(ask.least);
  if (is_refused() && give_back_idle(unbounded)) chunk = ask_for(ask.least);
  for (int wait = 0;
       wait < Returns::most_waits && is_refused() && returns_.wait_for_more_than(before); ++wait) {
    chunk = ask_for(ask.least);
    if (is_refused()) take_any();
  }
  return chunk;
}

Expected<Chunk*> Coalesce::obtain(std::size_t bytes, const Request& request,
                                  const Want& want) noexcept {
  if (device().limits().extensible) {
    const Expected<Chunk*> chunk = extend_region(request, want);
    if (chunk || chunk.error().code != Errc::cannot_grow) return chunk;
  }
  return new_region(bytes, request, want);
}

Expected<Chunk*> Coalesce::new_region(std::size_t bytes, const Request& request,
                                      const Want& want) noexcept {
  const Expected<Block> below = upstream().try_allocate(
      {.bytes = bytes, .alignment = request.alignment, .stream = request.stream});
  if (!below) return tl::unexpected(below.error());
  Chunk* hole = nullptr;
  {
    const std::lock_guard lock(mutex_);
    hole = parts_.adopt(*below, start_of(*below), want.size_class, want.stream);
    // The hole may have become part of an older one.
    Chunk* chunk = hole != nullptr ? make_ready(parts_.take_in(*hole, want), want.stream) : nullptr;
    if (chunk != nullptr) return chunk;
    stats_.cached.move_to(parts_.idle_bytes());
  }
  if (hole != nullptr) {
    hold_to_max_idle();  // the region stays, though there is no record left to cut it
  } else {
    upstream().deallocate(*below, request.stream);
  }
  return tl::unexpected(failure("coalesce", Errc::out_of_memory, request.bytes));
}

Expected<Chunk*> Coalesce::extend_region(const Request& request, const Want& want) noexcept {
  for (int attempt = 0; attempt < most_extensions; ++attempt) {
    Region* region = nullptr;
    Block below;
    std::size_t bytes = 0;
    {
      const std::lock_guard lock(mutex_);
      region = parts_.most_extensible(want.size_class);
      if (region == nullptr) break;
      if (Chunk* chunk = make_ready(parts_.take_at_end(*region, want), want.stream)) return chunk;
      const std::size_t needed = Suballocator::bytes_to_hold(*region, want);
      const std::size_t most = most_in_one_piece(device().limits());
      if (needed > most) break;
      bytes = std::min(round_up(needed, options_.region_step).value_or(most), most);
      below = region->upstream;
      region->is_growing = true;
    }
    const Expected<Block> grown = upstream().try_grow(below, bytes);
    {
      const std::lock_guard lock(mutex_);
      region->is_growing = false;
      if (grown && parts_.extend(*region, *grown, want)) {
        stats_.cached.move_to(parts_.idle_bytes());
        if (Chunk* chunk = make_ready(parts_.take_at_end(*region, want), want.stream)) return chunk;
        continue;
      }
    }
    hold_to_max_idle();  // while it was growing the region could not go back
    if (!grown) return tl::unexpected(grown.error());
    break;
  }
  return tl::unexpected(failure("coalesce", Errc::cannot_grow, request.bytes));
}

Expected<Chunk*> Coalesce::take_any_hole(const Request& request, const Want& want) noexcept {
  const std::lock_guard lock(mutex_);
  Chunk* chunk = take_slowly(want);
  if (chunk == nullptr && options_.borrow)
    chunk = make_ready(parts_.take_of_another_class(want), want.stream);
  if (chunk == nullptr)
    return tl::unexpected(failure("coalesce", Errc::out_of_memory, request.bytes));
  return chunk;
}

std::uintptr_t Coalesce::start_of(const Block& block) noexcept {
  if (is_address_) return reinterpret_cast<std::uintptr_t>(block.memory) + block.offset;
  const std::size_t alignment = device().limits().max_alignment;
  const std::uintptr_t start =
      ((next_start_ + alignment - 1) & ~(std::uintptr_t{alignment} - 1)) + block.offset;
  next_start_ = start + block.bytes;
  return start;
}

void Coalesce::leave(Region& region, Leaving& leaving) noexcept {
  leaving.add(region);
  returns_.begin();
  stats_.cached.move_to(parts_.idle_bytes());
}

void Coalesce::release_idle(std::size_t keep_bytes, Leaving& leaving, const Region* kept) noexcept {
  for (Region* region = parts_.oldest_idle();
       region != nullptr && parts_.idle_bytes() > keep_bytes;) {
    Region* next = Suballocator::next_idle(region);
    if (region != kept && !region->is_growing && parts_.remove(*region)) {
      leave(*region, leaving);
      next = parts_.oldest_idle();  // what was idle with it may stand elsewhere in the list now
    }
    region = next;
  }
}

// What a region that will be extended has is not given back just before.
void Coalesce::enforce_idle_ratio(const Want& want, Leaving& leaving) noexcept {
  const std::size_t work =
      std::max(work_peak_, saturating_add(stats_.live_granted.current, want.bytes));
  const std::size_t bound = scale(work, 1 + idle_ratio_);
  const std::size_t held = saturating_add(parts_.bytes(), growing_);
  const Region* kept =
      device().limits().extensible ? parts_.most_extensible(want.size_class) : nullptr;
  release_idle(saturating_subtract(parts_.idle_bytes(), saturating_subtract(held, bound)), leaving,
               kept);
}

bool Coalesce::give_back_idle(std::size_t bytes) noexcept {
  Leaving leaving;
  {
    const std::lock_guard lock(mutex_);
    release_idle(saturating_subtract(parts_.idle_bytes(), bytes), leaving);
  }
  const bool any = !leaving.empty();
  send_upstream(leaving);
  return any;
}

// May be the end of this pool, if its owners have left.
void Coalesce::send_upstream(const Leaving& leaving) noexcept {
  if (leaving.empty()) return;
  leaving.each(
      [&](const Region& region) { upstream().deallocate(region.upstream, region.last_used); });
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    leaving.each([&](Region& region) { parts_.recycle(region); });
    returns_.end(leaving.size());
    over = is_over();
  }
  if (over) delete this;
}

void Coalesce::trim_to(std::size_t keep_bytes) noexcept {
  Leaving leaving;
  std::size_t kept = 0;
  {
    const std::size_t below = upstream().stats().cached.current;
    const std::lock_guard lock(mutex_);
    const std::size_t excess =
        saturating_subtract(saturating_add(parts_.idle_bytes(), below), keep_bytes);
    release_idle(saturating_subtract(parts_.idle_bytes(), excess), leaving);
    kept = parts_.idle_bytes();
    work_peak_ = stats_.live_granted.current + kept;
  }
  send_upstream(leaving);
  trim_upstream(saturating_subtract(keep_bytes, kept));
}

bool Coalesce::is_over() const noexcept {
  return abandoned_ && stats_.live_blocks.current == 0 && returns_.none_leaving();
}

void Coalesce::abandoned() noexcept {
  Leaving leaving;
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    max_idle_ = 0;
    release_idle(0, leaving);
    over = is_over();
  }
  if (over) {
    delete this;
  } else {
    send_upstream(leaving);
  }
}

std::size_t Coalesce::set_max_idle(std::size_t bytes) noexcept {
  std::size_t former = 0;
  {
    const std::lock_guard lock(mutex_);
    former = std::exchange(max_idle_, bytes);
  }
  hold_to_max_idle();
  return former;
}

void Coalesce::hold_to_max_idle() noexcept {
  Leaving leaving;
  {
    const std::lock_guard lock(mutex_);
    release_idle(max_idle_, leaving);
  }
  send_upstream(leaving);
}

double Coalesce::set_idle_ratio(double ratio) noexcept {
  const std::lock_guard lock(mutex_);
  return std::exchange(idle_ratio_, std::max(0.0, ratio));  // in this order: of a NaN, 0
}

std::size_t Coalesce::largest_hole() const noexcept {
  const std::lock_guard lock(mutex_);
  return parts_.largest_hole();
}

std::size_t Coalesce::hole_bytes() const noexcept {
  const std::lock_guard lock(mutex_);
  return parts_.bytes() - stats_.live_granted.current;
}

Expected<Block> Coalesce::try_grow(const Block& block, std::size_t bytes) noexcept {
  if (block.empty()) return tl::unexpected(failure("coalesce", Errc::cannot_grow, bytes));
  const std::lock_guard lock(mutex_);
  if (!block.node->names(block, this))
    return tl::unexpected(failure("coalesce", Errc::invalid_block, block.bytes));
  auto& chunk = static_cast<Chunk&>(*block.node);
  const std::optional<std::size_t> granted = round_up(bytes, options_.granule);
  const std::size_t former = chunk.bytes;
  if (!granted || (*granted > former && !parts_.grow(chunk, *granted)))
    return tl::unexpected(failure("coalesce", Errc::cannot_grow, bytes));
  Block grown = block;
  grown.bytes = chunk.bytes;
  grown.requested = std::max(bytes, chunk.requested);
  stats_.count_growth(grown.requested - chunk.requested, chunk.bytes - former);
  stats_.cached.move_to(parts_.idle_bytes());
  work_peak_ = std::max(work_peak_, stats_.live_granted.current);
  chunk.requested = grown.requested;
  grown.generation = chunk.renew_life();
  return grown;
}

Expected<void> Coalesce::also_used_on(const Block& block, Stream stream) noexcept {
  if (block.empty()) return {};
  const std::lock_guard lock(mutex_);
  if (!block.node->names(block, this))
    return tl::unexpected(failure("coalesce", Errc::invalid_block, block.bytes));
  if (handover_.add_use(*block.node, stream)) return {};
  return tl::unexpected(failure("coalesce", Errc::out_of_memory, 0));
}

Expected<std::vector<Block>> Coalesce::restore(std::span<const RecordedRegion> regions,
                                               std::span<const RecordedBlock> blocks) {
  {
    const std::lock_guard lock(mutex_);
    if (parts_.bytes() > 0) return tl::unexpected(failure("coalesce", Errc::invalid_block, 0));
  }
  std::vector<Block> granted;
  granted.reserve(blocks.size());
  const auto undo = [&](const Error& error) -> Expected<std::vector<Block>> {
    for (const Block& block : granted)
      deallocate(block, {});
    give_back_idle(unbounded);
    return tl::unexpected(error);
  };
  for (const RecordedRegion& recorded : regions) {
    const Expected<Block> below =
        upstream().try_allocate({.bytes = recorded.bytes, .stream = recorded.stream});
    if (!below) return undo(below.error());
    bool is_adopted = false;
    {
      const std::lock_guard lock(mutex_);
      parts_.know(recorded.stream);
      const std::uintptr_t start = start_of(*below);
      is_adopted = !below->empty() && start == recorded.address && below->bytes == recorded.bytes &&
                   parts_.adopt(*below, start, recorded.small ? 0 : options_.classes.size() - 1,
                                recorded.stream) != nullptr;
      stats_.cached.move_to(parts_.idle_bytes());
    }
    if (is_adopted) continue;
    upstream().deallocate(*below, recorded.stream);
    return undo(failure("coalesce", Errc::invalid_block, recorded.bytes));
  }
  for (const RecordedBlock& recorded : blocks) {
    const std::lock_guard lock(mutex_);
    const bool is_grantable = recorded.requested > 0 && recorded.granted >= recorded.requested &&
                              recorded.granted % options_.granule == 0 &&
                              recorded.address % device().limits().alignment == 0;
    Chunk* chunk = is_grantable ? parts_.take_at(recorded.address, recorded.granted) : nullptr;
    if (chunk == nullptr) break;
    granted.push_back(hand_out(*chunk, {.bytes = recorded.requested, .stream = recorded.stream}));
    ++stats_.hits;
  }
  if (granted.size() < blocks.size())
    return undo(failure("coalesce", Errc::invalid_block, blocks[granted.size()].granted));
  hold_to_max_idle();
  return granted;
}

bool Coalesce::give_back(std::uintptr_t address) noexcept {
  Leaving leaving;
  {
    const std::lock_guard lock(mutex_);
    Region* region = parts_.oldest_idle();
    while (region != nullptr && region->start != address)
      region = Suballocator::next_idle(region);
    if (region == nullptr || region->is_growing || !parts_.remove(*region)) return false;
    leave(*region, leaving);
  }
  send_upstream(leaving);
  return true;
}

Stats Coalesce::stats() const noexcept {
  Stats own;
  {
    const std::lock_guard lock(mutex_);
    own = stats_;
  }
  return as_pool(own);
}

void Coalesce::reset_peaks(const Stats& floor) noexcept {
  Stats below = floor;
  below.cached.peak = 0;  // a sum over the stages: what those below account for is not this one's
  upstream().reset_peaks(below);
  const std::size_t cached_below = upstream().stats().cached.peak;
  const std::lock_guard lock(mutex_);
  stats_.reset_live_peaks(floor);
  stats_.cached.reset_peak(saturating_subtract(floor.cached.peak, cached_below));
}

std::vector<BucketStats> Coalesce::buckets() const {
  constexpr std::size_t powers = 64;
  std::array<BucketStats, powers> by_power{};
  {
    const std::lock_guard lock(mutex_);
    parts_.each_hole([&](const Chunk& hole) {
      BucketStats& bucket = by_power[static_cast<std::size_t>(std::bit_width(hole.bytes)) - 1];
      bucket.capacity = std::bit_floor(hole.bytes);
      ++bucket.cached_blocks;
      bucket.cached_bytes += hole.bytes;
    });
  }
  std::vector<BucketStats> all;
  for (const BucketStats& bucket : by_power) {
    if (bucket.cached_blocks > 0) all.push_back(bucket);
  }
  const std::vector<BucketStats> below = upstream().buckets();
  all.insert(all.end(), below.begin(), below.end());
  return all;
}

Outstanding Coalesce::outstanding() const noexcept {
  const std::lock_guard lock(mutex_);
  Outstanding out;
  parts_.each_block([&](const Chunk& block) { out.add(block.bytes); });
  return out;
}

// What is idle comes back to the upstream before a request fails. Whether the blocks that are
// supposed to come back would leave a region idle or a larger hole, nobody asks.
std::size_t Coalesce::largest_after(const Supposition& supposed) const noexcept {
  const PoolsAbove above{.pool = this, .next = supposed.pools};
  Supposition below = supposed;
  below.pools = &above;
  below.requested = below.granted = 0;
  std::size_t in_hole = 0;
  {
    const std::lock_guard lock(mutex_);
    for (const Region* region = parts_.oldest_idle(); region != nullptr;
         region = Suballocator::next_idle(region)) {
      below.requested = saturating_add(below.requested, region->upstream.requested);
      below.granted = saturating_add(below.granted, region->upstream.bytes);
    }
    std::size_t smaller = 0;  // what the class before takes
    for (std::size_t i = 0; i < options_.classes.size(); ++i) {
      const std::size_t hole = parts_.largest_hole(i, options_.streams == StreamSharing::shared);
      const std::size_t request =  // a multiple of the granule, as what is asked for becomes
          (options_.borrow ? hole : std::min(hole, options_.classes[i].up_to)) &
          ~(options_.granule - 1);
      if (options_.borrow || request > smaller) in_hole = std::max(in_hole, request);
      smaller = options_.classes[i].up_to;
    }
  }
  const std::size_t fresh = Pool::largest_after(below) & ~(options_.region_step - 1);
  return std::max(in_hole, fresh);
}

void Coalesce::explain(Shortage& shortage) const noexcept {
  {
    SizeTally sizes;
    const std::lock_guard lock(mutex_);
    parts_.each_block([&](const Chunk& block) { sizes.add(block.bytes, true); });
    parts_.each_hole([&](const Chunk& hole) { sizes.add(hole.bytes, false); });
    shortage.add_sizes(sizes);
    shortage.add_holes(parts_.bytes() - stats_.live_granted.current, parts_.largest_hole());
  }
  Pool::explain(shortage);
}

std::size_t Coalesce::trimmable() const noexcept {
  if (upstream().stats().pools > 0) return 0;
  const std::lock_guard lock(mutex_);
  return parts_.idle_bytes();
}

std::string Coalesce::validate() const {
  const Outstanding live = outstanding();
  {
    const std::lock_guard lock(mutex_);
    if (std::string law = parts_.validate(); !law.empty()) return law;
    if (stats_.cached.current != parts_.idle_bytes())
      return "coalesce: cached is what is wholly idle";
    if (parts_.idle_bytes() > max_idle_) return "coalesce: idle regions have at most max_idle";
    if (stats_.live_blocks.current != live.blocks)
      return "coalesce: live_blocks is the number of live nodes";
    if (stats_.live_granted.current != live.bytes)
      return "coalesce: live_granted is the sum of the live nodes";
    if (stats_.allocations - stats_.frees != live.blocks)
      return "coalesce: allocations less frees are live";
    if (stats_.hits + stats_.misses != stats_.allocations)
      return "coalesce: a grant is a hit or a miss";
  }
  return Pool::validate();
}

}  // namespace cistern
