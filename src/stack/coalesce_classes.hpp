// How a coalescing pool's classes of sizes are written: the bounds between them in one list, and in
// lists of the same order what the regions of each class are like.
#pragma once

#include <cstddef>
#include <vector>

#include "cistern/pool/coalesce.hpp"
#include "stack/value_type.hpp"

namespace cistern::language {

/// The options of `coalesce` as they are written. Of a list that is shorter than the number of
/// classes, the rest have the default.
struct CoalesceOptions : Coalesce::Options {
  // Not an aggregate: GCC 12 takes the vectors of one for uninitialised.
  CoalesceOptions() = default;

  std::vector<std::size_t> bounds = {std::size_t{256} << 10, std::size_t{64} << 20};
  std::vector<std::size_t> regions = {std::size_t{2} << 20, std::size_t{32} << 20};
  std::vector<std::size_t> regions_for = {};
  std::vector<std::size_t> rests = {};

  /// The pool's options, with the classes that were listed.
  [[nodiscard]] Coalesce::Options resolved() const;
};

/// A list of sizes, which may be empty.
Type<std::vector<std::size_t>> sizes();

/// Rising, none of them 0.
Bound<std::vector<std::size_t>> rising();

}  // namespace cistern::language
