#include "cistern/pool/virtual.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <stdexcept>
#include <string>
#include <utility>

#include "cistern/core/batch.hpp"
#include "cistern/core/size_tally.hpp"

namespace cistern {
namespace {

constexpr std::size_t most_addresses = std::size_t{1}
                                       << 40;  // where nobody knows the device's memory

std::size_t addresses_for(const Virtual::Options& options, const DeviceLimits& limits) noexcept {
  if (options.addresses != 0) return options.addresses;
  if (limits.total_memory == 0 || limits.total_memory > most_addresses / 8) return most_addresses;
  return 8 * limits.total_memory;
}

}  // namespace

// --- What a request and a free do. ---

Expected<Block> Virtual::try_allocate(const Request& request) noexcept {
  if (request.bytes == 0) return Block{};
  const std::lock_guard lock(mutex_);
  const Expected<PagedChunk*> chunk = obtain(request);
  if (chunk) return hand_out(**chunk, request.bytes);
  ++stats_.failures;
  return tl::unexpected(chunk.error());
}

// Handed out once all have their pages: a batch that fails leaves the figures as they were.
Expected<void> Virtual::try_allocate_batch(std::span<const Request> requests,
                                           std::span<Block> blocks) noexcept {
  assert(requests.size() == blocks.size());
  std::ranges::fill(blocks, Block{});
  const auto chunk_of = [](const Block& block) { return static_cast<PagedChunk*>(block.node); };
  const std::lock_guard lock(mutex_);
  const Stats before = stats_;
  const std::size_t work_peak = work_peak_;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].bytes == 0) continue;
    const Expected<PagedChunk*> chunk = obtain(requests[i]);
    if (chunk) {
      blocks[i].node = *chunk;
      continue;
    }
    for (const Block& block : blocks.first(i)) {
      if (!block.empty()) space_.release(*chunk_of(block));
    }
    stats_.hits = before.hits;
    stats_.misses = before.misses;
    work_peak_ = work_peak;
    enforce_bounds();
    ++stats_.failures;
    return fail_batch(blocks, chunk.error(), bytes_of(requests.subspan(i + 1)));
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (!blocks[i].empty()) blocks[i] = hand_out(*chunk_of(blocks[i]), requests[i].bytes);
  }
  return {};
}

// What has no place with room behind it may have one without.
Expected<PagedChunk*> Virtual::obtain(const Request& request) noexcept {
  if (!can_align(request.alignment, device().limits()))
    return tl::unexpected(fail(Errc::bad_alignment, request.bytes));
  const std::optional<std::size_t> bytes = round_up(request.bytes, unit_);
  if (!bytes || *bytes > most_a_device_has())
    return tl::unexpected(fail(Errc::too_large, request.bytes, most_a_device_has()));
  const std::size_t room = *bytes >= space_.page() ? room_ : 0;
  Expected<PagedChunk*> chunk = place(*bytes, room, request);
  if (!chunk && chunk.error().is_exhaustion() && room > 0) chunk = place(*bytes, 0, request);
  return chunk;
}

Expected<PagedChunk*> Virtual::place(std::size_t bytes, std::size_t room,
                                     const Request& request) noexcept {
  if (const Expected<void> ready = idle_order_.make_ready(request.stream); !ready)
    return tl::unexpected(fail(ready.error().code, request.bytes));
  const Expected<PagedChunk*> chunk = claim(bytes, room, request);
  if (!chunk) return chunk;
  (*chunk)->stream = request.stream;
  const Expected<bool> called = back(**chunk);
  if (called) {
    ++(*called ? stats_.misses : stats_.hits);
    return chunk;
  }
  space_.release(**chunk);
  enforce_bounds();
  return tl::unexpected(called.error());
}

Expected<PagedChunk*> Virtual::claim(std::size_t bytes, std::size_t room,
                                     const Request& request) noexcept {
  const std::size_t alignment = std::max(request.alignment, unit_);
  PagedChunk* chunk = space_.claim(bytes, alignment, room);
  if (chunk == nullptr) {
    // Enough for any place in the new addresses.
    const std::size_t needed =
        saturating_add(saturating_add(bytes, alignment), saturating_add(room, 2 * space_.page()));
    if (add_addresses(needed)) chunk = space_.claim(bytes, alignment, room);
  }
  if (chunk == nullptr) return tl::unexpected(fail(Errc::out_of_memory, request.bytes));
  return chunk;
}

