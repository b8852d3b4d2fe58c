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
    return is_geometric() ? geometric_bucket_for(bytes) : bucket_in_table(bytes);
  }

  /// The same where the buckets are geometric. One for every multiple of the granularity at first,
  /// then so many for each doubling: as the first doubling is as finely divided as all below it,
  /// these count as one with it.
  [[nodiscard]] bool is_geometric() const noexcept { return first_doubling_ != 0; }
  [[nodiscard]] std::size_t geometric_bucket_for(std::size_t bytes) const noexcept {
    const std::size_t last = bytes - 1;
    const auto power = static_cast<unsigned>(std::countl_zero(last | first_doubling_)) ^ 63U;
    return (std::size_t{power - first_power_} << doubling_bits_) +
           (last >> (power - doubling_bits_));
  }

 private:
  [[nodiscard]] std::size_t bucket_in_table(std::size_t bytes) const noexcept;

  std::vector<std::size_t> capacities_;  // rising
  unsigned doubling_bits_ = 0;
  unsigned first_power_ = 0;        // from 2^first_power_ on a doubling has all of its buckets
  std::size_t first_doubling_ = 0;  // 2^first_power_; 0 for a table
};

}  // namespace cistern
