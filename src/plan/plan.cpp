#include "cistern/plan/plan.hpp"

#include <algorithm>
#include <stdexcept>

#include "plan/effort.hpp"
#include "plan/improve.hpp"
#include "plan/offset.hpp"
#include "plan/part.hpp"

namespace cistern {

// The part with the highest peak is the one that counts; the others are as good as they need to be.
Plan make_plan(std::span<const Lifetime> buffers, const PlanBudget& budget) {
  detail::Effort effort(budget);
  Plan plan;
  plan.offsets.assign(buffers.size(), 0);
  const std::vector<detail::Part> parts = detail::partition(buffers);
  std::vector<detail::Improver> improvers;
  improvers.reserve(parts.size());
  for (const detail::Part& part : parts) {
    improvers.emplace_back(part, effort);
    plan.lower_bound_bytes = std::max(plan.lower_bound_bytes, part.lower_bound);
  }
  for (;;) {
    const auto worst =
        std::max_element(improvers.begin(), improvers.end(),
                         [](const auto& a, const auto& b) { return a.peak() < b.peak(); });
    if (worst != improvers.end()) {
      plan.peak_bytes = worst->peak();
      plan.lower_bound_bytes = std::max(plan.lower_bound_bytes, worst->lower_bound());
    }
    plan.proved_optimal = plan.peak_bytes == plan.lower_bound_bytes;
    if (plan.proved_optimal || plan.peak_bytes <= budget.enough_bytes || effort.is_spent()) break;
    worst->improve(std::max(budget.enough_bytes, plan.lower_bound_bytes), effort);
  }
  if (plan.peak_bytes == detail::nowhere)
    throw std::invalid_argument("no plan was found whose peak a size can hold");
  for (std::size_t i = 0; i < parts.size(); ++i) {
    for (std::uint32_t item = 0; item < parts[i].size(); ++item)
      plan.offsets[parts[i].buffers[item]] = improvers[i].offsets()[item];
  }
  plan.steps = effort.steps();
  return plan;
}

}  // namespace cistern
