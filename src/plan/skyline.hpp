// How high memory is filled in each section of time, as buffers are put on top of one another. What
// lies between two steps of the skyline is a niche; the lowest one is filled next:
//
//   offset
//     |        +-----+                 +-----+               +-----+
//     |  +-----+     |           +-----+     |         +-----+     |
//     |  |     |     +---+  put  |     |     +---+ lift|     |     +-----+
//     |  |     |     | A |  ---> |     |     |   +---->|     |     |     |
//     +--+-----+-----+   +-->    +--   ...
//
// Both cost O(log sections), amortised. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cistern::detail {

class Skyline {
 public:
  struct Niche {
    std::uint32_t first = 0;
    std::uint32_t last = 0;  // exclusive
    std::size_t height = 0;
  };

  explicit Skyline(std::uint32_t sections)
      : heights_(sections), lasts_(sections), befores_(sections) {}

  void clear();

  /// The leftmost of the lowest.
  [[nodiscard]] Niche lowest() const noexcept {
    const std::uint32_t first = heap_.front().first;
    return {first, lasts_[first], heights_[first]};
  }

  /// From now on the lowest niche is filled up to `height` from `first` to `last`, within it.
  void put(std::uint32_t first, std::uint32_t last, std::size_t height);

  /// Nothing more goes into the lowest niche: it is filled up to the lower of its neighbours.
  void lift();

 private:
  struct Entry {
    std::size_t height = 0;
    std::uint32_t first = 0;

    auto operator<=>(const Entry&) const = default;
  };

  [[nodiscard]] std::uint32_t sections() const noexcept {
    return static_cast<std::uint32_t>(lasts_.size());
  }
  void add(std::uint32_t first, std::uint32_t last, std::uint32_t before, std::size_t height);
  void settle();

  // By the first section of a niche.
  std::vector<std::size_t> heights_;
  std::vector<std::uint32_t> lasts_;  // 0 where no niche starts
  std::vector<std::uint32_t> befores_;
  std::vector<Entry> heap_;  // the lowest in front; entries of niches that are gone stay a while
};

}  // namespace cistern::detail
