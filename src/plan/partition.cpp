#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "plan/offset.hpp"
#include "plan/part.hpp"

namespace cistern::detail {
namespace {

struct LifetimeEvent {
  std::uint64_t time = 0;
  bool is_start = false;  // ends come first: what ends when another starts makes room for it
  std::uint32_t buffer = 0;

  auto operator<=>(const LifetimeEvent&) const = default;
};

std::vector<LifetimeEvent> events_of(std::span<const Lifetime> buffers) {
  std::vector<LifetimeEvent> events;
  events.reserve(2 * buffers.size());
  for (std::uint32_t i = 0; i < buffers.size(); ++i) {
    const Lifetime& buffer = buffers[i];
    if (buffer.upper < buffer.lower) throw std::invalid_argument("a buffer ends before it starts");
    if (!std::has_single_bit(buffer.alignment))
      throw std::invalid_argument("an alignment is not a power of two");
    if (buffer.bytes == 0 || buffer.upper == buffer.lower) continue;
    events.push_back({buffer.lower, true, i});
    events.push_back({buffer.upper, false, i});
  }
  std::sort(events.begin(), events.end());
  return events;
}

/// The sum of the sizes that live together, and of the same sizes rounded up to an alignment that
/// all buffers have. In the second sum only the highest buffer's padding is not needed.
class Load {
 public:
  Load(std::size_t step, std::size_t largest_pad) : step_(step), largest_pad_(largest_pad) {}

  void start(std::size_t bytes) {
    if (bytes >= nowhere - bytes_)
      throw std::invalid_argument("the buffers that live together are larger than a size can be");
    bytes_ += bytes;
    pads_ += aligned(bytes, step_) - bytes;
    const std::size_t needed = pads_ > largest_pad_ ? end_of(bytes_, pads_ - largest_pad_) : bytes_;
    largest_ = std::max(largest_, needed);
  }
  void end(std::size_t bytes) {
    bytes_ -= bytes;
    pads_ -= aligned(bytes, step_) - bytes;
  }

  [[nodiscard]] bool is_empty() const { return bytes_ == 0; }
  /// Since it was asked for last.
  std::size_t take_largest() { return std::exchange(largest_, 0); }

 private:
  std::size_t step_;
  std::size_t largest_pad_;
  std::size_t bytes_ = 0;
  std::size_t pads_ = 0;
  std::size_t largest_ = 0;
};

Load make_load(std::span<const Lifetime> buffers) {
  std::size_t step = std::numeric_limits<std::size_t>::max() / 2 + 1;
  for (const Lifetime& buffer : buffers)
    step = std::min(step, buffer.alignment);
  std::size_t largest_pad = 0;
  for (const Lifetime& buffer : buffers)
    largest_pad = std::max(largest_pad, aligned(buffer.bytes, step) - buffer.bytes);
  return {step, largest_pad};
}

/// By section, so that the plan does not depend on the order in which the buffers were given.
void sort_items(Part& part) {
  std::vector<std::uint32_t> order(part.size());
  std::iota(order.begin(), order.end(), std::uint32_t{0});
  const auto key = [&](std::uint32_t i) {
    const Item& item = part.items[i];
    return std::tuple(item.first, item.last, item.bytes, item.alignment, part.buffers[i]);
  };
  std::ranges::sort(order, {}, key);
  std::vector<Item> items;
  std::vector<std::uint32_t> buffers;
  items.reserve(part.size());
  buffers.reserve(part.size());
  for (const std::uint32_t i : order) {
    items.push_back(part.items[i]);
    buffers.push_back(part.buffers[i]);
  }
  part.items = std::move(items);
  part.buffers = std::move(buffers);
}

void add_unit(Part& part) {
  part.unit = 0;
  for (const Item& item : part.items) {
    part.unit = std::gcd(part.unit, item.bytes);
    if (item.alignment > 1) part.unit = std::gcd(part.unit, item.alignment);
    part.covered += item.last - item.first;
  }
}

}  // namespace

std::vector<Part> partition(std::span<const Lifetime> buffers) {
  if (buffers.size() > std::numeric_limits<std::uint32_t>::max())
    throw std::invalid_argument("there are more than 2^32 buffers");
  std::vector<Part> parts;
  Part part;
  std::vector<std::uint32_t> item_of(buffers.size());
  Load load = make_load(buffers);
  bool has_grown = false;  // the section that is open, since it was opened
  for (const LifetimeEvent& event : events_of(buffers)) {
    const Lifetime& buffer = buffers[event.buffer];
    if (event.is_start) {
      load.start(buffer.bytes);
      has_grown = true;
      item_of[event.buffer] = part.size();
      part.items.push_back({buffer.bytes, buffer.alignment, part.sections, 0});
      part.buffers.push_back(event.buffer);
      continue;
    }
    if (has_grown) ++part.sections;
    has_grown = false;
    part.items[item_of[event.buffer]].last = part.sections;
    load.end(buffer.bytes);
    if (!load.is_empty()) continue;
    part.lower_bound = load.take_largest();
    sort_items(part);
    add_unit(part);
    parts.push_back(std::move(part));
    part = {};
  }
  return parts;
}

}  // namespace cistern::detail
