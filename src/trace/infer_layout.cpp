#include "trace/infer_layout.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "trace/fail.hpp"
#include "trace/untrusted_hash.hpp"

namespace cistern::detail {
namespace {

using Segment = RecordedLayout::Segment;
using Change = RecordedLayout::Change;
using Place = RecordedLayout::Place;
using Status = tl::expected<void, TraceError>;

// PyTorch's rules (c10/cuda/CUDACachingAllocator).
constexpr std::uint64_t smallest_block = 512;  // sizes are multiples of it
constexpr std::uint64_t small_segment = std::uint64_t{2} << 20U;
constexpr std::uint64_t longest_tail = std::uint64_t{1} << 20U;  // that is not split off, if large

constexpr std::uint64_t last_recorded_address = std::uint64_t{1} << 62U;

std::uint64_t rounded(std::uint64_t bytes) {
  const std::uint64_t multiple = (bytes + smallest_block - 1) / smallest_block * smallest_block;
  return std::max(multiple, smallest_block);
}

std::string described(const Segment& segment) {
  return fmt::format("the segment of {} bytes at {:#x}", segment.bytes, segment.address);
}

/// The segments there are at one time, none of which overlap.
class Segments {
 public:
  Status add(const Segment& segment) {
    if (segment.bytes == 0 || segment.address > last_recorded_address ||
        segment.bytes > last_recorded_address - segment.address)
      return fail(described(segment) + " is empty or lies beyond 2^62");
    const auto after = by_address_.lower_bound(segment.address);
    if (after != by_address_.end() && after->first - segment.address < segment.bytes)
      return fail(described(segment) + " overlaps " + described(after->second));
    if (after != by_address_.begin()) {
      if (const Segment& before = std::prev(after)->second;
          segment.address - before.address < before.bytes)
        return fail(described(segment) + " overlaps " + described(before));
    }
    by_address_.emplace_hint(after, segment.address, segment);
    return {};
  }

  /// Removes the segment, which must be there with so many bytes; tells what it was.
  std::optional<Segment> remove(const Segment& segment) {
    const auto found = by_address_.find(segment.address);
    if (found == by_address_.end() || found->second.bytes != segment.bytes) return std::nullopt;
    const Segment removed = found->second;
    by_address_.erase(found);
    return removed;
  }

  /// The segment that holds `address`, or null.
  [[nodiscard]] const Segment* around(std::uint64_t address) const {
    const auto after = by_address_.upper_bound(address);
    if (after == by_address_.begin()) return nullptr;
    const Segment& segment = std::prev(after)->second;
    return address - segment.address < segment.bytes ? &segment : nullptr;
  }

  [[nodiscard]] std::vector<Segment> in_order() const {
    std::vector<Segment> all;
    for (const auto& [address, segment] : by_address_)
      all.push_back(segment);
    return all;
  }

 private:
  std::map<std::uint64_t, Segment> by_address_;
};

/// A block that was live before the first event.
struct Initial {
  std::uint64_t address = 0;
  std::uint64_t least = 0;  // that it was granted: what it requested, rounded
  std::uint64_t room = 0;   // up to the next block or the segment's end
  std::uint64_t granted = 0;
  bool is_known = false;
};

class Inference {
 public:
  Inference(const Trace& trace, StatedLayout stated) : trace_(trace), stated_(std::move(stated)) {}

  tl::expected<RecordedLayout, TraceError> run() {
    return undo_changes()
        .and_then([this] { return place_initial_blocks(); })
        .and_then([this] { return take_final_grants(); })
        .map([this] {
          watch_holes();
          return finish();
        });
  }

 private:
  /// From the segments after the last event to those before the first.
  Status undo_changes() {
    for (const Segment& segment : stated_.final_segments) {
      if (auto status = segments_.add(segment); !status) return status;
    }
    for (std::size_t index = stated_.changes.size(); index-- > 0;) {
      Change& change = stated_.changes[index];
      Segment& segment = change.segment;
      if (change.kind == Change::Kind::given_back) {
        segment.small = segment.bytes == small_segment;  // those for large requests are larger
        if (auto status = segments_.add(segment); !status) return status;
      } else if (const auto removed = segments_.remove(segment)) {
        segment = *removed;
      } else {
        return fail(described(segment) + " is obtained, but by what follows it is not there");
      }
    }
    return {};
  }

