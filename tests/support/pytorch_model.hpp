// PyTorch's placement policy, written to be compared with and read, not to be fast: what its CUDA
// caching allocator does with default settings while the device does not refuse. One thread only.
//
// Sizes are rounded to multiples of 512. Requests of up to 1 MiB live in segments of 2 MiB, larger
// ones in segments of 20 MiB or, from 10 MiB on, of their own size rounded to 2 MiB. The smallest
// hole of the stream that is large enough serves a request, the lowest among equals. What is left
// of it becomes a hole if it is at least 512 bytes (small) or more than 1 MiB (large), and stays
// with the block otherwise. Neighbouring holes are joined at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "cistern/core/pool.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/slab.hpp"
#include "cistern/pool/restorable.hpp"

namespace cistern::testing {

class PytorchModel final : public Pool, public RestorablePool {
 public:
  explicit PytorchModel(Ref<Resource> upstream) : Pool(std::move(upstream)) {}

  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override {
    if (request.bytes == 0) return Block{};
    const std::size_t bytes = *round_up(request.bytes, least);
    const bool small = bytes <= small_limit;
    auto hole = holes_.lower_bound(Hole{request.stream.id, small, bytes, 0});
    if (hole == holes_.end() || hole->stream != request.stream.id || hole->small != small) {
      const Expected<Block> segment =
          upstream().try_allocate({.bytes = segment_bytes(bytes), .stream = request.stream});
      if (!segment) return tl::unexpected(segment.error());
      hole = add_segment(*segment, request.stream.id, small);
    }
    const Hole taken = *hole;
    remove_hole(taken);
    const std::size_t rest = taken.bytes - bytes;
    const bool splits = small ? rest >= least : rest > small_limit;
    if (splits) add_hole({taken.stream, small, rest, taken.address + bytes});
    return hand_out(taken.address, splits ? bytes : taken.bytes, request.bytes, request.stream.id);
  }

  using Pool::deallocate;
  bool deallocate(const Block& block, Stream /*stream*/) noexcept override {
    if (block.empty()) return true;
    if (!block.node->names(block, this)) return refuse_free("model", block);
    auto* node = static_cast<ModelNode*>(block.node);
    own_.count_free(block.requested, node->bytes);
    join({node->stream, segment_around(node->address).small, node->bytes, node->address});
    node->end_life();
    nodes_.put(node);
    unpin();
    return true;
  }

  [[nodiscard]] Stats stats() const noexcept override { return as_pool(own_); }
  void reset_peaks(const Stats& floor) noexcept override {
    own_.reset_live_peaks(floor);
    own_.cached.reset_peak(floor.cached.peak);
    Pool::reset_peaks(floor);
  }

  [[nodiscard]] Outstanding outstanding() const noexcept override {
    Outstanding out;
    nodes_.each([&](const ModelNode& node) {
      if (node.is_live()) out.add(node.bytes);
    });
    return out;
  }

  [[nodiscard]] Expected<std::vector<Block>> restore(
      std::span<const RecordedRegion> regions, std::span<const RecordedBlock> blocks) override {
    for (const RecordedRegion& region : regions) {
      const Expected<Block> segment =
          upstream().try_allocate({.bytes = region.bytes, .stream = region.stream});
      if (!segment) return tl::unexpected(segment.error());
      if (reinterpret_cast<std::uintptr_t>(segment->memory) != region.address)
        return tl::unexpected(Error{.code = Errc::invalid_block, .stage = "model"});
      add_segment(*segment, region.stream.id, region.small);
    }
    std::vector<Block> out;
    for (const RecordedBlock& block : blocks) {
      // The hole that the block lies in, cut in three.
      const auto after = by_address_.upper_bound(block.address);
      const Hole hole = std::prev(after)->second;
      remove_hole(hole);
      const std::size_t before = block.address - hole.address;
      if (before > 0) add_hole({hole.stream, hole.small, before, hole.address});
      if (const std::size_t rest = hole.bytes - before - block.granted; rest > 0)
        add_hole({hole.stream, hole.small, rest, block.address + block.granted});
      out.push_back(hand_out(block.address, block.granted, block.requested, hole.stream));
    }
    return out;
  }

