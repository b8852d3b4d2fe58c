#include "cistern/core/device.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <stdexcept>
#include <vector>

#include "cistern/core/batch.hpp"
#include "cistern/core/residency.hpp"
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
      return hand_out(*node);
    }
    ++stats_.failures;
  }
  if (!piece) return tl::unexpected(piece.error());
  give_back(*piece, request.stream);  // the host has no memory for the record
  return tl::unexpected(fail(Errc::out_of_memory, request.bytes));
}

// Under the lock.
Block Device::hand_out(DeviceNode& node) noexcept {
  const Piece& piece = node.piece;
  stats_.count_grant(node.requested, piece.bytes);
  stats_.reserved.rise(piece.bytes);
  ++stats_.device_allocations;
  pin();
  return {.memory = piece.memory,
          .bytes = piece.bytes,
          .requested = node.requested,
          .node = &node,
          .generation = node.begin_life()};
}

// The records first, since what a device gave could only be given back without one; each holds its
// piece until all are there.
Expected<void> Device::try_allocate_batch(std::span<const Request> requests,
                                          std::span<Block> blocks) noexcept {
  assert(requests.size() == blocks.size());
  if (bytes_of(requests) == 0) {
    std::ranges::fill(blocks, Block{});
    return {};
  }
  if (!take_nodes(requests, blocks))
    return fail_batch(blocks, fail(Errc::out_of_memory, bytes_of(requests)), 0);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (blocks[i].empty()) continue;
    const Expected<Piece> piece = obtain_checked(requests[i]);
    if (!piece) {
      for (std::size_t obtained = 0; obtained < i; ++obtained) {
        if (!blocks[obtained].empty())
          give_back(static_cast<DeviceNode*>(blocks[obtained].node)->piece,
                    requests[obtained].stream);
      }
      put_nodes(blocks);
      return fail_batch(blocks, piece.error(), bytes_of(requests.subspan(i + 1)));
    }
    auto* node = static_cast<DeviceNode*>(blocks[i].node);
    node->piece = *piece;
    node->requested = requests[i].bytes;
  }
  const std::lock_guard lock(mutex_);
  for (Block& block : blocks) {
    if (!block.empty()) block = hand_out(*static_cast<DeviceNode*>(block.node));
  }
  return {};
}

// A record for each request that is for memory, in the block that will answer it. False, with none
// taken, if the host has no memory for them.
bool Device::take_nodes(std::span<const Request> requests, std::span<Block> blocks) noexcept {
  std::ranges::fill(blocks, Block{});
  {
    const std::lock_guard lock(mutex_);
    const auto has_node = [&](std::size_t i) {
      return requests[i].bytes == 0 || (blocks[i].node = nodes_.take()) != nullptr;
    };
    std::size_t i = 0;
    while (i < requests.size() && has_node(i))
      ++i;
    if (i == requests.size()) return true;
  }
  put_nodes(blocks);
  return false;
}

// Those of a batch that failed.
void Device::put_nodes(std::span<const Block> blocks) noexcept {
  const std::lock_guard lock(mutex_);
  for (const Block& block : blocks) {
    if (!block.empty()) nodes_.put(static_cast<DeviceNode*>(block.node));
  }
  ++stats_.failures;
}

bool Device::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  Piece piece;
  Stream last;
  {
    const std::lock_guard lock(mutex_);
    if (names(block)) {
      auto* node = static_cast<DeviceNode*>(block.node);
      piece = node->piece;
      stats_.count_free(node->requested, piece.bytes);
      stats_.reserved.fall(piece.bytes);
      ++stats_.device_frees;
      last = handover_.end_uses(*node, stream);
      node->end_life();
      nodes_.put(node);
    } else {
      ++stats_.refused_frees;
    }
  }
  if (piece.bytes == 0) return refuse_free(limits_.kind, block);
  give_back(piece, last);
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

void Device::count_commit(std::size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  stats_.resident.rise(bytes);
  ++stats_.residency_commits;
}

void Device::count_refused_commit() noexcept {
  const std::lock_guard lock(mutex_);
  ++stats_.residency_refusals;
}

void Device::count_end_of_residency(std::size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  stats_.resident.fall(bytes);
}

Expected<void> Device::also_used_on(const Block& block, Stream stream) noexcept {
  if (block.empty()) return {};
  const std::lock_guard lock(mutex_);
  if (!block.node->names(block, this))
    return tl::unexpected(fail(Errc::invalid_block, block.bytes));
  if (handover_.add_use(*block.node, stream)) return {};
  return tl::unexpected(fail(Errc::out_of_memory, 0));
}

Stats Device::stats() const noexcept {
  const std::size_t idle = kept_idle();
  const std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.misses = stats.allocations;
  stats.cached.rise(idle);
  stats.reserved.rise(idle);
  return stats;
}

void Device::reset_peaks(const Stats& floor) noexcept {
  const std::lock_guard lock(mutex_);
  stats_.reset_live_peaks(floor);
  stats_.reserved.reset_peak(floor.reserved.peak);
  stats_.resident.reset_peak(floor.resident.peak);
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
  if (now.reserved.current != bytes + mapped_bytes() + now.cached.current)
    return "device: reserved is what is live, idle and mapped as pages";
  if (now.allocations - now.frees != pieces.size())
    return "device: allocations less frees are live";
  if (const Residency* const residency = device().residency(); residency != nullptr) {
    if (std::string law = residency->validate(); !law.empty()) return law;
  }
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
