// What is known of stretches of addresses. Neighbours of which the same is known are one stretch,
// so that it takes no more memory than there are differences.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <utility>

namespace cistern {

/// `T{}` is what is known of addresses that were never updated. Not thread-safe; throws
/// std::bad_alloc, and is then as it was but for what `visit` had done.
template <class T>
class RangeMap {
 public:
  /// Calls `visit(begin, end, T&)` with stretches that tile the range, in order. O(log n) a
  /// stretch.
  template <class Visit>
  void update(std::uintptr_t begin, std::uintptr_t end, Visit&& visit) {
    if (begin >= end) return;
    split(begin);
    split(end);
    auto place = pieces_.lower_bound(begin);
    for (std::uintptr_t at = begin; at < end; ++place) {
      if (place == pieces_.end() || place->first > at) {
        const std::uintptr_t until = place == pieces_.end() ? end : std::min(end, place->first);
        place = pieces_.emplace_hint(place, at, Piece{.end = until, .value = T{}});
      }
      visit(at, place->second.end, place->second.value);
      at = place->second.end;
    }
    join(begin, end);
  }

  /// The same without a change; what is not known is visited as `T{}`.
  template <class Visit>
  void read(std::uintptr_t begin, std::uintptr_t end, Visit&& visit) const {
    auto place = pieces_.upper_bound(begin);
    if (place != pieces_.begin() && std::prev(place)->second.end > begin) --place;
    for (std::uintptr_t at = begin; at < end;) {
      const bool is_known = place != pieces_.end() && place->first <= at;
      const std::uintptr_t until =
          is_known ? place->second.end : (place == pieces_.end() ? end : place->first);
      visit(at, std::min(until, end), is_known ? place->second.value : T{});
      at = until;
      if (is_known) ++place;
    }
  }

  void erase(std::uintptr_t begin, std::uintptr_t end) {
    update(begin, end, [](std::uintptr_t, std::uintptr_t, T& value) { value = T{}; });
  }

  /// How many stretches there are of which something is known.
  [[nodiscard]] std::size_t size() const noexcept { return pieces_.size(); }

 private:
  struct Piece {
    std::uintptr_t end = 0;
    T value;
  };

  void split(std::uintptr_t at) {
    auto after = pieces_.lower_bound(at);
    if (after == pieces_.begin()) return;
    Piece& before = std::prev(after)->second;
    if (before.end <= at) return;
    pieces_.emplace_hint(after, at, before);
    before.end = at;
  }

  // Also with what lies at both ends.
  void join(std::uintptr_t begin, std::uintptr_t end) {
    auto place = pieces_.lower_bound(begin);
    if (place != pieces_.begin()) --place;
    while (place != pieces_.end() && place->first <= end) {
      if (place->second.value == T{}) {
        place = pieces_.erase(place);
        continue;
      }
      const auto next = std::next(place);
      if (next != pieces_.end() && next->first == place->second.end &&
          next->second.value == place->second.value) {
        place->second.end = next->second.end;
        pieces_.erase(next);
      } else {
        place = next;
      }
    }
  }

  std::map<std::uintptr_t, Piece> pieces_;
};

}  // namespace cistern
