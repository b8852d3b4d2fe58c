#include "cistern/pool/paged_space.hpp"

#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <utility>

#include "cistern/core/size.hpp"

namespace cistern {
namespace {

std::uintptr_t address_of(const std::byte* start) noexcept {
  return reinterpret_cast<std::uintptr_t>(start);
}

std::uintptr_t align_up(std::uintptr_t address, std::size_t alignment) noexcept {
  return (address + alignment - 1) & ~(alignment - 1);
}

bool is_hole(const PagedChunk* chunk) noexcept {
  return chunk != nullptr && !chunk->is_live();
}

}  // namespace

// --- Shapes. ---

PagedSpace::Shape PagedSpace::shape_of(const PagedChunk& hole) const noexcept {
  const std::uintptr_t first = page_up(hole.start);
  const std::uintptr_t last = page_down(hole.end());
  if (first >= last) return {.head = hole.bytes};
  return {.head = first - hole.start, .pages = (last - first) / page_, .tail = hole.end() - last};
}

PageMap::Run PagedSpace::pages_between(const PagedRange& range, std::uintptr_t start,
                                       std::uintptr_t end) const noexcept {
  if (start >= end) return {};
  return {.first = (start - address_of(range.addresses.start)) / page_,
          .count = (end - start) / page_};
}

PageMap::Run PagedSpace::closed_pages_of(const PagedChunk& hole) const noexcept {
  return pages_between(*hole.range, page_up(hole.start), page_down(hole.end()));
}

PageMap::Run PagedSpace::pages_of(const PagedChunk& block) const noexcept {
  return pages_between(*block.range, page_down(block.start), page_up(block.end()));
}

std::size_t PagedSpace::mapped_between(const PagedRange& range, std::uintptr_t start,
                                       std::uintptr_t end) const noexcept {
  return range.mapped.count(pages_between(range, start, end));
}

PagedSpace::Pages PagedSpace::as_pages(PagedRange& range, PageMap::Run run) const noexcept {
  return {.range = &range,
          .start = range.addresses.start + run.first * page_,
          .bytes = run.count * page_};
}

// --- Placement. ---

PagedSpace::Spot PagedSpace::flush(PagedChunk* hole, std::size_t bytes,
                                   bool at_end) const noexcept {
  if (hole == nullptr) return {};
  return {.hole = hole, .start = at_end ? hole->end() - bytes : hole->start};
}

// Opens no page: the best fit.
PagedSpace::Spot PagedSpace::find_in_open_pages(std::size_t bytes) const noexcept {
  PagedChunk* hole = by_open_.find_up(
      bytes, unbounded, [&](const PagedChunk& each) { return each.by_open.size >= bytes; });
  if (hole == nullptr) return {};
  const Shape shape = shape_of(*hole);
  return flush(hole, bytes, shape.tail >= bytes && (shape.head < bytes || shape.tail < shape.head));
}

// Opens fewer pages than the block has: a hole that it nearly fills, else one that begins or ends
// with enough open bytes for what the block has beyond whole pages.
PagedSpace::Spot PagedSpace::find_beside_open_pages(std::size_t bytes) const noexcept {
  const std::size_t whole = bytes / page_;
  const std::size_t rest = bytes % page_;
  if (whole == 0) return {};
  const std::size_t needed = whole + (rest > 0 ? 1 : 0);
  PagedChunk* filled = by_length_.find_up(bytes, bytes + 2 * page_, [&](const PagedChunk& each) {
    return each.bytes >= bytes && shape_of(each).pages < needed;
  });
  if (filled != nullptr) return flush(filled, bytes, false);
  if (rest == 0) return {};
  PagedChunk* beside = by_open_.find_up(rest, page_, [&](const PagedChunk& each) {
    const Shape shape = shape_of(each);
    return shape.open() >= rest && shape.pages >= whole;
  });
  if (beside == nullptr) return {};
  const Shape shape = shape_of(*beside);
  return flush(beside, bytes, shape.tail >= rest && (shape.head < rest || shape.tail < shape.head));
}

// Opens as many pages as the block has, mapped ones if possible, and adds the rest of the last one
// to open bytes that are too few by themselves.
PagedSpace::Spot PagedSpace::find_new_pages(std::size_t bytes) const noexcept {
  const std::size_t rest = bytes % page_;
  const std::size_t needed = bytes / page_ + (rest > 0 ? 1 : 0);
  for (const bool must_be_idle : {true, false}) {
    const auto has_pages = [&](const PagedChunk& each) {
      const std::size_t pages = shape_of(each).pages;
      return pages >= needed && (!must_be_idle || each.idle_pages == pages);
    };
    if (rest > 0) {
      if (PagedChunk* hole = by_open_.find_down(rest, has_pages)) {
        const Shape shape = shape_of(*hole);
        return flush(hole, bytes, shape.tail > shape.head);
      }
    }
    if (PagedChunk* hole = by_length_.find_up(needed * page_, unbounded, has_pages))
      return {.hole = hole, .start = page_up(hole->start)};
  }
  return {};
}

PagedSpace::Spot PagedSpace::find(std::size_t bytes, std::size_t alignment) const noexcept {
  const std::optional<std::size_t> padded = checked_add(bytes, alignment - unit_);
  if (!padded) return {};
  Spot spot = find_in_open_pages(*padded);
  if (spot.hole == nullptr) spot = find_beside_open_pages(*padded);
  if (spot.hole == nullptr) spot = find_new_pages(*padded);
  spot.start = align_up(spot.start, alignment);
  return spot;
}

PagedSpace::Spot PagedSpace::find_with_room(std::size_t bytes, std::size_t alignment,
                                            std::size_t room) const noexcept {
  const std::size_t all = saturating_add(saturating_add(bytes, room), page_);
  PagedChunk* hole = by_length_.find_up(all, unbounded, [&](const PagedChunk& each) {
    const std::uintptr_t start = align_up(each.start, alignment);
    return start <= each.end() && all <= each.end() - start;
  });
  if (hole == nullptr) return {};
  return {.hole = hole, .start = align_up(hole->start, alignment)};
}

// --- Holes come and go. ---

void PagedSpace::put_hole(PagedChunk& hole, std::size_t idle_pages) noexcept {
  const Shape shape = shape_of(hole);
  hole.idle_pages = idle_pages;
  closed_ += shape.pages;
  idle_ += idle_pages;
  if (idle_pages > 0) with_idle_pages_.push(&hole);
  if (hole.is_room) return;
  by_length_.put(&hole, hole.bytes);
  if (shape.open() > 0) by_open_.put(&hole, shape.open());
}

void PagedSpace::remove_hole(PagedChunk& hole) noexcept {
  closed_ -= shape_of(hole).pages;
  idle_ -= hole.idle_pages;
  if (hole.idle_pages > 0) with_idle_pages_.remove(&hole);
  if (hole.is_room) return;
  by_length_.remove(&hole);
  if (ByOpen::has(&hole)) by_open_.remove(&hole);
}

// What lies at `at` and behind becomes a chunk of its own, in no index.
PagedChunk* PagedSpace::split_off(PagedChunk& chunk, std::uintptr_t at, PagedChunk& rest) noexcept {
  rest.start = at;
  rest.bytes = chunk.end() - at;
  rest.range = chunk.range;
  rest.before = &chunk;
  rest.after = std::exchange(chunk.after, &rest);
  rest.is_room = false;
  if (rest.after != nullptr) rest.after->before = &rest;
  chunk.bytes = at - chunk.start;
  return &rest;
}

void PagedSpace::absorb_next(PagedChunk& chunk) noexcept {
  PagedChunk* next = chunk.after;
  chunk.bytes += next->bytes;
  chunk.after = next->after;
  if (chunk.after != nullptr) chunk.after->before = &chunk;
  chunks_.put(next);
}

bool PagedSpace::add(const AddressRange& addresses) noexcept {
  PagedChunk* hole = chunks_.take();
  if (hole == nullptr) return false;
  try {
    ranges_.push_back(std::make_unique<PagedRange>(addresses));
  } catch (const std::exception&) {
    chunks_.put(hole);
    return false;
  }
  hole->start = address_of(addresses.start);
  hole->bytes = addresses.bytes;
  hole->range = ranges_.back().get();
  hole->before = nullptr;
  hole->after = nullptr;
  hole->is_room = false;
  hole->range->first = hole;
  pages_ += addresses.bytes / page_;
  put_hole(*hole, 0);
  return true;
}

PagedChunk* PagedSpace::claim(std::size_t bytes, std::size_t alignment, std::size_t room) noexcept {
  const Spot spot = room > 0 ? find_with_room(bytes, alignment, room) : find(bytes, alignment);
  if (spot.hole == nullptr) return nullptr;
  std::array<PagedChunk*, 3> records{};
  for (PagedChunk*& record : records)
    record = chunks_.take();
  PagedChunk* block = nullptr;
  if (std::find(records.begin(), records.end(), nullptr) == records.end())
    block = cut_out(spot, bytes, room, records);
  for (PagedChunk* record : records) {
    if (record != nullptr) chunks_.put(record);
  }
  return block;
}

// What is left of the hole before and behind the block, and its room, take records.
PagedChunk* PagedSpace::cut_out(const Spot& spot, std::size_t bytes, std::size_t room,
                                std::array<PagedChunk*, 3>& records) noexcept {
  PagedChunk* hole = spot.hole;
  const PagedRange& range = *hole->range;
  const std::uintptr_t end = spot.start + bytes;
  const std::uintptr_t room_end = room > 0 ? page_up(end + room) : end;
  std::size_t idle = hole->idle_pages;
  idle -= mapped_between(range, std::max(page_down(spot.start), page_up(hole->start)),
                         std::min(page_up(end), page_down(hole->end())));
  remove_hole(*hole);

  const auto split = [&](PagedChunk& chunk, std::uintptr_t at, std::size_t record) {
    return split_off(chunk, at, *std::exchange(records[record], nullptr));
  };
  PagedChunk* block = spot.start > hole->start ? split(*hole, spot.start, 0) : hole;
  PagedChunk* behind = block->end() > room_end ? split(*block, room_end, 1) : nullptr;
  if (room_end > end) {
    PagedChunk* kept = split(*block, end, 2);
    kept->is_room = true;
    const std::size_t idle_there = range.mapped.count(closed_pages_of(*kept));
    put_hole(*kept, idle_there);
    idle -= idle_there;
  }
  if (block != hole) {  // short, if there is anything behind the block
    const std::size_t idle_there =
        behind != nullptr ? range.mapped.count(closed_pages_of(*hole)) : idle;
    put_hole(*hole, idle_there);
    idle -= idle_there;
  }
  if (behind != nullptr) put_hole(*behind, idle);
  block->begin_life();
  return block;
}

void PagedSpace::release(PagedChunk& block) noexcept {
  block.end_life();
  const std::uintptr_t first = page_down(block.start);
  const std::uintptr_t last = page_up(block.end());
  PagedChunk* hole = &block;
  std::size_t idle = 0;
  while (is_hole(hole->after)) {  // its room, and the hole behind that
    idle += hole->after->idle_pages;
    remove_hole(*hole->after);
    absorb_next(*hole);
  }
  if (is_hole(hole->before) && !hole->before->is_room) {
    hole = hole->before;
    idle += hole->idle_pages;
    remove_hole(*hole);
    absorb_next(*hole);
  }
  idle += mapped_between(*hole->range, std::max(first, page_up(hole->start)),
                         std::min(last, page_down(hole->end())));
  put_hole(*hole, idle);
}

// Room that does not suffice is joined with the hole behind it.
bool PagedSpace::extend(PagedChunk& block, std::size_t more) noexcept {
  PagedChunk* hole = block.after;
  if (!is_hole(hole)) return false;
  PagedChunk* further = hole->is_room && is_hole(hole->after) ? hole->after : nullptr;
  if (more > hole->bytes + (further != nullptr ? further->bytes : 0)) return false;
  std::size_t idle = hole->idle_pages;
  remove_hole(*hole);
  if (more > hole->bytes) {
    idle += further->idle_pages;
    remove_hole(*further);
    absorb_next(*hole);
    hole->is_room = false;
  }
  const std::uintptr_t end = block.end() + more;
  idle -= mapped_between(*hole->range, page_up(hole->start),
                         std::min(page_up(end), page_down(hole->end())));
  if (more == hole->bytes) {
    if (spare_ != nullptr) chunks_.put(spare_);
    spare_ = hole;
    block.bytes += more;
    block.after = hole->after;
    if (block.after != nullptr) block.after->before = &block;
    return true;
  }
  hole->start = end;
  hole->bytes -= more;
  block.bytes += more;
  put_hole(*hole, idle);
  return true;
}

void PagedSpace::shorten(PagedChunk& block, std::size_t less) noexcept {
  const std::uintptr_t former_end = block.end();
  const std::uintptr_t end = former_end - less;
  PagedChunk* hole = block.after;
  std::size_t idle = 0;
  if (is_hole(hole)) {
    idle = hole->idle_pages;
    remove_hole(*hole);
    hole->start = end;
    hole->bytes += less;
    block.bytes -= less;
  } else {
    hole = split_off(block, end, *std::exchange(spare_, nullptr));
  }
  idle += mapped_between(*hole->range, page_up(end),
                         std::min(page_up(former_end), page_down(hole->end())));
  put_hole(*hole, idle);
}

// --- Pages. ---

PagedSpace::Pages PagedSpace::unmapped_of(const PagedChunk& block) const noexcept {
  PagedRange& range = *block.range;
  return as_pages(range, range.mapped.find(pages_of(block), false));
}

std::size_t PagedSpace::unmapped_pages_of(const PagedChunk& block) const noexcept {
  const PageMap::Run pages = pages_of(block);
  return pages.count - block.range->mapped.count(pages);
}

void PagedSpace::set_mapped(const Pages& pages) noexcept {
  const std::uintptr_t start = address_of(pages.start);
  pages.range->mapped.set(pages_between(*pages.range, start, start + pages.bytes), true);
}

PagedSpace::Pages PagedSpace::take_idle(std::size_t most) noexcept {
  PagedChunk* hole = with_idle_pages_.oldest();
  if (hole == nullptr || most == 0) return {};
  PageMap::Run run = hole->range->mapped.find(closed_pages_of(*hole), true);
  run.count = std::min(run.count, most);
  hole->range->mapped.set(run, false);
  hole->idle_pages -= run.count;
  idle_ -= run.count;
  if (hole->idle_pages == 0) with_idle_pages_.remove(hole);
  return as_pages(*hole->range, run);
}

// --- Laws. ---

const char* PagedSpace::broken_law_in(const PagedRange& range) const {
  std::uintptr_t place = address_of(range.addresses.start);
  const PagedChunk* before = nullptr;
  for (const PagedChunk* each = range.first; each != nullptr; before = each, each = each->after) {
    if (each->start != place || each->bytes == 0 || each->before != before || each->range != &range)
      return "virtual: chunks tile their range";
    place = each->end();
    if (each->is_live()) {
      const PageMap::Run pages = pages_of(*each);
      if (range.mapped.count(pages) != pages.count)
        return "virtual: every page that a block touches is mapped";
      continue;
    }
    if (each->is_room ? !(before != nullptr && before->is_live())
                      : before != nullptr && !before->is_live() && !before->is_room)
      return "virtual: holes that touch are one, but for room, which is behind a block";
    if (range.mapped.count(closed_pages_of(*each)) != each->idle_pages)
      return "virtual: a hole's idle pages are those of it that are mapped";
    const Shape shape = shape_of(*each);
    const bool is_open = ByOpen::has(each) && each->by_open.size == shape.open();
    if (each->is_room ? ByLength::has(each) || ByOpen::has(each)
                      : !(ByLength::has(each) && each->by_length.size == each->bytes &&
                          (shape.open() > 0 ? is_open : !ByOpen::has(each))))
      return "virtual: holes are found by their length and by their open bytes, and room is not";
  }
  const bool ends = place == address_of(range.addresses.start) + range.addresses.bytes;
  return ends ? nullptr : "virtual: chunks tile their range";
}

std::string PagedSpace::validate() const {
  std::size_t closed = 0;
  std::size_t idle = 0;
  std::size_t holes = 0;
  std::size_t aged = 0;
  for (const auto& range : ranges_) {
    if (const char* law = broken_law_in(*range)) return law;
  }
  each_hole([&](const PagedChunk& hole) {
    closed += shape_of(hole).pages;
    idle += hole.idle_pages;
    holes += hole.is_room ? 0 : 1;
    aged += hole.idle_pages > 0 ? 1 : 0;
  });
  if (closed != closed_ || idle != idle_) return "virtual: pages are open, idle or not mapped";
  if (holes != by_length_.size()) return "virtual: what is found by length is a hole";
  if (aged != with_idle_pages_.size()) return "virtual: holes with idle pages are in order of age";
  return {};
}

}  // namespace cistern
