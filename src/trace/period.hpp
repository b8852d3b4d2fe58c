// Finds the turns of a loop in what it leaves behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace cistern::detail {

/// A stretch of a sequence in which every value equals the one `length` before it, where that lies
/// in the stretch.
struct Period {
  std::size_t length;
  std::size_t begin;
  std::size_t end;
};

/// The smallest period of a stretch that makes up at least two turns and half of all values;
/// nothing if there is none. What goes before and after (warming up, winding down) does not hide a
/// loop.
///
/// O(n). A stretch of half the values includes or touches the middle one, so one round of the
/// divide and conquer of Main and Lorentz ("An O(n log n) algorithm for finding all repetitions in
/// a string", 1984) finds it.
std::optional<Period> find_period(std::span<const std::uint64_t> values);

}  // namespace cistern::detail
