#include "cistern/pool/arena.hpp"

#include <algorithm>
#include <functional>
#include <new>
#include <utility>

#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"
#include "cistern/core/size_tally.hpp"

namespace cistern {
namespace {

constexpr std::size_t first_page = 1024;  // records, where nothing is known yet

std::size_t warn_bytes_of(const Arena::Options& options, const DeviceLimits& limits) noexcept {
  if (options.warn_bytes != 0) return options.warn_bytes;
  return limits.total_memory != 0 ? limits.total_memory / 2 : unbounded;
}

}  // namespace

Arena::Arena(Ref<Resource> upstream, const Options& options)
    : OwnedPool(std::move(upstream), "arena"),
      below_granule_(std::max(device().limits().alignment, device().limits().granularity) - 1),
      in_granules_(~below_granule_),
      alignment_(device().limits().alignment),
      is_address_(device().limits().memory_is_address),
      least_chunk_(options.chunk),
      warn_cycles_(options.warn_cycles),
      warn_bytes_(warn_bytes_of(options, device().limits())) {}

Arena::Page::Page(const Resource* owner, std::size_t size) : records(size), remote(size) {
  for (Taken& record : records)
    record.owner = owner;
}

bool Arena::Page::has(const Node& node) const noexcept {
  constexpr std::less<const Node*> before;
  return !before(&node, records.data()) && before(&node, records.data() + records.size());
}

// --- What is passed on. ---

Expected<Block> Arena::miss(const Request& request) noexcept {
  if (enter(request.bytes)) {
    ready_chunk(request);
    if (is_for_chunk(request)) return take_slowly(request);
  }
  return pass_on(request, Until::reset);
}

// The first chunk is made for the first request; and one of which nothing is taken may go to
// another stream. Not to one that runs out of order: each block would need a barrier.
void Arena::ready_chunk(const Request& request) noexcept {
  if (request.stream.runs_out_of_order()) return;
  if (page_size() == 0 && least_chunk_ > 0) {
    stream_ = request.stream;
    set_chunk({.bytes = least_chunk_});
  } else if (is_for_chunk_of_another_stream(request)) {
    const Work work{.bytes = chunk_bytes_.read(), .blocks = page_size()};
    give_up_chunk();
    stream_ = request.stream;
    set_chunk(work);
  }
}

bool Arena::is_for_chunk(const Request& request) const noexcept {
  return rounded(request.bytes) - 1 < room() && next_.read() != last_ &&
         is_alignment_within(request.alignment, alignment_) && request.stream.id == stream_.id;
}

// The same with the fast path on for a moment.
Block Arena::take_slowly(const Request& request) noexcept {
  const std::size_t room_before = room();
  room_.set(room_before);
  hidden_room_.set(0);
  Block block = take(here(), request.bytes, rounded(request.bytes));
  set_room(room_.read());
  if (!is_address_) {
    block.memory = chunk_.memory;
    block.offset = chunk_.offset + (chunk_bytes_.read() - room_before);
  }
  return block;
}

Expected<Block> Arena::pass_on(const Request& request, Until until) noexcept {
  if (request.bytes == 0) return Block{};
  Expected<Block> block = enter(request.bytes).and_then([&] {
    return ask_upstream([&] { return upstream().try_allocate(request); });
  });
  if (block) block = adopt(request, *block, until);
  if (!block) count_failure();
  return block;
}

// Nothing of the chunk is live, so that it can serve this stream as well; the upstream knows how to
// order the two.
bool Arena::is_for_chunk_of_another_stream(const Request& request) const noexcept {
  return taken().blocks == 0 && request.stream.id != stream_.id &&
         request.bytes - 1 < chunk_bytes_.read();
}

Expected<Block> Arena::adopt(const Request& request, const Block& block, Until until) noexcept {
  Passed* record = passed_.take();
  if (record == nullptr) {
    upstream().deallocate(block, request.stream);
    return tl::unexpected(fail(Errc::out_of_memory, request.bytes));
  }
  record->below = block;
  record->stream = request.stream;
  record->is_held = until == Until::freed;
  const std::uint64_t generation =
      std::max(record->generation.load(std::memory_order_relaxed), first_generation()) + 1;
  record->generation.store(generation, std::memory_order_relaxed);
  hold_more(block.bytes);
  count_grant({.blocks = 1, .requested = block.requested, .granted = block.bytes});
  count_miss();
  if (!record->is_held) {
    ended_by_reset_.push(record);
    passed_bytes_ += rounded(block.requested);
    warn_if_forgotten();
  }
  Block handle = block;
  handle.node = record;
  handle.generation = generation;
  return handle;
}

Expected<void> Arena::try_allocate_batch(std::span<const Request> requests,
                                         std::span<Block> blocks) noexcept {
  if (requests.empty()) return {};
  std::ranges::fill(blocks, Block{});
  Expected<void> done = enter(requests.front().bytes);
  if (done) {
    ready_chunk(requests.front());
    done = ask_upstream([&] { return pass_on_batch(requests, blocks); });
  }
  if (!done) count_failure();
  return done;
}

// What the chunk has room for is taken of it, the rest is one batch of the upstream's. What it
// takes to undo that is there before.
Expected<void> Arena::pass_on_batch(std::span<const Request> requests,
                                    std::span<Block> blocks) noexcept try {
  std::vector<std::size_t> places;
  places.reserve(requests.size());
  std::vector<Request> rest;
  rest.reserve(requests.size());
  std::vector<Block> granted(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (is_for_chunk(requests[i])) {
      blocks[i] = take_slowly(requests[i]);
    } else if (requests[i].bytes != 0) {
      places.push_back(i);
      rest.push_back(requests[i]);
    }
  }
  settle();
  const std::span<Block> passed = std::span(granted).first(rest.size());
  Expected<void> done;
  if (!rest.empty()) done = upstream().try_allocate_batch(rest, passed);
  for (std::size_t i = 0; i < rest.size() && done; ++i) {
    const Expected<Block> block = adopt(rest[i], passed[i], Until::reset);
    if (block) {
      blocks[places[i]] = *block;
    } else {
      for (std::size_t left = i + 1; left < rest.size(); ++left)
        upstream().deallocate(passed[left], rest[left].stream);
      done = tl::unexpected(block.error());
    }
  }
  if (!done) {
    // The last first, so that the chunk has it back.
    for (std::size_t i = requests.size(); i-- > 0;)
      deallocate(std::exchange(blocks[i], {}), requests[i].stream);
  }
  return done;
} catch (const std::bad_alloc&) {
  return tl::unexpected(fail(Errc::out_of_memory, requests.front().bytes));
}

// --- Frees and resets. ---

void Arena::take_back(Node& record, Stream stream) noexcept {
  note_work();
  if (is_taken(record)) {
    take_back_taken(static_cast<Taken&>(record), stream);
  } else {
    take_back_passed(static_cast<Passed&>(record), stream);
  }
  note_cached_peak();
}

// What is used again of the chunk is used on its stream. If that cannot wait for those that have
// used it, nothing is.
void Arena::take_back_taken(Taken& record, Stream stream) noexcept {
  behind_ = end_uses(record, join(behind_, stream));
  const Sum sum = sum_of(record);
  count_free(sum);
  record.end_life();
  dead_ += sum;
  if (taken_live().blocks == 0) {
    rewind();
    if (is_closed() || !is_home()) give_up_chunk();
  } else if (&record + 1 == next_.read() && is_home()) {
    dead_ -= sum;
    next_.set(&record);
    set_room(room() + sum.granted);
    requested_.fall(sum.requested);
    Sum before = settled_.read();
    before -= sum;
    settled_.set(before);
    generation_ += 2;
  }
}

// Nothing of the chunk is live.
void Arena::rewind() noexcept {
  Page* page = page_.load();
  next_.set(page != nullptr ? page->records.data() : nullptr);
  set_room(chunk_bytes_.read());
  requested_.set(0);
  settled_.set({});
  dead_ = {};
  generation_ += 2;
}

void Arena::take_back_passed(Passed& record, Stream stream) noexcept {
  const Block below = record.below;
  const Stream last = end_uses(record, stream);
  count_free(sum_of(record));
  record.end_life();
  if (!record.is_held) {
    ended_by_reset_.remove(&record);
    passed_bytes_ -= rounded(below.requested);
  }
  hold_less(below.bytes);
  passed_.put(&record);
  upstream().deallocate(below, last);
}

// The blocks of the chunk are over because their generations are of before the reset.
void Arena::take_all_back() noexcept {
  note_work();
  while (Passed* record = ended_by_reset_.newest())
    take_back_passed(*record, record->stream);
  const auto ends = [&](const Node& record) { return is_taken(record); };
  const Stream last = make_ready(behind_, stream_) ? stream_ : join(behind_, stream_);
  behind_ = end_uses_if(ends, last);
  count_free(taken_live());
  rewind();
  if (!is_home()) give_up_chunk();
}

void Arena::note_work() noexcept {
  peak_.raise_to({.bytes = taken_live().granted + passed_bytes_,
                  .blocks = taken().blocks + ended_by_reset_.size()});
}

void Arena::begin_cycle(bool was_reset) noexcept {
  const std::size_t live_now = live().blocks;
  if (was_reset) {
    generation_ = first_generation() | 1U;
    grown_cycles_ = 0;
    has_warned_ = false;
    peak_before_.raise_to(peak_);
    fit_chunk();
    peak_before_ = std::exchange(peak_, {});
  } else {
    grown_cycles_ = live_now > live_before_ ? grown_cycles_ + 1 : 0;
    warn_if_forgotten();
  }
  live_before_ = live_now;
}

void Arena::warn_if_forgotten() noexcept {
  const Sum now = live();
  if (has_warned_ || (grown_cycles_ < warn_cycles_ && now.granted <= warn_bytes_)) return;
  has_warned_ = true;
  report(
      "arena: %zu blocks of %zu bytes are live, after %zu cycles of growth: is a reset forgotten?",
      now.blocks, now.granted, grown_cycles_);
}

// --- The chunk. ---

// Between cycles: as large as either of the last two needed, and no larger.
void Arena::fit_chunk() noexcept {
  Work work = peak_before_;
  work.bytes = std::max(work.bytes, least_chunk_);
  const bool is_large = chunk_bytes_.read() >= work.bytes && page_size() >= work.blocks;
  const bool is_small = chunk_bytes_.read() / 8 * 7 <= work.bytes;
  if (is_large && is_small) return;
  give_up_chunk();
  if (work.bytes > 0) set_chunk(work);
}

// If there is memory for one.
void Arena::set_chunk(const Work& work) noexcept {
  behind_ = stream_;
  const std::optional<std::size_t> bytes = round_up(work.bytes, below_granule_ + 1);
  if (!bytes || !set_page(work.blocks)) return;
  const Expected<Block> block = upstream().try_allocate({.bytes = *bytes, .stream = stream_});
  if (!block) return;
  chunk_ = *block;
  chunk_bytes_.set(block->bytes & ~below_granule_);
  chunk_end_ = static_cast<std::byte*>(chunk_.memory) + (is_address_ ? chunk_bytes_.read() : 0);
  hold_more(chunk_.bytes);
  rewind();
  note_cached_peak();
}

// Nothing of it is live.
void Arena::give_up_chunk() noexcept {
  if (chunk_.empty()) return;
  hold_less(chunk_.bytes);
  chunk_bytes_.set(0);
  rewind();
  upstream().deallocate(std::exchange(chunk_, {}), std::exchange(behind_, stream_));
}

// Records for so many blocks. Those of a former page stay, so that handles can be read, and
// refused.
bool Arena::set_page(std::size_t blocks) noexcept try {
  if (page_size() > 0 && blocks <= page_size()) return true;
  const std::size_t size = blocks > 0 ? std::max(blocks, 2 * page_size()) : first_page;
  auto page = std::make_unique<Page>(this, size);
  page->former = std::move(owned_page_);
  owned_page_ = std::move(page);
  page_.store(owned_page_.get(), std::memory_order_release);
  last_ = owned_page_->end();
  rewind();
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

std::size_t Arena::page_size() const noexcept {
  const Page* page = page_.load();
  return page != nullptr ? page->records.size() : 0;
}

void Arena::set_room(std::size_t bytes) noexcept {
  const bool is_fast = is_address_ && !checks_owner();
  room_.set(is_fast ? bytes : 0);
  hidden_room_.set(is_fast ? 0 : bytes);
}

// Another thread may look while the owner goes on: what it sees is roughly right.
Sum Arena::taken() const noexcept {
  const Page* page = page_.load(std::memory_order_acquire);
  if (page == nullptr) return {};
  const auto blocks = static_cast<std::size_t>(next_.read() - page->records.data());
  if (blocks > page->records.size()) return {};  // another page's
  return {
      .blocks = blocks, .requested = requested_.read(), .granted = chunk_bytes_.read() - room()};
}

Sum Arena::taken_live() const noexcept {
  Sum sum = taken();
  sum -= dead_;
  return sum;
}

void Arena::trim_own(std::size_t keep_bytes) noexcept {
  if (is_chunk_idle() && idle_bytes() > keep_bytes) give_up_chunk();
}

void Arena::clear() noexcept {
  if (!enter(0)) return;
  trim_own(0);
  peak_ = peak_before_ = {};
}

// --- Its records. ---

Arena::Page* Arena::page_of(const Node& record) const noexcept {
  Page* page = page_.load(std::memory_order_acquire);
  while (page != nullptr && !page->has(record))
    page = page->former.get();
  return page;
}

bool Arena::names(const Block& block) const noexcept {
  return block.node->names(block, this) &&
         (block.generation > first_generation() || !is_taken(*block.node));
}

RemoteFree& Arena::remote_free(Node& record) const noexcept {
  Page* page = page_of(record);
  return page != nullptr ? page->remote[page->place_of(record)]
                         : static_cast<Passed&>(record).remote;
}

Sum Arena::sum_of(const Node& record) const noexcept {
  if (is_taken(record)) {
    const auto& taken = static_cast<const Taken&>(record);
    return {.blocks = 1, .requested = taken.requested, .granted = rounded(taken.requested)};
  }
  const Block& below = static_cast<const Passed&>(record).below;
  return {.blocks = 1, .requested = below.requested, .granted = below.bytes};
}

Sum Arena::unsettled_grants() const noexcept {
  Sum sum = taken();
  sum -= settled_.read();
  return sum;
}

void Arena::set_settled() noexcept {
  settled_.set(taken());
}

// --- What it tells. ---

Expected<Block> Arena::try_grow(const Block& block, std::size_t bytes) noexcept {
  if (block.empty()) return tl::unexpected(fail(Errc::cannot_grow, bytes));
  if (const Expected<void> entered = enter(bytes); !entered) return tl::unexpected(entered.error());
  if (!names(block)) return tl::unexpected(invalid(block));
  if (is_taken(*block.node)) return grow_taken(block, bytes);
  auto& record = static_cast<Passed&>(*block.node);
  const Expected<Block> grown =
      ask_upstream([&] { return upstream().try_grow(record.below, bytes); });
  if (!grown) return grown;
  const std::size_t more = grown->bytes - record.below.bytes;
  count_growth(grown->requested - record.below.requested, more);
  hold_more(more);
  if (!record.is_held) passed_bytes_ += rounded(grown->requested) - rounded(record.below.requested);
  record.below = *grown;
  Block handle = *grown;
  handle.node = &record;
  handle.generation = record.renew_life();
  return handle;
}

Expected<Block> Arena::grow_taken(const Block& block, std::size_t bytes) noexcept {
  auto& record = static_cast<Taken&>(*block.node);
  const Sum before = sum_of(record);
  const bool is_last = &record + 1 == next_.read();
  const std::size_t most = before.granted + (is_last ? room() : 0);
  if (bytes > most) return tl::unexpected(fail(Errc::cannot_grow, bytes));
  record.requested = std::max(bytes, record.requested);
  const Sum after = sum_of(record);
  Sum more = after;
  more -= before;
  Sum all = settled_.read();
  all += more;
  settled_.set(all);
  set_room(room() - more.granted);
  requested_.rise(more.requested);
  count_growth(more.requested, more.granted);
  generation_ += 2;
  record.generation.store(generation_, std::memory_order_relaxed);
  Block handle = block;
  handle.bytes = after.granted;
  handle.requested = after.requested;
  handle.generation = generation_;
  return handle;
}

Outstanding Arena::outstanding() const noexcept {
  Outstanding out;
  each_live([&](const Node& record, const RemoteFree& remote) {
    if (!remote.is_queued.load(std::memory_order_relaxed)) out.add(sum_of(record).granted);
  });
  return out;
}

template <class Visit>
void Arena::each_live(Visit&& visit) const {
  const Page* page = page_.load();
  const std::size_t blocks = taken().blocks;
  for (std::size_t i = 0; i < blocks; ++i) {
    if (page->records[i].is_live()) visit(page->records[i], page->remote[i]);
  }
  passed_.each([&](const Passed& record) {
    if (record.is_live()) visit(record, record.remote);
  });
}

std::size_t Arena::largest_after(const Supposition& supposed) const noexcept {
  const PoolsAbove above{.pool = this, .next = supposed.pools};
  Supposition below = supposed;
  below.pools = &above;
  if (is_chunk_idle()) {
    below.requested = saturating_add(below.requested, chunk_.requested);
    below.granted = saturating_add(below.granted, chunk_.bytes);
  }
  const std::size_t here = next_.read() != last_ && stream_.id == 0 ? room() : 0;
  return std::max(here, OwnedPool::largest_after(below));
}

// To another thread, which is refused in any case, it tells nothing.
void Arena::explain(Shortage& shortage) const noexcept {
  if (is_owner()) {
    SizeTally sizes;
    each_live(
        [&](const Node& record, const RemoteFree&) { sizes.add(sum_of(record).granted, true); });
    if (room() > 0) sizes.add(room(), false);
    shortage.add_sizes(sizes);
    shortage.add_holes(idle_bytes(), room());
  }
  OwnedPool::explain(shortage);
}

// What another thread asks to be trimmed does not go at once.
std::size_t Arena::trimmable() const noexcept {
  return is_owner() && is_chunk_idle() && upstream().stats().pools == 0 ? chunk_.bytes : 0;
}

std::string Arena::validate() const {
  Sum all;
  Sum live_ones;
  const Page* page = page_.load();
  for (std::size_t i = 0; i < taken().blocks; ++i) {
    const Taken& record = page->records[i];
    all += sum_of(record);
    if (record.is_live()) live_ones += sum_of(record);
  }
  if (all != taken()) return "arena: the records are of what was taken of the chunk";
  if (room() > chunk_bytes_.read()) return "arena: the room is a part of the chunk";
  if (live_ones != taken_live()) return "arena: what was taken is live or was freed";
  Sum passed;
  Sum ended;
  passed_.each([&](const Passed& record) {
    if (!record.is_live()) return;
    passed += sum_of(record);
    if (!record.is_held) ended += {.blocks = 1, .granted = rounded(record.below.requested)};
  });
  if (ended.blocks != ended_by_reset_.size() || ended.granted != passed_bytes_)
    return "arena: a reset ends what was passed on and is not held";
  if (passed.granted + chunk_.bytes != held())
    return "arena: what is held is the chunk and what was passed on";
  passed += live_ones;
  if (passed != live()) return "arena: what is live is what the records say";
  return OwnedPool::validate();
}

}  // namespace cistern
