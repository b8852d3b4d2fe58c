#include "trace/period.hpp"

#include <algorithm>
#include <vector>

namespace cistern::detail {
namespace {

// Values, and a separator that equals none of them.
using Sequence = std::vector<std::optional<std::uint64_t>>;

/// For every shift, over how many values the sequence equals itself shifted by that (Gusfield,
/// "Algorithms on Strings, Trees, and Sequences", 1997, section 1.3).
std::vector<std::size_t> z_function(const Sequence& sequence) {
  std::vector<std::size_t> matches(sequence.size(), 0);
  std::size_t box_begin = 0;
  std::size_t box_end = 0;
  for (std::size_t shift = 1; shift < sequence.size(); ++shift) {
    std::size_t match = shift < box_end ? std::min(box_end - shift, matches[shift - box_begin]) : 0;
    while (shift + match < sequence.size() && sequence[match] == sequence[shift + match])
      ++match;
    if (shift + match > box_end) {
      box_begin = shift;
      box_end = shift + match;
    }
    matches[shift] = match;
  }
  return matches;
}

/// `head`, a separator, `tail`.
template <typename Head, typename Tail>
Sequence join(const Head& head, const Tail& tail) {
  Sequence sequence(head.begin(), head.end());
  sequence.emplace_back(std::nullopt);
  sequence.insert(sequence.end(), tail.begin(), tail.end());
  return sequence;
}

}  // namespace

std::optional<Period> find_period(std::span<const std::uint64_t> values) {
  const std::size_t count = values.size();
  const std::size_t middle = count / 2;
  const std::size_t right_count = count - middle;
  const std::vector<std::uint64_t> reversed(values.rbegin(), values.rend());

  // How far values match forwards from the middle, and backwards from before it, against a place
  // elsewhere.
  const auto forward = z_function(join(values.subspan(middle), values));
  const auto backward = z_function(join(std::span(reversed).subspan(right_count), reversed));
  const auto forward_against = [&](std::size_t index) { return forward[right_count + 1 + index]; };
  const auto backward_against = [&](std::size_t index) {
    return index == 0 ? 0 : backward[middle + 1 + count - index];
  };

  for (std::size_t length = 1; 2 * length <= count; ++length) {
    for (const bool ahead : {true, false}) {  // against one turn ahead, one turn behind
      if (ahead ? length >= right_count : length > middle) continue;
      const std::size_t other = ahead ? middle + length : middle - length;
      const std::size_t begin = std::min(middle, other) - backward_against(other);
      const std::size_t end = std::max(middle, other) + forward_against(other);
      if (end - begin >= 2 * length && 2 * (end - begin) >= count)
        return Period{length, begin, end};
    }
  }
  return std::nullopt;
}

}  // namespace cistern::detail
