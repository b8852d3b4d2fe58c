// How a cache's buckets are written: `buckets=` names a policy, or lists capacities, and what else
// the policy needs stands in parameters of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cistern/pool/cache.hpp"
#include "stack/value_type.hpp"

namespace cistern::language {

enum class Buckets : std::uint8_t { geometric, pow2, table, fit, listed };

struct BucketChoice {
  Buckets kind = Buckets::geometric;
  std::vector<std::size_t> capacities;  // where listed
};

/// The options of `cache` as they are written.
struct CacheOptions : Cache::Options {
  BucketChoice choice;
  unsigned per_doubling = Geometric{}.per_doubling;
  double slack = Fit{}.slack;
  std::size_t slack_bytes = Fit{}.slack_bytes;

  /// The pool's options, with the policy that was chosen.
  [[nodiscard]] Cache::Options resolved() const;
};

Type<BucketChoice> bucket_choice();

Bound<unsigned> buckets_per_doubling();

}  // namespace cistern::language
