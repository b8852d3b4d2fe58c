#include "cistern/pool/suballocator.hpp"

#include <algorithm>
#include <array>
#include <new>
#include <span>
#include <utility>

#include "cistern/core/size.hpp"

namespace cistern {
namespace {

std::uintptr_t aligned(std::uintptr_t start, std::size_t alignment) noexcept {
  return (start + (alignment - 1)) & ~(std::uintptr_t{alignment} - 1);
}

bool fits(const Chunk& hole, const Suballocator::Want& want) noexcept {
  const std::uintptr_t pad = aligned(hole.start, want.alignment) - hole.start;
  return pad <= hole.bytes && want.bytes <= hole.bytes - pad;
}

/// Either may be null.
Chunk* smaller(Chunk* a, Chunk* b) noexcept {
  if (a == nullptr || b == nullptr) return a != nullptr ? a : b;
  return b->bytes < a->bytes ? b : a;
}

}  // namespace

// --- the fast path ---

Chunk* Suballocator::find(const HoleIndex& holes, const Want& want) noexcept {
  Chunk* hole = holes.find(want.bytes);
  if (hole == nullptr || fits(*hole, want)) [[likely]]
    return hole;
  const std::optional<std::size_t> surely = checked_add(want.bytes, want.alignment - 1);
  return surely ? holes.find(*surely) : nullptr;
}

// A region as large as would be obtained anew, if there is one: then the same requests find the
// same places whether the regions are there or not.
Chunk* Suballocator::find_last_resort(const HoleIndex& holes, const Want& want) noexcept {
  if (holes.empty()) return nullptr;
  Chunk* hole = want.region > want.bytes ? holes.find(want.region) : nullptr;
  return hole != nullptr && fits(*hole, want) ? hole : find(holes, want);
}

Chunk* Suballocator::find_in_class(const StreamHoles& holes, std::size_t size_class,
                                   const Want& want) noexcept {
  Chunk* hole = find(holes.of_class[size_class], want);
  return hole != nullptr ? hole : find_last_resort(holes.last_resort[size_class], want);
}

// The block is cut from the front of the hole, behind what alignment skips. Without memory for the
// record of a rest, the block keeps it.
Chunk* Suballocator::carve(Chunk& hole, const Want& want) noexcept {
  erase_hole(&hole);
  Chunk* block = &hole;
  if (const std::uintptr_t pad = aligned(hole.start, want.alignment) - hole.start; pad > 0) {
    block = split_off(hole, pad);
    if (block != nullptr) block->stream = hole.stream;
    insert_hole(&hole);
    if (block == nullptr) return nullptr;
  }
  if (const std::size_t rest = block->bytes - want.bytes; rest > 0 && rest >= want.least_rest) {
    if (Chunk* behind = split_off(*block, want.bytes)) {
      behind->stream = block->stream;
      insert_hole(behind);
    }
  }
  count_block(*block);
  return block;
}

void Suballocator::put(Chunk* block, Stream stream) noexcept {
  discount_block(*block);
  make_hole(block, stream);
}

// Merges what was not a hole with those beside it.
Chunk* Suballocator::make_hole(Chunk* block, Stream stream) noexcept {
  block->stream = stream;
  if (Chunk* after = block->after; merges(after, *block)) {
    erase_hole(after);
    absorb_after(*block);
  }
  if (Chunk* before = block->before; merges(before, *block)) {
    erase_hole(before);
    before->stream = stream;
    absorb_after(*before);
    block = before;
  }
  insert_hole(block);
  return block;
}

void Suballocator::insert_hole(Chunk* hole) noexcept {
  StreamHoles& holes = *holes_of(hole->stream);
  const std::size_t size_class = hole->region->size_class;
  hole->index =
      is_last_resort(*hole) ? &holes.last_resort[size_class] : &holes.of_class[size_class];
  hole->index->insert(hole);
  if (has_many_streams_) count_seams(hole, true);
}

void Suballocator::erase_hole(Chunk* hole) noexcept {
  hole->index->erase(hole);
  hole->index = nullptr;
  if (has_many_streams_) count_seams(hole, false);
}

void Suballocator::count_block(const Chunk& block) noexcept {
  for (Region* region = block.region; region != nullptr && region->start < block.end();
       region = region->joined_after) {
    if (region->blocks++ > 0) continue;
    idle_.remove(region);
    idle_bytes_ -= region->bytes;
  }
}

void Suballocator::discount_block(const Chunk& block) noexcept {
  for (Region* region = block.region; region != nullptr && region->start < block.end();
       region = region->joined_after) {
    if (--region->blocks > 0) continue;
    idle_.push(region);
    idle_bytes_ += region->bytes;
  }
}

void Suballocator::count_seams(const Chunk* hole, bool is_inserted) noexcept {
  const std::size_t touching =
      std::size_t{is_hole(hole->before)} + std::size_t{is_hole(hole->after)};
  seams_ = is_inserted ? seams_ + touching : seams_ - touching;
}

/// Cuts `chunk` down to `bytes`; what is behind them becomes a chunk of its own, not yet a hole or
/// a block. Null, and nothing has happened, if the host has no memory for the record.
Chunk* Suballocator::split_off(Chunk& chunk, std::size_t bytes) noexcept {
  Chunk* rest = chunks_.take();
  if (rest == nullptr) return nullptr;
  rest->start = chunk.start + bytes;
  rest->bytes = chunk.bytes - bytes;
  rest->region = region_at(chunk.region, rest->start);
  rest->before = &chunk;
  rest->after = chunk.after;
  chunk.bytes = bytes;
  chunk.after = rest;
  set_end(*rest);
  return rest;
}

void Suballocator::absorb_after(Chunk& chunk) noexcept {
  Chunk* gone = chunk.after;
  chunk.bytes += gone->bytes;
  chunk.after = gone->after;
  set_end(chunk);
  chunks_.put(gone);
}

/// `last` is a chunk whose `after` was just set: tells what stands behind it.
void Suballocator::set_end(Chunk& last) noexcept {
  if (last.after != nullptr) {
    last.after->before = &last;
    return;
  }
  Region* region = last.region;
  while (region->joined_after != nullptr)
    region = region->joined_after;
  region->last = &last;
}

Region* Suballocator::region_at(Region* region, std::uintptr_t start) noexcept {
  while (region->joined_after != nullptr && start >= region->end())
    region = region->joined_after;
  return region;
}

// --- the slow path ---

Suballocator::Suballocator(const Resource* owner, const Options& options)
    : options_(options), chunks_(owner), regions_(owner) {
  streams_.push_back(std::make_unique<StreamHoles>(options));
  streams_.front()->is_known = false;
  streams_.push_back(std::make_unique<StreamHoles>(options));
  last_asked_ = streams_.back().get();  // NOLINT(*-prefer-member-initializer): known only now
}

bool Suballocator::StreamHoles::empty() const noexcept {
  bool is_empty = true;
  each_index([&](const HoleIndex& holes) { is_empty = is_empty && holes.empty(); });
  return is_empty;
}

Suballocator::StreamHoles* Suballocator::search_holes_of(Stream stream) noexcept {
  has_many_streams_ = true;
  for (const auto& holes : streams_) {
    if (holes->is_known && holes->stream_id == stream.id) return last_asked_ = holes.get();
  }
  return streams_.front().get();
}

void Suballocator::know(Stream stream) noexcept {
  if (holes_of(stream)->is_known || !make_known(stream) || streams_.front()->empty()) return;
  each_chunk([&](Chunk& chunk) {
    if (!chunk.is_hole() || chunk.stream.id != stream.id) return;
    erase_hole(&chunk);
    insert_hole(&chunk);
  });
}

bool Suballocator::make_known(Stream stream) noexcept {
  for (const auto& holes : streams_) {
    if (!holes->is_known || !holes->empty()) continue;
    holes->stream_id = stream.id;  // of a stream that has nothing left here
    return true;
  }
  try {
    streams_.push_back(std::make_unique<StreamHoles>(options_));
  } catch (const std::bad_alloc&) {
    return false;
  }
  streams_.back()->stream_id = stream.id;
  return true;
}

Chunk* Suballocator::take_of_any_stream(const Want& want) noexcept {
  const StreamHoles* own = holes_of(want.stream);
  Chunk* best = nullptr;
  for (const auto& holes : streams_)
    best = smaller(best, find(holes->of_class[want.size_class], want));
  if (best == nullptr && own->is_known)
    best = find_last_resort(own->last_resort[want.size_class], want);
  if (best == nullptr) {
    for (const auto& holes : streams_)
      best = smaller(best, find_last_resort(holes->last_resort[want.size_class], want));
  }
  return best != nullptr ? carve(*best, want) : nullptr;
}

Chunk* Suballocator::take_of_another_class(const Want& want) noexcept {
  const StreamHoles* own = holes_of(want.stream);
  Chunk* best = nullptr;
  for (const auto& holes : streams_) {
    if (!want.shares_streams && (holes.get() != own || !own->is_known)) continue;
    for (std::size_t size_class = 0; size_class < options_.size_classes; ++size_class)
      best = smaller(best, find_in_class(*holes, size_class, want));
  }
  return best != nullptr ? carve(*best, want) : nullptr;
}

Chunk* Suballocator::end_for(const Region& region, const Want& want) noexcept {
  const bool is_usable =
      is_hole(region.last) && (want.shares_streams || region.last->stream.id == want.stream.id);
  return is_usable ? region.last : nullptr;
}

Chunk* Suballocator::take_at_end(Region& region, const Want& want) noexcept {
  Chunk* last = end_for(region, want);
  return last != nullptr && fits(*last, want) ? carve(*last, want) : nullptr;
}

Chunk* Suballocator::take_in(Chunk& hole, const Want& want) noexcept {
  return fits(hole, want) ? carve(hole, want) : nullptr;
}

std::size_t Suballocator::bytes_to_hold(const Region& region, const Want& want) noexcept {
  const Chunk* last = end_for(region, want);
  const std::uintptr_t from = last != nullptr ? last->start : region.end();
  return saturating_add(aligned(from, want.alignment) - region.start, want.bytes);
}

bool Suballocator::merge_streams(Stream stream) noexcept {
  if (seams_ == 0) return false;
  bool has_merged = false;
  std::array<std::uint64_t, 16> waited{};  // streams that need not be waited for again
  std::size_t waits = 0;
  const auto is_ready = [&](const Chunk& hole) {
    if (hole.stream.id == stream.id) return true;
    const auto known = std::span(waited).first(std::min(waits, waited.size()));
    if (std::ranges::find(known, hole.stream.id) != known.end()) return true;
    if (!make_ready(options_.order, hole.stream, stream)) return false;
    waited[waits++ % waited.size()] = hole.stream.id;
    return true;
  };
  each_chunk([&](Chunk& chunk) {
    while (chunk.is_hole() && is_hole(chunk.after) && is_ready(chunk) && is_ready(*chunk.after)) {
      absorb_hole_after(chunk, stream);
      has_merged = true;
    }
  });
  return has_merged;
}

/// Both become `stream`'s.
void Suballocator::absorb_hole_after(Chunk& hole, Stream stream) noexcept {
  erase_hole(hole.after);
  erase_hole(&hole);
  hole.stream = stream;
  absorb_after(hole);
  insert_hole(&hole);
}

/// The hole that all of an idle region lies in, after those that end or begin in it have been cut
/// at its ends: what lies outside stays its stream's. The larger of two that merge decides whose
/// the whole is. Null if that stream cannot be made to wait for the other.
Chunk* Suballocator::hole_of(Region& region) noexcept {
  const Region* head = &region;
  while (head->joined_before != nullptr)
    head = head->joined_before;
  Chunk* hole = head->first;
  while (hole->end() <= region.start)
    hole = hole->after;
  while (hole->end() < region.end()) {
    Chunk& after = *hole->after;
    if (hole->start < region.start) {
      if (!make_ready(options_.order, hole->stream, after.stream)) return nullptr;
      move_seam(*hole, region.start);
      hole = &after;
    } else if (after.end() > region.end()) {
      if (!make_ready(options_.order, after.stream, hole->stream)) return nullptr;
      move_seam(*hole, region.end());
    } else {
      const auto [of_larger, of_smaller] = hole->bytes >= after.bytes
                                               ? std::pair(hole->stream, after.stream)
                                               : std::pair(after.stream, hole->stream);
      if (!make_ready(options_.order, of_smaller, of_larger)) return nullptr;
      absorb_hole_after(*hole, of_larger);
    }
  }
  return hole;
}

/// Between `hole` and the hole behind it. What moves is the other's stream from then on, which
/// waits.
void Suballocator::move_seam(Chunk& hole, std::uintptr_t to) noexcept {
  Chunk* after = hole.after;
  erase_hole(after);
  erase_hole(&hole);
  after->bytes = after->end() - to;
  after->start = to;
  after->region = region_at(hole.region, to);
  hole.bytes = to - hole.start;
  insert_hole(&hole);
  insert_hole(after);
}

/// A hole beside which something came or went: that decides whether it is spared.
void Suballocator::file_anew(Chunk* chunk) noexcept {
  if (!is_hole(chunk)) return;
  erase_hole(chunk);
  insert_hole(chunk);
}

Chunk* Suballocator::adopt(const Block& upstream, std::uintptr_t start, std::size_t size_class,
                           Stream stream) noexcept {
  Region* region = regions_.take();
  if (region == nullptr) return nullptr;
  Chunk* hole = chunks_.take();
  if (hole == nullptr) {
    regions_.put(region);
    return nullptr;
  }
  region->upstream = upstream;
  region->start = start;
  region->bytes = upstream.bytes;
  region->size_class = size_class;
  region->joined_before = region->joined_after = nullptr;
  region->first = region->last = hole;
  region->blocks = 0;
  region->is_growing = false;
  hole->start = start;
  hole->bytes = upstream.bytes;
  hole->region = region;
  hole->before = hole->after = nullptr;
  by_address_.insert(region);
  idle_.push(region);
  bytes_ += region->bytes;
  idle_bytes_ += region->bytes;

  if (options_.joins) {
    const auto is_partner = [&](const Region* other) {
      return other != nullptr && other->size_class == size_class;
    };
    Region* before = nullptr;
    for (Region* at = by_address_.root(); at != nullptr;) {
      const bool is_below = at->start < start;
      if (is_below) before = at;
      at = is_below ? Regions::right(at) : Regions::left(at);
    }
    Region* after =
        by_address_.first_reached([&](const Region& other) { return other.start > start; });
    if (is_partner(before) && before->end() == start) join(*before, *region);
    if (is_partner(after) && region->end() == after->start) join(*region, *after);
  }
  return make_hole(hole, stream);
}

void Suballocator::join(Region& before, Region& after) noexcept {
  before.joined_after = &after;
  after.joined_before = &before;
  Chunk* const last = before.last;
  Chunk* const first = after.first;
  last->after = first;
  first->before = last;
  before.last = nullptr;
  after.first = nullptr;
  file_anew(last);
  file_anew(first);
}

bool Suballocator::extend(Region& region, const Block& upstream, const Want& want) noexcept {
  const Chunk* last = end_for(region, want);
  const Stream stream = last != nullptr ? last->stream : want.stream;
  const std::size_t more = upstream.bytes - region.bytes;
  region.upstream = upstream;
  if (more == 0) return true;
  Chunk* hole = chunks_.take();
  if (hole == nullptr) return false;
  hole->start = region.end();
  hole->bytes = more;
  hole->region = &region;
  hole->before = region.last;
  hole->after = nullptr;
  region.last->after = hole;
  file_anew(region.last);
  region.last = hole;
  region.bytes += more;
  bytes_ += more;
  if (region.blocks == 0) idle_bytes_ += more;
  make_hole(hole, stream);
  return true;
}

bool Suballocator::remove(Region& region) noexcept {
  Chunk* hole = hole_of(region);
  if (hole == nullptr) return false;
  region.last_used = hole->stream;
  const std::size_t below = region.start - hole->start;
  const std::size_t above = hole->end() - region.end();
  Chunk* rest = nullptr;  // of the hole, above the region
  if (below > 0 && above > 0) {
    rest = chunks_.take();
    if (rest == nullptr) return false;
  }
  erase_hole(hole);
  Chunk* const before = hole->before;
  Chunk* const after = hole->after;
  Region* const region_before = region.joined_before;
  Region* const region_after = region.joined_after;
  if (region_before != nullptr) region_before->joined_after = nullptr;
  if (region_after != nullptr) region_after->joined_before = nullptr;

  if (below > 0) {
    hole->bytes = below;
    hole->after = nullptr;
    region_before->last = hole;
  } else if (before != nullptr) {
    before->after = nullptr;
    region_before->last = before;
    file_anew(before);
  }
  if (above > 0) {
    if (rest == nullptr) rest = hole;
    rest->start = region.end();
    rest->bytes = above;
    rest->region = region_after;
    rest->stream = hole->stream;
    rest->before = nullptr;
    rest->after = after;
    region_after->first = rest;
    set_end(*rest);
  } else if (after != nullptr) {
    after->before = nullptr;
    region_after->first = after;
    file_anew(after);
  }
  if (below > 0) insert_hole(hole);
  if (above > 0) insert_hole(rest);
  if (below == 0 && above == 0) chunks_.put(hole);
  by_address_.erase(&region);
  idle_.remove(&region);
  bytes_ -= region.bytes;
  idle_bytes_ -= region.bytes;
  return true;
}

bool Suballocator::grow(Chunk& block, std::size_t bytes) noexcept {
  const std::size_t more = bytes - block.bytes;
  Chunk* after = block.after;
  if (!merges(after, block) || after->bytes < more) return false;
  if (options_.order != nullptr && block.stream.runs_out_of_order()) return false;
  discount_block(block);
  erase_hole(after);
  if (after->bytes == more) {
    absorb_after(block);
  } else {
    block.bytes = bytes;
    after->start += more;
    after->bytes -= more;
    after->region = region_at(after->region, after->start);
    insert_hole(after);
  }
  count_block(block);
  return true;
}

Chunk* Suballocator::take_at(std::uintptr_t start, std::size_t bytes) noexcept {
  const Region* head = nullptr;  // the last region at or below `start`
  for (const Region* at = by_address_.root(); at != nullptr;) {
    const bool is_below = at->start <= start;
    if (is_below) head = at;
    at = is_below ? Regions::right(at) : Regions::left(at);
  }
  while (head != nullptr && head->joined_before != nullptr)
    head = head->joined_before;
  Chunk* hole = head != nullptr ? head->first : nullptr;
  while (hole != nullptr && hole->end() <= start)
    hole = hole->after;
  if (!is_hole(hole) || hole->start > start || bytes > hole->end() - start) return nullptr;
  Chunk* block = hole;
  erase_hole(hole);
  if (start > hole->start) {
    block = split_off(*hole, start - hole->start);
    if (block != nullptr) block->stream = hole->stream;
    insert_hole(hole);
    if (block == nullptr) return nullptr;
  }
  if (block->bytes > bytes) {
    Chunk* rest = split_off(*block, bytes);
    if (rest == nullptr) {
      make_hole(block, block->stream);
      return nullptr;
    }
    rest->stream = block->stream;
    insert_hole(rest);
  }
  count_block(*block);
  return block;
}

Region* Suballocator::most_extensible(std::size_t size_class) const noexcept {
  Region* best = nullptr;
  std::size_t most = 0;
  by_address_.each([&](Region& region) {
    if (region.size_class != size_class || region.joined_after != nullptr || region.is_growing)
      return;
    const std::size_t tail = is_hole(region.last) ? region.last->bytes : 0;
    if (best != nullptr && tail <= most) return;
    best = &region;
    most = tail;
  });
  return best;
}

std::size_t Suballocator::largest_hole() const noexcept {
  std::size_t largest = 0;
  for (std::size_t size_class = 0; size_class < options_.size_classes; ++size_class)
    largest = std::max(largest, largest_hole(size_class, true));
  return largest;
}

std::size_t Suballocator::largest_hole(std::size_t size_class,
                                       bool of_every_stream) const noexcept {
  std::size_t largest = 0;
  for (const auto& stream : streams_) {
    const bool is_default = stream->is_known && stream->stream_id == Stream{}.id;
    if (of_every_stream || is_default) {
      largest = std::max({largest, stream->of_class[size_class].largest(),
                          stream->last_resort[size_class].largest()});
    }
  }
  return largest;
}

std::string Suballocator::validate() const {
  Found found;
  std::size_t in_regions = 0;
  std::size_t idle = 0;
  std::size_t touches = 0;  // of regions by blocks
  std::uintptr_t last_end = 0;
  std::string broken;
  by_address_.each([&](const Region& region) {
    if (region.start < last_end) broken = "coalesce: regions do not overlap";
    last_end = region.end();
    in_regions += region.bytes;
    if (region.blocks == 0) idle += region.bytes;
    touches += region.blocks;
    if (region.joined_before != nullptr) return;
    if (const char* law = validate_span(region, found); law != nullptr) broken = law;
  });
  if (!broken.empty()) return broken;
  if (touches != found.touches) return "coalesce: a region counts the blocks that touch it";
  if (in_regions != bytes_) return "coalesce: bytes is the sum of the regions";
  if (idle != idle_bytes_) return "coalesce: idle bytes is the sum of the idle regions";
  if (found.seams != seams_) return "coalesce: seams are counted";
  return validate_indexes(found.holes);
}

/// Of the chunks from the start of `head` to the end of the last region joined to it.
const char* Suballocator::validate_span(const Region& head, Found& found) const noexcept {
  std::uintptr_t at = head.start;
  const Region* region = &head;
  const Chunk* previous = nullptr;
  for (const Chunk* chunk = head.first; chunk != nullptr; chunk = chunk->after) {
    if (chunk->start != at || chunk->bytes == 0 || chunk->before != previous)
      return "coalesce: chunks tile their regions";
    while (region->joined_after != nullptr && at >= region->end())
      region = region->joined_after;
    if (chunk->region != region) return "coalesce: a chunk knows the region it starts in";
    if (chunk->is_live() == chunk->is_hole()) return "coalesce: a chunk is a block or a hole";
    if (chunk->is_hole() && is_hole(previous)) {
      if (merges(previous, *chunk)) return "coalesce: holes that touch are merged";
      ++found.seams;
    }
    if (chunk->is_hole()) ++found.holes;
    for (const Region* each = chunk->is_hole() ? nullptr : region;
         each != nullptr && each->start < chunk->end(); each = each->joined_after)
      ++found.touches;
    at = chunk->end();
    previous = chunk;
  }
  while (region->joined_after != nullptr)
    region = region->joined_after;
  return at == region->end() && region->last == previous ? nullptr
                                                         : "coalesce: chunks fill their regions";
}

std::string Suballocator::validate_indexes(std::size_t holes) const {
  std::string broken;
  std::size_t indexed = 0;
  for (const auto& stream : streams_) {
    stream->each_index([&](const HoleIndex& index) {
      if (std::string law = index.validate(); !law.empty()) broken = law;
      index.each([&](const Chunk& hole) {
        ++indexed;
        const auto& indices = is_last_resort(hole) ? stream->last_resort : stream->of_class;
        if (hole.is_live() || hole.index != &index || &index != &indices[hole.region->size_class])
          broken = "coalesce: a hole is in the index of its stream, class and place";
        if (stream->is_known && hole.stream.id != stream->stream_id)
          broken = "coalesce: a known stream's index holds its holes only";
      });
    });
  }
  if (indexed != holes) return "coalesce: every hole is in an index";
  return broken;
}

}  // namespace cistern