// Where the system has no addresses for so much at a time, less will do.
bool Virtual::add_addresses(std::size_t needed) noexcept {
  for (std::size_t bytes = std::max(addresses_, needed);; bytes = std::max(bytes / 2, needed)) {
    const Expected<AddressRange> range = memory_.reserve(bytes, space_.page());
    if (range) {
      if (space_.add(*range)) return true;
      memory_.release(*range);
    }
    if (bytes == needed) return false;
  }
}

bool Virtual::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  bool accepted = false;
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    accepted = block.node->names(block, this);
    if (accepted) {
      auto& chunk = static_cast<PagedChunk&>(*block.node);
      idle_order_.note_free(handover_.end_uses(chunk, stream));
      stats_.count_free(chunk.requested, chunk.bytes);
      space_.release(chunk);
      if (abandoned_) unmap_idle(unbounded);
      if (mapped_pages() > max_bytes_ / space_.page()) enforce_bounds();  // it was lowered
      count_idle();
      over = abandoned_ && stats_.live_blocks.current == 0;
    } else {
      ++stats_.refused_frees;
    }
  }
  if (!accepted) return refuse_free("virtual", block);
  if (over) delete this;
  return true;
}

Expected<Block> Virtual::try_grow(const Block& block, std::size_t bytes) noexcept {
  if (block.empty()) return tl::unexpected(fail(Errc::cannot_grow, bytes));
  const std::lock_guard lock(mutex_);
  if (!block.node->names(block, this))
    return tl::unexpected(fail(Errc::invalid_block, block.bytes));
  auto& chunk = static_cast<PagedChunk&>(*block.node);
  const std::optional<std::size_t> whole = round_up(bytes, unit_);
  if (!whole || *whole > most_a_device_has())
    return tl::unexpected(fail(Errc::too_large, bytes, most_a_device_has()));
  const std::size_t more = saturating_subtract(*whole, chunk.bytes);
  if (more > 0) {
    if (!idle_order_.make_ready(chunk.stream) || !space_.extend(chunk, more))
      return tl::unexpected(fail(Errc::cannot_grow, bytes));
    if (const Expected<bool> called = back(chunk); !called) {
      space_.shorten(chunk, more);
      enforce_bounds();
      return tl::unexpected(called.error());
    }
  }
  const std::size_t requested = std::max(bytes, chunk.requested);
  stats_.count_growth(requested - chunk.requested, more);
  chunk.requested = requested;
  Block grown = block;
  grown.bytes = chunk.bytes;
  grown.requested = requested;
  grown.generation = chunk.renew_life();
  return grown;
}

Block Virtual::hand_out(PagedChunk& chunk, std::size_t requested) noexcept {
  chunk.requested = requested;
  stats_.count_grant(requested, chunk.bytes);
  return {.memory = reinterpret_cast<void*>(chunk.start),  // NOLINT(performance-no-int-to-ptr)
          .bytes = chunk.bytes,
          .requested = requested,
          .node = &chunk,
          .generation = chunk.generation.load(std::memory_order_relaxed)};
}

// --- Pages. ---

std::size_t Virtual::mapped_pages() const noexcept {
  return space_.open_pages() + space_.idle_pages();
}

/// How many pages may be mapped: enough for what lives, and within the bounds.
std::size_t Virtual::most_pages() const noexcept {
  const std::size_t open = space_.open_pages();
  const std::size_t kept = scale(std::max(work_peak_, open), 1 + idle_ratio_);
  return std::max(open, std::min(kept, max_bytes_ / space_.page()));
}

// Puts pages behind the whole of a chunk; answers whether the device was called for it. Idle pages
// elsewhere are taken before the device is asked for more than it ever gave: that is what keeps the
// peak of what is reserved at the peak of what is needed.
Expected<bool> Virtual::back(PagedChunk& chunk) noexcept {
  const std::size_t missing = space_.unmapped_pages_of(chunk);
  if (missing > 0) {
    const std::size_t open = space_.open_pages();
    if (open > max_bytes_ / space_.page()) {
      const std::size_t others = (open - missing) * space_.page();
      return tl::unexpected(
          fail(Errc::over_limit, missing * space_.page(), saturating_subtract(max_bytes_, others)));
    }
    enforce_bounds();
    for (PagedSpace::Pages pages = space_.unmapped_of(chunk); !pages.empty();
         pages = space_.unmapped_of(chunk)) {
      if (Expected<void> mapped = map(pages, chunk.stream); !mapped)
        return tl::unexpected(mapped.error());
    }
  }
  work_peak_ = std::max(work_peak_, space_.open_pages());
  count_idle();
  return missing > 0;
}

