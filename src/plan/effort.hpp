// What is left of a budget. Steps are counted by the work that is done, so that a budget of steps
// ends a search at the same place every time; the clock is read only if there is a limit of time,
// and only once in many steps.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>

#include "cistern/plan/plan.hpp"

namespace cistern::detail {

class Effort {
 public:
  explicit Effort(const PlanBudget& budget)
      : most_steps_(budget.steps), has_deadline_(budget.seconds < longest_seconds) {
    if (!has_deadline_) return;
    const std::chrono::duration<double> time(budget.seconds > 0 ? budget.seconds : 0);
    deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
  }

  /// A step is about as much work as finding the highest of a few sections.
  void spend(std::uint64_t steps) {
    steps_ += steps;
    if (has_deadline_ && steps_ >= next_look_) {
      next_look_ = steps_ + steps_between_looks;
      is_late_ = Clock::now() >= deadline_;
    }
  }

  [[nodiscard]] bool is_spent() const noexcept { return is_late_ || steps_ >= most_steps_; }
  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr double longest_seconds = 1e9;  // 30 years are no limit
  static constexpr std::uint64_t steps_between_looks = 1000;

  std::uint64_t most_steps_;
  bool has_deadline_;
  bool is_late_ = false;
  Clock::time_point deadline_;
  std::uint64_t steps_ = 0;
  std::uint64_t next_look_ = 0;
};

}  // namespace cistern::detail
