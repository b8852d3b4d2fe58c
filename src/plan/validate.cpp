#include <algorithm>
#include <map>
#include <string>
#include <tuple>

#include "cistern/plan/plan.hpp"

namespace cistern {
namespace {

struct BufferEvent {
  std::uint64_t time = 0;
  bool is_start = false;  // ends come first
  std::size_t buffer = 0;

  auto operator<=>(const BufferEvent&) const = default;
};

std::string name(std::size_t buffer) {
  return "buffer " + std::to_string(buffer);
}

/// Of one buffer alone.
std::string broken_alone(const Lifetime& buffer, std::size_t offset, std::size_t peak) {
  if (buffer.bytes == 0 || buffer.lower >= buffer.upper) return {};
  if (offset % buffer.alignment != 0) return " is not aligned";
  if (offset > peak || buffer.bytes > peak - offset) return " ends above the peak";
  return {};
}

}  // namespace

std::string validate(std::span<const Lifetime> buffers, const Plan& plan) {
  if (plan.offsets.size() != buffers.size()) return "plan: every buffer has an offset";
  std::vector<BufferEvent> events;
  std::size_t highest = 0;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const Lifetime& buffer = buffers[i];
    if (std::string broken = broken_alone(buffer, plan.offsets[i], plan.peak_bytes);
        !broken.empty())
      return "plan: " + name(i) + broken;
    if (buffer.bytes == 0 || buffer.lower >= buffer.upper) continue;
    highest = std::max(highest, plan.offsets[i] + buffer.bytes);
    events.push_back({buffer.lower, true, i});
    events.push_back({buffer.upper, false, i});
  }
  if (highest != plan.peak_bytes) return "plan: the peak is the highest end of a buffer";
  std::sort(events.begin(), events.end());

  // Those live at a time, by offset: a buffer that starts is compared with the ones beside it.
  std::map<std::size_t, std::size_t> live;
  std::size_t live_bytes = 0;
  std::size_t most_bytes = 0;
  for (const BufferEvent& event : events) {
    const std::size_t offset = plan.offsets[event.buffer];
    const std::size_t bytes = buffers[event.buffer].bytes;
    if (!event.is_start) {
      live.erase(offset);
      live_bytes -= bytes;
      continue;
    }
    const auto above = live.lower_bound(offset);
    if (above != live.end() && above->first - offset < bytes)
      return "plan: " + name(event.buffer) + " overlaps " + name(above->second);
    if (above != live.begin()) {
      const auto below = std::prev(above);
      if (offset - below->first < buffers[below->second].bytes)
        return "plan: " + name(event.buffer) + " overlaps " + name(below->second);
    }
    live.emplace_hint(above, offset, event.buffer);
    live_bytes += bytes;
    most_bytes = std::max(most_bytes, live_bytes);
  }
  if (plan.lower_bound_bytes < most_bytes)
    return "plan: the lower bound is at least the most bytes that live together";
  if (plan.lower_bound_bytes > plan.peak_bytes)
    return "plan: the lower bound is not above the peak";
  if (plan.proved_optimal != (plan.lower_bound_bytes == plan.peak_bytes))
    return "plan: it is proved optimal if its peak is the lower bound";
  return {};
}

}  // namespace cistern
