// How often each page is covered by ranges that overlap or share a page: blocks lie side by side,
// and a lock on a page must stay until the last of those that need it is gone. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <map>

namespace cistern {

/// Counts in a map of the places where ranges begin and end. All operations are O(log ranges) and
/// the pieces within the range.
class PageCover {
 public:
  /// Covers [begin, end), not empty, once more. False, with nothing changed, if the host has no
  /// memory.
  bool add(std::uintptr_t begin, std::uintptr_t end) noexcept {
    try {
      const auto first = edge_at(begin);
      ++first->second.uses;
      try {
        ++edge_at(end)->second.uses;
      } catch (const std::exception&) {
        release(first);
        return false;
      }
      for (auto piece = first; piece->first < end; ++piece)
        ++piece->second.covers;
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }

  /// Takes back one covering of just this range. Allocates nothing.
  void remove(std::uintptr_t begin, std::uintptr_t end) noexcept {
    const auto first = edges_.find(begin);
    const auto last = edges_.find(end);
    for (auto piece = first; piece != last; ++piece)
      --piece->second.covers;
    release(first);
    release(last);
  }

  /// Calls `visit(begin, end)` for each piece of [begin, end), a range that was added, that is
  /// covered `times` in all.
  template <class Visit>
  void each_covered(std::uintptr_t begin, std::uintptr_t end, std::size_t times,
                    Visit&& visit) const {
    for (auto piece = edges_.find(begin); piece->first < end; ++piece) {
      if (piece->second.covers == times) visit(piece->first, std::next(piece)->first);
    }
  }

  [[nodiscard]] bool empty() const noexcept { return edges_.empty(); }

 private:
  struct Edge {
    std::size_t covers = 0;  // of what lies from here to the next edge
    std::size_t uses = 0;    // ranges that begin or end here
  };
  using Edges = std::map<std::uintptr_t, Edge>;

  Edges::iterator edge_at(std::uintptr_t place) {
    const auto after = edges_.lower_bound(place);
    if (after != edges_.end() && after->first == place) return after;
    const std::size_t covers = after == edges_.begin() ? 0 : std::prev(after)->second.covers;
    return edges_.emplace_hint(after, place, Edge{.covers = covers, .uses = 0});
  }

  // Where no range begins or ends, both sides are covered alike.
  void release(Edges::iterator edge) noexcept {
    if (--edge->second.uses == 0) edges_.erase(edge);
  }

  Edges edges_;
};

}  // namespace cistern
