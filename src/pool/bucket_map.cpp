#include "cistern/pool/bucket_map.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "cistern/core/size.hpp"

namespace cistern {

using namespace literals;

Table quadrupling_table() {
  return {{1_KiB, 4_KiB, 16_KiB, 64_KiB, 256_KiB, 1_MiB, 4_MiB, 16_MiB, 64_MiB, 256_MiB}};
}

namespace {

unsigned floor_log2(std::size_t n) noexcept {
  return static_cast<unsigned>(std::bit_width(n)) - 1;
}

constexpr unsigned address_bits = 64;

}  // namespace

BucketMap::BucketMap(const Geometric& policy, std::size_t granularity) {
  const std::size_t per_doubling = policy.per_doubling;
  if (!std::has_single_bit(per_doubling) || per_doubling > 64) {
    throw std::invalid_argument("cache: the buckets of a doubling number 1, 2, 4, 8, 16, 32 or 64");
  }
  const unsigned granularity_bits = floor_log2(granularity);
  doubling_bits_ = floor_log2(per_doubling);
  first_power_ = granularity_bits + doubling_bits_;
  if (first_power_ >= address_bits) {
    throw std::invalid_argument("cache: the device's granularity leaves no room for buckets");
  }
  first_doubling_ = std::size_t{1} << first_power_;
  for (std::size_t i = 1; i <= per_doubling; ++i)
    capacities_.push_back(i << granularity_bits);
  for (unsigned power = first_power_; power < address_bits; ++power) {
    for (std::size_t step = per_doubling + 1; step <= 2 * per_doubling; ++step) {
      const std::size_t capacity = step << (power - doubling_bits_);
      if (capacity > capacities_.back())
        capacities_.push_back(capacity);  // the last one, 2^64, is beyond a size
    }
  }
}

BucketMap::BucketMap(const Table& policy, std::size_t granularity) {
  if (policy.capacities.empty())
    throw std::invalid_argument("cache: a table of buckets has at least one capacity");
  capacities_.push_back(
      0);  // for odd blocks smaller than the first bucket listed; no request goes there
  for (const std::size_t listed : policy.capacities) {
    const std::optional<std::size_t> capacity = round_up(listed, granularity);
    if (listed == 0 || !capacity)
      throw std::invalid_argument("cache: the capacity of a bucket is 0 or beyond any memory");
    capacities_.push_back(*capacity);
  }
  if (!std::is_sorted(policy.capacities.begin(), policy.capacities.end())) {
    throw std::invalid_argument("cache: the capacities of a table of buckets rise");
  }
  capacities_.erase(std::unique(capacities_.begin(), capacities_.end()), capacities_.end());
  for (unsigned power = floor_log2(capacities_.back()) + 1; power < address_bits; ++power) {
    capacities_.push_back(std::size_t{1} << power);
  }
}

std::size_t BucketMap::bucket_in_table(std::size_t bytes) const noexcept {
  return static_cast<std::size_t>(std::lower_bound(capacities_.begin(), capacities_.end(), bytes) -
                                  capacities_.begin());
}

}  // namespace cistern
