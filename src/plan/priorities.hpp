// Which buffer goes first among those that can be placed equally low. Large ones that live long are
// the hardest to place later, so they are favoured; and since a failed attempt shows which buffers
// were hard to place, those gain on the others before the next one. That is squeaky wheel
// optimisation (D. Joslin, D. Clements, 1999): construct, find who is in trouble, raise it. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plan/part.hpp"
#include "plan/random.hpp"

namespace cistern::detail {

class Priorities {
 public:
  /// How much the logarithms of a buffer's bytes and of the sections that it covers count.
  struct Favour {
    double bytes = 1;
    double width = 1;
  };
  static constexpr Favour area{1, 1};
  static constexpr Favour bytes{1, 0};
  static constexpr Favour width{0, 1};
  static constexpr Favour none{0, 0};  // what starts earlier goes first

  Priorities(const Part& part, Favour favour);

  /// The items, the one that goes first at the front.
  [[nodiscard]] const std::vector<std::uint32_t>& order() const noexcept { return order_; }

  /// Raises each item by a random part of its `trouble`, from 0 to 1; what it had gained before
  /// fades. O(n log n).
  void raise(std::span<const double> trouble, Random& random);

  /// As at first, but for random amounts of up to `noise`. O(n log n).
  void shuffle(double noise, Random& random);

 private:
  void sort();

  std::vector<double> base_;
  std::vector<double> gained_;
  std::vector<std::uint32_t> order_;
};

}  // namespace cistern::detail
