#include "cistern/core/device.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <vector>

#include "cistern/core/size.hpp"

namespace cistern {

Device::Device(DeviceLimits limits) : limits_(std::move(limits)) {
  if (!std::has_single_bit(limits_.alignment) || !std::has_single_bit(limits_.granularity) ||
      !std::has_single_bit(limits_.max_alignment) || limits_.max_alignment < limits_.alignment) {
    throw std::invalid_argument(
        "a device's alignments and granularity are powers of two, the default at most the largest");
  }
}

Expected<Device::Piece> Device::obtain_checked(const Request& request) noexcept {
  if (!can_align(request.alignment, limits_)) {
    return tl::unexpected(fail(Errc::bad_alignment, request.bytes));
  }
  const std::size_t alignment = std::max(request.alignment, limits_.alignment);
  const std::optional<std::size_t> bytes = round_up(request.bytes, limits_.granularity);
  if (!bytes || *bytes > limits_.max_allocation) {
    return tl::unexpected(fail(Errc::too_large, request.bytes, limits_.max_allocation));
  }
  return obtain(*bytes, alignment, request.stream);
}

Expected<Block> Device::try_allocate(const Request& request) noexcept {
  if (request.bytes == 0) return Block{};
  const Expected<Piece> piece = obtain_checked(request);
  {
    const std::lock_guard lock(mutex_);
    DeviceNode* node = piece ? nodes_.take() : nullptr;
    if (node != nullptr) {
      node->piece = *piece;
      node->requested = request.bytes;
      stats_.count_grant(request.bytes, piece->bytes);
      stats_.reserved.rise(piece->bytes);
      ++stats_.device_allocations;
      pin();
      return Block{.memory = piece->memory,
                   .bytes = piece->bytes,
                   .requested = request.bytes,
                   .node = node,
                   .generation = node->begin_life()};
    }
    ++stats_.failures;
  }
  if (!piece) return tl::unexpected(piece.error());
  give_back(*piece, request.stream);  // the host has no memory for the record
  return tl::unexpected(fail(Errc::out_of_memory, request.bytes));
}

bool Device::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  Piece piece;
  {
    const std::lock_guard lock(mutex_);
    if (names(block)) {
      auto* node = static_cast<DeviceNode*>(block.node);
      piece = node->piece;
      stats_.count_free(node->requested, piece.bytes);
      stats_.reserved.fall(piece.bytes);
      ++stats_.device_frees;
      node->end_life();
      nodes_.put(node);
    } else {
      ++stats_.refused_frees;
    }
  }
  if (piece.bytes == 0) return refuse_free(limits_.kind, block);
  give_back(piece, stream);
  unpin();
  return true;
}

// By its record and by what the handle says of it. Under the lock.
bool Device::names(const Block& block) const noexcept {
  if (!block.node->names(block, this)) return false;
  const Piece& piece = static_cast<const DeviceNode*>(block.node)->piece;
  return piece.memory == block.memory && piece.bytes == block.bytes;
}

bool Device::is_live(const Block& block) const noexcept {
  const std::lock_guard lock(mutex_);
  return !block.empty() && names(block);
}

Expected<Device::Piece> Device::extend(const Piece& /*piece*/, std::size_t bytes) noexcept {
  return tl::unexpected(fail(Errc::cannot_grow, bytes));
}

Expected<Device::Piece> Device::extend_checked(const Piece& piece, std::size_t bytes) noexcept {
  if (bytes <= piece.bytes) return piece;
  const std::optional<std::size_t> whole = round_up(bytes, limits_.granularity);
  if (!whole || *whole > limits_.max_allocation) {
    return tl::unexpected(fail(Errc::too_large, bytes, limits_.max_allocation));
  }
  return extend(piece, *whole);
}