// A device that has no more gets as many idle pages back as are asked for, and is asked again.
Expected<void> Virtual::map(const PagedSpace::Pages& pages, Stream stream) noexcept {
  const auto ask = [&] {
    return memory_.map(pages.range->addresses, pages.start, pages.bytes, stream);
  };
  Expected<void> mapped = ask();
  const bool is_exhausted = !mapped && mapped.error().is_exhaustion();
  if (is_exhausted && unmap_idle(pages.bytes / space_.page())) mapped = ask();
  if (mapped) space_.set_mapped(pages);
  return mapped;
}

// False if no page was idle.
bool Virtual::unmap_idle(std::size_t pages) noexcept {
  const std::size_t before = space_.idle_pages();
  const std::size_t keep = saturating_subtract(before, pages);
  while (space_.idle_pages() > keep) {
    const PagedSpace::Pages leaving = space_.take_idle(space_.idle_pages() - keep);
    memory_.unmap(leaving.range->addresses, leaving.start, leaving.bytes, idle_order_.gather());
  }
  return before > keep;
}

// All open pages count as mapped, those of the chunk that is being backed too.
void Virtual::enforce_bounds() noexcept {
  unmap_idle(saturating_subtract(mapped_pages(), most_pages()));
  count_idle();
}

void Virtual::count_idle() noexcept {
  const std::size_t idle = space_.idle_pages() * space_.page();
  stats_.cached.current = idle;
  stats_.cached.peak = std::max(stats_.cached.peak, idle);
}

// --- The rest. ---

Virtual::Virtual(Ref<Resource> upstream, const Options& options)
    : Pool(std::move(upstream)),
      memory_(memory_of(&this->upstream(), options)),
      unit_(device().limits().alignment),
      addresses_(addresses_for(options, device().limits())),
      room_(options.room),
      idle_ratio_(options.idle_ratio),
      space_(this, options.page, unit_),
      max_bytes_(options.max_bytes) {}

VirtualMemory& Virtual::memory_of(Resource* upstream, const Options& options) {
  VirtualMemory* memory = upstream->device().virtual_memory();
  const char* kind = upstream->device().limits().kind;
  if (upstream != &upstream->device())
    throw std::invalid_argument("virtual: it stands directly on a device, to map pages of its own");
  if (memory == nullptr) {
    throw std::invalid_argument(std::string("virtual: the device ") + kind +
                                " has no virtual memory");
  }
  const VirtualMemory::PageSizes sizes = memory->page_sizes();
  if (!std::has_single_bit(options.page) || options.page < sizes.smallest ||
      options.page > sizes.largest || options.page < upstream->device().limits().alignment) {
    throw std::invalid_argument(std::string("virtual: the pages of ") + kind +
                                " are powers of two from " + std::to_string(sizes.smallest) +
                                " to " + std::to_string(sizes.largest) + " bytes");
  }
  if (!(options.idle_ratio >= 0))
    throw std::invalid_argument("virtual: the idle ratio is not negative");
  return *memory;
}

Virtual::~Virtual() {
  space_.each_range([&](const AddressRange& range) { memory_.release(range); });
}

void Virtual::abandoned() noexcept {
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    unmap_idle(unbounded);
    count_idle();
    over = stats_.live_blocks.current == 0;
  }
  if (over) delete this;
}

void Virtual::trim_to(std::size_t keep_bytes) noexcept {
  const std::lock_guard lock(mutex_);
  unmap_idle(saturating_subtract(space_.idle_pages(), keep_bytes / space_.page()));
  work_peak_ = mapped_pages();
  count_idle();
}

std::size_t Virtual::set_max_bytes(std::size_t max_bytes) noexcept {
  const std::lock_guard lock(mutex_);
  const std::size_t former = std::exchange(max_bytes_, max_bytes);
  enforce_bounds();
  return former;
}

std::size_t Virtual::max_bytes() const noexcept {
  const std::lock_guard lock(mutex_);
  return max_bytes_;
}

