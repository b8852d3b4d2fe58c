// Which sizes share a bucket: the one thing in which the bounded caches of different systems differ
// most.
#pragma once

#include <cstddef>
#include <variant>
#include <vector>

namespace cistern {

/// `per_doubling` buckets, evenly spaced, between a power of two and the next: 1, 2, 4, ... 64. 1
/// is "powers of two" and wastes up to half of a block, 8 up to a ninth.
struct Geometric {
  unsigned per_doubling = 8;
};

/// Buckets of the capacities listed, in rising order, and powers of two above the last.
struct Table {
  std::vector<std::size_t> capacities;
};

/// No buckets: the smallest idle block that is large enough, the oldest of equal ones, if its
/// capacity is below min(slack * bytes, bytes + slack_bytes).
struct Fit {
  double slack = 2;
  std::size_t slack_bytes = 8192;
};

using BucketPolicy = std::variant<Geometric, Table, Fit>;

/// 1, 4, 16, 64, 256 KiB, 1, 4, 16, 64, 256 MiB.
Table quadrupling_table();

}  // namespace cistern
