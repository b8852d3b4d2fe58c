#include "plan/priorities.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace cistern::detail {

Priorities::Priorities(const Part& part, Favour favour)
    : gained_(part.size(), 0), order_(part.size()) {
  base_.reserve(part.size());
  for (const Item& item : part.items)
    base_.push_back(favour.bytes * std::log(static_cast<double>(item.bytes)) +
                    favour.width * std::log(static_cast<double>(item.last - item.first)));
  std::iota(order_.begin(), order_.end(), std::uint32_t{0});
  sort();
}

void Priorities::raise(std::span<const double> trouble, Random& random) {
  constexpr double fading = 0.95;
  for (std::uint32_t i = 0; i < gained_.size(); ++i)
    gained_[i] = fading * gained_[i] + trouble[i] * random.fraction();
  sort();
}

void Priorities::shuffle(double noise, Random& random) {
  for (double& gained : gained_)
    gained = noise * random.fraction();
  sort();
}

void Priorities::sort() {
  const auto before = [&](std::uint32_t a, std::uint32_t b) {
    const double of_a = base_[a] + gained_[a];
    const double of_b = base_[b] + gained_[b];
    return of_a != of_b ? of_a > of_b : a < b;
  };
  std::sort(order_.begin(), order_.end(), before);
}

}  // namespace cistern::detail
