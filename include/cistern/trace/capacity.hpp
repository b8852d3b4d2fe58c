// How small a device could have been: what a trace needs on a stack, fragmentation and rounding
// included, which no figure of one replay on a larger device tells.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "cistern/stack/stack.hpp"
#include "cistern/trace/event.hpp"

namespace cistern {

struct CapacityOptions {
  /// The answer is a multiple of so many bytes.
  std::size_t granularity = std::size_t{2} << 20U;

  /// Called now and then with the part of the work that is done, from 0 to 1, as far as can be
  /// told.
  std::function<void(double)> progress{};
};

struct SmallestCapacity {
  /// The trace survives on a device of so many bytes and does not on one that is a granule smaller:
  /// both were tried, unless the smaller one cannot hold the trace's peak of live bytes. Nothing if
  /// a request is refused on every device, by a limit for example.
  std::optional<std::uint64_t> bytes;
  std::size_t replays = 0;  // that it took
};

/// Replays `trace`, which must be lawful (check.hpp), on stacks that `open` opens on a device of
/// the capacity it is given; what it throws passes through. A trace survives if no request is
/// refused, the initial blocks included.
///
/// A pool may place blocks otherwise on a larger device, and so survive on one device and not on a
/// somewhat larger one: the answer is where surviving begins as seen from the capacity at which it
/// was first found, by doubling, and there may be smaller ones beyond a gap. O(events log
/// capacity). Throws std::invalid_argument if the granularity is 0.
[[nodiscard]] SmallestCapacity smallest_capacity(
    const Trace& trace, const std::function<Stack(std::size_t capacity)>& open,
    const CapacityOptions& options = {});

}  // namespace cistern