Expected<void> Virtual::also_used_on(const Block& block, Stream stream) noexcept {
  if (block.empty()) return {};
  const std::lock_guard lock(mutex_);
  if (!block.node->names(block, this))
    return tl::unexpected(fail(Errc::invalid_block, block.bytes));
  if (handover_.add_use(*block.node, stream)) return {};
  return tl::unexpected(fail(Errc::out_of_memory, 0));
}

Error Virtual::fail(Errc code, std::size_t requested, std::size_t available) const noexcept {
  return {.code = code, .stage = "virtual", .requested = requested, .available = available};
}

std::size_t Virtual::most_a_device_has() const noexcept {
  const DeviceLimits& limits = device().limits();
  return limits.total_memory != 0 ? limits.total_memory : limits.max_allocation;
}

Stats Virtual::stats() const noexcept {
  Stats own;
  {
    const std::lock_guard lock(mutex_);
    own = stats_;
  }
  return as_pool(own);
}

void Virtual::reset_peaks(const Stats& floor) noexcept {
  upstream().reset_peaks(floor);
  const std::lock_guard lock(mutex_);
  stats_.reset_live_peaks(floor);
  stats_.cached.reset_peak(floor.cached.peak);
}

std::vector<BucketStats> Virtual::buckets() const {
  const std::lock_guard lock(mutex_);
  const std::size_t idle = space_.idle_pages();
  if (idle == 0) return {};
  return {{.capacity = space_.page(), .cached_blocks = idle, .cached_bytes = idle * space_.page()}};
}

Outstanding Virtual::outstanding() const noexcept {
  const std::lock_guard lock(mutex_);
  Outstanding out;
  space_.each_block([&](const PagedChunk& block) { out.add(block.bytes); });
  return out;
}

// Pages need not lie together: whatever the device gives, and the idle ones, can be one block.
std::size_t Virtual::largest_after(const Supposition& supposed) const noexcept {
  const PoolsAbove above{.pool = this, .next = supposed.pools};
  Supposition below = supposed;
  below.pools = &above;
  std::size_t open = 0;
  std::size_t in_open_pages = 0;
  std::size_t most = 0;
  {
    const std::lock_guard lock(mutex_);
    const std::size_t idle = space_.idle_pages() * space_.page();
    below.requested = idle;
    below.granted = idle;
    open = space_.open_pages() * space_.page();
    in_open_pages = space_.largest_in_open_pages();
    most = max_bytes_;
  }
  const std::size_t pages =
      std::min(Pool::largest_after(below), saturating_subtract(most, open)) & ~(space_.page() - 1);
  return std::max(pages, in_open_pages);
}

void Virtual::explain(Shortage& shortage) const noexcept {
  {
    SizeTally sizes;
    const std::lock_guard lock(mutex_);
    std::size_t live = 0;
    space_.each_block([&](const PagedChunk& block) {
      sizes.add(block.bytes, true);
      live += block.bytes;
    });
    const std::size_t idle = space_.idle_pages() * space_.page();
    const std::size_t in_open_pages = space_.open_pages() * space_.page() - live;
    shortage.add_sizes(sizes);
    shortage.add_holes(idle + in_open_pages, std::max(idle, space_.largest_in_open_pages()));
  }
  Pool::explain(shortage);
}

std::size_t Virtual::trimmable() const noexcept {
  const std::lock_guard lock(mutex_);
  return stats_.cached.current;
}

std::string Virtual::validate() const {
  const Outstanding live = outstanding();
  {
    const std::lock_guard lock(mutex_);
    if (std::string law = space_.validate(); !law.empty()) return law;
    if (stats_.live_blocks.current != live.blocks)
      return "virtual: live_blocks is the number of live nodes";
    if (stats_.live_granted.current != live.bytes)
      return "virtual: live_granted is the sum of the live nodes";
    if (stats_.allocations - stats_.frees != live.blocks)
      return "virtual: allocations less frees are live";
    if (stats_.hits + stats_.misses != stats_.allocations)
      return "virtual: a grant is a hit or a miss";
    if (stats_.cached.current != space_.idle_pages() * space_.page())
      return "virtual: cached is the idle pages";
    if (mapped_pages() > most_pages())
      return "virtual: what is mapped is at most the peak of the work and the idle ratio";
  }
  return Pool::validate();
}

}  // namespace cistern