Expected<Block> Device::try_grow(const Block& block, std::size_t bytes) noexcept {
  if (block.empty()) return tl::unexpected(fail(Errc::cannot_grow, bytes));
  Piece before;
  {
    const std::lock_guard lock(mutex_);
    if (!names(block)) return tl::unexpected(fail(Errc::invalid_block, block.bytes));
    before = static_cast<DeviceNode*>(block.node)->piece;
  }
  const Expected<Piece> after = extend_checked(before, bytes);
  if (!after) return tl::unexpected(after.error());
  const std::lock_guard lock(mutex_);
  auto* node = static_cast<DeviceNode*>(block.node);
  const std::size_t requested = std::max(bytes, node->requested);
  const std::size_t more = after->bytes - before.bytes;
  stats_.count_growth(requested - node->requested, more);
  stats_.reserved.rise(more);
  if (more > 0) ++stats_.device_allocations;
  node->piece = *after;
  node->requested = requested;
  Block grown = block;
  grown.bytes = after->bytes;
  grown.requested = requested;
  grown.generation = node->renew_life();
  return grown;
}

void Device::count_mapped(std::size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  mapped_ += bytes;
  stats_.reserved.rise(bytes);
  ++stats_.device_allocations;
}

void Device::count_unmapped(std::size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  mapped_ -= bytes;
  stats_.reserved.fall(bytes);
  ++stats_.device_frees;
}

Expected<void> Device::also_used_on(const Block& block, Stream /*stream*/) noexcept {
  const std::lock_guard lock(mutex_);
  if (block.empty() || block.node->names(block, this)) return {};
  return tl::unexpected(fail(Errc::invalid_block, block.bytes));
}

Stats Device::stats() const noexcept {
  const std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.misses = stats.allocations;
  return stats;
}

void Device::reset_peaks(const Stats& floor) noexcept {
  const std::lock_guard lock(mutex_);
  stats_.reset_live_peaks(floor);
  stats_.reserved.reset_peak(floor.reserved.peak);
}

std::size_t Device::free_memory() const noexcept {
  if (limits_.total_memory == 0) return unbounded;
  return saturating_subtract(limits_.total_memory, stats().reserved.current);
}

std::size_t Device::largest_after(const Supposition& supposed) const noexcept {
  std::size_t free = saturating_add(free_memory(), supposed.granted);
  if (supposed.recovers) {
    free = saturating_add(free, device().registry().trimmable(supposed.pools));
  }
  if (limits_.total_memory != 0) free = std::min(free, limits_.total_memory);
  return std::min(free, limits_.max_allocation) & ~(limits_.granularity - 1);
}

void Device::explain(Shortage& shortage) const noexcept {
  shortage.device = limits_.kind;
  shortage.device_total = limits_.total_memory;
  const std::size_t free = free_memory();
  shortage.device_free = free != unbounded ? free : 0;
}

Outstanding Device::outstanding() const noexcept {
  Outstanding out;
  each_live_piece([&](const Piece& piece) { out.add(piece.bytes); });
  return out;
}

std::string Device::validate() const {
  std::vector<Piece> pieces;
  each_live_piece([&](const Piece& piece) { pieces.push_back(piece); });
  const Stats now = stats();
  std::size_t bytes = 0;
  for (const Piece& piece : pieces)
    bytes += piece.bytes;
  if (now.live_blocks.current != pieces.size())
    return "device: live_blocks is the number of live nodes";
  if (now.live_granted.current != bytes)
    return "device: live_granted is the sum of the live nodes' bytes";
  if (now.reserved.current != bytes + mapped_bytes())
    return "device: reserved is what is live and the pages that are mapped";
  if (now.allocations - now.frees != pieces.size())
    return "device: allocations less frees are live";
  if (limits_.memory_is_address) {
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return std::less<>{}(a.memory, b.memory); });
    for (std::size_t i = 1; i < pieces.size(); ++i) {
      const auto previous_end =
          reinterpret_cast<std::uintptr_t>(pieces[i - 1].memory) + pieces[i - 1].bytes;
      if (previous_end > reinterpret_cast<std::uintptr_t>(pieces[i].memory))
        return "device: live blocks do not overlap";
    }
  }
  return {};
}

}  // namespace cistern
