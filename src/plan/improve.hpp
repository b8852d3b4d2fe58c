// One part's plan, and what makes it better round by round, for as long as there is time: orders
// for the greedy rule that learn from what stuck out, in turn with attempts of the exact search to
// pack the part into less. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "plan/effort.hpp"
#include "plan/lowest_offset.hpp"
#include "plan/packing.hpp"
#include "plan/part.hpp"
#include "plan/priorities.hpp"
#include "plan/random.hpp"

namespace cistern::detail {

class Improver {
 public:
  /// Finds a first plan, however little effort is left. `part` outlives this.
  Improver(const Part& part, Effort& effort);

  [[nodiscard]] std::size_t peak() const noexcept { return peak_; }
  /// By item.
  [[nodiscard]] const std::vector<std::size_t>& offsets() const noexcept { return best_; }
  /// No plan has a lower peak. It rises where the exact search shows that.
  [[nodiscard]] std::size_t lower_bound() const noexcept { return lower_bound_; }

  /// One more round, for a part whose peak is above `enough` and its lower bound. It does not try
  /// to go below `enough`.
  void improve(std::size_t enough, Effort& effort);

 private:
  static constexpr std::size_t ways_down = 3;

  void place(const Priorities& priorities, Effort& effort);
  void listen(std::size_t target, Effort& effort);
  void pack(std::size_t target, Effort& effort);
  void descend(std::size_t target, Effort& effort);
  [[nodiscard]] std::size_t quarters_above(std::size_t target, std::size_t quarters) const noexcept;
  void attempt(std::size_t capacity, const Priorities& priorities, std::uint64_t dead_ends,
               Effort& effort);
  void keep(std::size_t peak, const std::vector<std::size_t>& offsets);

  const Part& part_;
  std::size_t lower_bound_;
  std::size_t peak_;
  std::vector<std::size_t> best_;
  Random random_{1};

  LowestOffset greedy_;
  Priorities heard_;  // learn what the greedy rule placed too high
  std::vector<std::size_t> offsets_;
  std::vector<double> trouble_;
  std::uint64_t rounds_ = 0;
  std::uint64_t greedy_steps_ = 0;

  bool can_pack_;
  std::optional<Packing> packing_;
  Priorities stuck_;               // learn what the exact search could not place
  Priorities on_the_way_;          // the same, of capacities above the target
  std::vector<Priorities> plain_;  // learn nothing
  std::size_t descents_ = 0;       // the plain order that goes first
  std::size_t vain_descents_ = 0;  // since one reached its end
  std::uint64_t attempts_ = 0;
  std::uint64_t plain_turns_ = 0;
  std::uint64_t stuck_turns_ = 0;
  std::uint64_t way_turns_ = 0;
  std::uint64_t packing_steps_ = 0;
};

}  // namespace cistern::detail