  Status place_initial_blocks() {
    const std::size_t count = trace_.initial_blocks.size();
    initial_.resize(count);
    by_address_.resize(count);
    std::iota(by_address_.begin(), by_address_.end(), std::size_t{0});
    std::sort(by_address_.begin(), by_address_.end(), [this](std::size_t a, std::size_t b) {
      return stated_.initial_addresses[a] < stated_.initial_addresses[b];
    });
    std::uint64_t limit = last_recorded_address;  // where the block after begins
    for (std::size_t rank = count; rank-- > 0;) {
      const std::size_t index = by_address_[rank];
      Initial& block = initial_[index];
      block.address = stated_.initial_addresses[index];
      const std::uint64_t bytes = trace_.initial_blocks[index].bytes;
      const Segment* const segment = segments_.around(block.address);
      if (segment == nullptr)
        return fail(fmt::format("the block at {:#x}, live before the first event, is in no segment",
                                block.address));
      limit = std::min(limit, segment->address + segment->bytes);
      block.room = limit - block.address;
      if (bytes > block.room || rounded(bytes) > block.room)
        return fail(
            fmt::format("the block of {} bytes at {:#x}, live before the first event, has "
                        "room for {}",
                        bytes, block.address, block.room));
      block.least = rounded(bytes);
      // A small segment's rests are all split off. A hole of a large one is larger than any tail,
      // since smaller rests are not split off.
      block.is_known = segment->small || block.room - block.least <= longest_tail;
      block.granted = segment->small ? block.least : block.room;
      if (!block.is_known) block.granted = block.least;
      limit = block.address;
    }
    return {};
  }

  /// A block that lives to the end is as large then as it was before.
  Status take_final_grants() {
    UntrustedMap<std::size_t> index_of;
    for (std::size_t index = 0; index < initial_.size(); ++index)
      index_of.emplace(trace_.initial_blocks[index].id, index);
    for (const auto& [id, granted] : stated_.final_grants) {
      const auto found = index_of.find(id);
      if (found == index_of.end()) continue;
      Initial& block = initial_[found->second];
      if (granted > block.room || granted < trace_.initial_blocks[found->second].bytes)
        return fail(fmt::format("the block at {:#x} has {} bytes in the end and had room for {}",
                                block.address, granted, block.room));
      block.granted = granted;
      block.is_known = true;
    }
    return {};
  }

  /// What is put into a hole is put at its start, and that is where the block before it ends.
  void watch_holes() {
    constexpr std::size_t later = static_cast<std::size_t>(-1);
    std::map<std::uint64_t, std::size_t> live;  // initial blocks by address, and later ones
    for (const std::size_t index : by_address_)
      live.emplace_hint(live.end(), initial_[index].address, index);
    for (std::size_t index = 0; index < trace_.events.size(); ++index) {
      const std::uint64_t address = stated_.addresses[index];
      if (trace_.events[index].operation == Operation::free) {
        live.erase(address);
        continue;
      }
      const auto place = live.insert_or_assign(address, later).first;
      if (place == live.begin() || std::prev(place)->second == later) continue;
      Initial& block = initial_[std::prev(place)->second];
      const std::uint64_t granted = address - block.address;
      if (block.is_known || granted < block.least || granted > block.room ||
          granted - block.least > longest_tail)
        continue;
      block.granted = granted;
      block.is_known = true;
    }
  }

  RecordedLayout finish() {
    RecordedLayout layout;
    layout.segments = segments_.in_order();
    layout.initial_blocks.reserve(initial_.size());
    for (const Initial& block : initial_)
      layout.initial_blocks.push_back({.address = block.address, .granted = block.granted});
    layout.addresses = std::move(stated_.addresses);
    layout.changes = std::move(stated_.changes);
    return layout;
  }

  const Trace& trace_;
  StatedLayout stated_;
  Segments segments_;
  std::vector<Initial> initial_;
  std::vector<std::size_t> by_address_;  // indices of `initial_`
};

}  // namespace

tl::expected<RecordedLayout, TraceError> infer_layout(const Trace& trace, StatedLayout stated) {
  return Inference(trace, std::move(stated)).run();
}

}  // namespace cistern::detail
