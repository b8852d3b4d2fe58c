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

Expected<Block> Device::try_allocate(Request request) noexcept {
  if (request.bytes == 0) return Block{};
  const Expected<Piece> piece = obtain_checked(request);
  {
    const std::lock_guard lock(mutex_);
    DeviceNode* node = piece ? nodes_.take() : nullptr;
    if (node != nullptr) {
      node->piece = *piece;
      node->requested = request.bytes;
      stats_.count_grant(request.bytes, piece->bytes);
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
    if (!block.node->names(block, this)) {
      ++stats_.refused_frees;
    } else {
      auto* node = static_cast<DeviceNode*>(block.node);
      if (node->piece.memory == block.memory && node->piece.bytes == block.bytes) {
        piece = node->piece;
        stats_.count_free(node->requested, piece.bytes);
        node->end_life();
        nodes_.put(node);
      } else {
        ++stats_.refused_frees;
      }
    }
  }
  if (piece.bytes == 0) return refuse_free(limits_.kind, block);
  give_back(piece, stream);
  unpin();
  return true;
}

Expected<void> Device::also_used_on(const Block& block, Stream /*stream*/) noexcept {
  const std::lock_guard lock(mutex_);
  if (block.empty() || block.node->names(block, this)) return {};
  return tl::unexpected(fail(Errc::invalid_block, block.bytes));
}

Stats Device::stats() const noexcept {
  const std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.reserved = stats.live_granted;
  stats.misses = stats.allocations;
  stats.device_allocations = stats.allocations;
  stats.device_frees = stats.frees;
  return stats;
}

void Device::reset_peaks(const Stats& floor) noexcept {
  const std::lock_guard lock(mutex_);
  stats_.live_blocks.reset_peak(floor.live_blocks.peak);
  stats_.live_requested.reset_peak(floor.live_requested.peak);
  stats_.live_granted.reset_peak(floor.reserved.peak);
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
  if (now.reserved.current != bytes) return "device: reserved is the sum of the live nodes' bytes";
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
