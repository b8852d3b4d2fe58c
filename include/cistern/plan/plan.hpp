// Dynamic storage allocation: offsets for buffers with known lives, so that those that live
// together do not overlap and the highest end of all, the peak, is as small as can be found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "cistern/plan/lifetime.hpp"

namespace cistern {

/// When to stop. A plan that is proved optimal, or needs no more than `enough_bytes`, ends the
/// search at once; whichever budget is used up first ends it otherwise. A budget of steps alone
/// makes the result repeat exactly; the first answer is always found, however small the budgets
/// are. A search without any budget ends only if it proves its plan optimal, which it may never do
/// for more than a few dozen buffers.
struct PlanBudget {
  double seconds = std::numeric_limits<double>::infinity();
  std::uint64_t steps = std::numeric_limits<std::uint64_t>::max();
  std::size_t enough_bytes = 0;
};

struct Plan {
  std::vector<std::size_t> offsets;   // of each buffer, in the order given
  std::size_t peak_bytes = 0;         // the highest end of a buffer
  std::size_t lower_bound_bytes = 0;  // no plan has a lower peak
  bool proved_optimal = false;        // no plan has a lower peak than this one
  std::uint64_t steps = 0;            // taken by the search
};

/// Throws std::invalid_argument where an `upper` is below its `lower`, an alignment is no power of
/// two, or the buffers that live together, with what their alignments leave unused, reach SIZE_MAX.
///
/// The first answer takes O(n log n) in practice (60,000 buffers: 0.1 to 1.5 s) and memory linear
/// in n. Then rounds of the same greedy rule with better orders, each as long as the first, go on
/// in turn with an exact search, which for at most a million pairs of buffers that live together
/// needs 8 bytes for each pair. The methods and their sources stand in src/plan/.
[[nodiscard]] Plan make_plan(std::span<const Lifetime> buffers, const PlanBudget& budget);

/// The law that `plan` breaks as a plan for `buffers`; empty if it keeps all. Independent of the
/// search. O(n log n).
[[nodiscard]] std::string validate(std::span<const Lifetime> buffers, const Plan& plan);

}  // namespace cistern
