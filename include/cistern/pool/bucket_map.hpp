// Rounds the size of a request to the capacity of the bucket that serves it: by arithmetic where
// the buckets are evenly spaced, by a search where they are listed.
#pragma once

#include <bit>
#include <cstddef>
#include <vector>

#include "cistern/pool/bucket_policy.hpp"

namespace cistern {

/// Rounds sizes to buckets. Every capacity is a multiple of the device's granularity.
class BucketMap {
 public:
  /// `granularity` is a power of two. Throws std::invalid_argument if the policy makes no sense.
  BucketMap(const Geometric& policy, std::size_t granularity);
  BucketMap(const Table& policy, std::size_t granularity);

  [[nodiscard]] std::size_t size() const noexcept { return capacities_.size(); }
  [[nodiscard]] std::size_t capacity(std::size_t bucket) const noexcept {
    return capacities_[bucket];
  }

  /// The first bucket whose capacity is at least `bytes`, which is not 0; at least `size()` if
  /// there is none. O(1) for geometric buckets, O(log size) for a table.
  [[nodiscard]] std::size_t bucket_for(std::size_t bytes) const noexcept {
    if (!geometric_) [[unlikely]]
      return bucket_in_table(bytes);
    const std::size_t last = bytes - 1;
    if ((last >> first_power_) == 0) return last >> granularity_bits_;
    const std::size_t per_doubling = std::size_t{1} << doubling_bits_;
    const auto power = static_cast<unsigned>(std::bit_width(last)) - 1;
    const std::size_t step = (last >> (power - doubling_bits_)) & (per_doubling - 1);
    return per_doubling + ((std::size_t{power - first_power_} << doubling_bits_) | step);
  }

 private:
  [[nodiscard]] std::size_t bucket_in_table(std::size_t bytes) const noexcept;

  std::vector<std::size_t> capacities_;  // rising
  // Geometric buckets are found by arithmetic: one for every multiple of the granularity at first,
  // and from 2^first_power_, where `per_doubling` of them make a doubling, that many for each.
  bool geometric_ = false;
  unsigned granularity_bits_ = 0;
  unsigned doubling_bits_ = 0;
  unsigned first_power_ = 0;
};

}  // namespace cistern
