#include "trace/follower.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "cistern/core/error.hpp"
#include "cistern/trace/replay.hpp"

namespace cistern::detail {

using Change = RecordedLayout::Change;

Follower::Follower(const Trace& trace, const RecordedLayout& layout, Stack& stack)
    : trace_(trace),
      layout_(layout),
      stack_(*stack),
      device_(dynamic_cast<SimulatedDevice*>(&stack->device())),
      pool_(dynamic_cast<RestorablePool*>(stack.resource().get())) {
  if (device_ == nullptr) {
    throw CannotFollow("segments can be followed on a simulated device alone, not on " +
                       stack->device().limits().name);
  }
  if (pool_ == nullptr && !layout.segments.empty()) {
    throw CannotFollow(
        fmt::format("{} segments were there before the first event: the outermost stage of a stack "
                    "that follows "
                    "must be a pool that can be brought into that state, such as coalesce",
                    layout.segments.size()));
  }
}

std::vector<Block> Follower::restore() {
  std::vector<SimulatedDevice::Placement> placements;
  std::vector<RecordedRegion> regions;
  placements.reserve(layout_.segments.size());
  regions.reserve(layout_.segments.size());
  for (const RecordedLayout::Segment& segment : layout_.segments) {
    placements.push_back({.address = segment.address, .bytes = segment.bytes});
    regions.push_back({.address = segment.address,
                       .bytes = segment.bytes,
                       .stream = {.handle = nullptr, .id = segment.stream},
                       .small = segment.small});
  }
  device_->follow(placements);
  if (regions.empty()) return {};

  std::vector<std::size_t> order(layout_.initial_blocks.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
    return layout_.initial_blocks[a].address < layout_.initial_blocks[b].address;
  });
  std::vector<RecordedBlock> recorded;
  recorded.reserve(order.size());
  for (const std::size_t index : order) {
    const RecordedLayout::Place& place = layout_.initial_blocks[index];
    const InitialBlock& block = trace_.initial_blocks[index];
    recorded.push_back({.address = place.address,
                        .granted = place.granted,
                        .requested = block.bytes,
                        .stream = {.handle = nullptr, .id = block.stream}});
  }
  const Expected<std::vector<Block>> restored = pool_->restore(regions, recorded);
  if (!restored) {
    throw CannotFollow("the stack cannot be brought into the recorded state: " +
                       describe(restored.error()));
  }
  std::vector<Block> blocks(order.size());
  for (std::size_t rank = 0; rank < order.size(); ++rank)
    blocks[order[rank]] = (*restored)[rank];
  return blocks;
}

void Follower::reach(std::size_t event) {
  bool has_trimmed = false;
  for (; changes_ < layout_.changes.size() && layout_.changes[changes_].event <= event;
       ++changes_) {
    const Change& change = layout_.changes[changes_];
    if (change.kind == Change::Kind::obtained) {
      // Only the last can be asked for: PyTorch obtains a segment for the very next allocation.
      const SimulatedDevice::Placement placement{.address = change.segment.address,
                                                 .bytes = change.segment.bytes};
      device_->follow({&placement, 1});
    } else if (pool_ != nullptr) {
      pool_->give_back(change.segment.address);
    } else if (!std::exchange(has_trimmed, true)) {
      stack_.trim();
    }
  }
}

std::size_t Follower::next_change() const noexcept {
  return changes_ < layout_.changes.size() ? layout_.changes[changes_].event
                                           : std::numeric_limits<std::size_t>::max();
}

}  // namespace cistern::detail