  bool give_back(std::uintptr_t address) noexcept override {
    const auto segment = segments_.find(address);
    const auto hole = by_address_.find(address);
    if (segment == segments_.end() || hole == by_address_.end() ||
        hole->second.bytes != segment->second.block.bytes)
      return false;
    remove_hole(hole->second);
    upstream().deallocate(segment->second.block);
    segments_.erase(segment);
    return true;
  }

 private:
  static constexpr std::size_t least = 512;
  static constexpr std::size_t small_limit = std::size_t{1} << 20;
  static constexpr std::size_t two_mib = std::size_t{2} << 20;

  struct Hole {
    std::uint64_t stream;
    bool small;
    std::size_t bytes;
    std::uintptr_t address;

    auto operator<=>(const Hole&) const = default;
  };
  struct Segment {
    Block block;
    bool small;
  };
  struct ModelNode : Node {
    std::uintptr_t address = 0;
    std::size_t bytes = 0;
    std::uint64_t stream = 0;
    ModelNode* next_free = nullptr;
  };
  using Holes = std::set<Hole>;

  ~PytorchModel() override {
    for (const auto& [address, segment] : segments_)
      upstream().deallocate(segment.block);
  }

  static std::size_t segment_bytes(std::size_t bytes) {
    if (bytes <= small_limit) return two_mib;
    return bytes < 5 * two_mib ? 10 * two_mib : *round_up(bytes, two_mib);
  }

  Holes::iterator add_segment(const Block& block, std::uint64_t stream, bool small) {
    const auto address = reinterpret_cast<std::uintptr_t>(block.memory);
    segments_[address] = {block, small};
    ++own_.misses;
    return add_hole({stream, small, block.bytes, address});
  }
  [[nodiscard]] const Segment& segment_around(std::uintptr_t address) const {
    return std::prev(segments_.upper_bound(address))->second;
  }

  Holes::iterator add_hole(const Hole& hole) {
    own_.cached.rise(hole.bytes);
    by_address_.emplace(hole.address, hole);
    return holes_.insert(hole).first;
  }
  void remove_hole(Hole hole) {
    own_.cached.fall(hole.bytes);
    by_address_.erase(hole.address);
    holes_.erase(hole);
  }

  void join(Hole hole) {
    const auto is_start = [&](std::uintptr_t address) { return segments_.contains(address); };
    if (const auto after = by_address_.find(hole.address + hole.bytes);
        after != by_address_.end() && !is_start(after->first)) {
      const Hole next = after->second;
      remove_hole(next);
      hole.bytes += next.bytes;
    }
    if (auto before = by_address_.lower_bound(hole.address);
        before != by_address_.begin() && !is_start(hole.address)) {
      const Hole previous = std::prev(before)->second;
      if (previous.address + previous.bytes == hole.address) {
        remove_hole(previous);
        hole = {hole.stream, hole.small, previous.bytes + hole.bytes, previous.address};
      }
    }
    add_hole(hole);
  }

  Block hand_out(std::uintptr_t address, std::size_t bytes, std::size_t requested,
                 std::uint64_t stream) {
    ModelNode* node = nodes_.take();
    if (node == nullptr) std::abort();  // a test does without the host's memory running out
    node->address = address;
    node->bytes = bytes;
    node->stream = stream;
    own_.count_grant(requested, bytes);
    pin();
    return {.memory = reinterpret_cast<void*>(address),
            .bytes = bytes,
            .requested = requested,
            .node = node,
            .generation = node->begin_life()};
  }

  void trim_to(std::size_t keep_bytes) noexcept override {
    std::vector<std::uintptr_t> addresses;
    for (const auto& [address, segment] : segments_)
      addresses.push_back(address);
    for (const std::uintptr_t address : addresses) {
      if (own_.cached.current > keep_bytes) give_back(address);
    }
    trim_upstream(keep_bytes);
  }

  std::map<std::uintptr_t, Segment> segments_;
  std::map<std::uintptr_t, Hole> by_address_;
  Holes holes_;
  Slab<ModelNode> nodes_{this};
  Stats own_;
};

}  // namespace cistern::testing
