#include "plan/improve.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "plan/conflicts.hpp"
#include "plan/offset.hpp"

namespace cistern::detail {
namespace {

constexpr std::uint64_t most_conflicts = 1'000'000;  // of a part that is searched; 8 MiB of them
constexpr std::uint64_t first_rounds = 24;           // of the greedy rule, before the first search
constexpr std::uint64_t searching = 7;               // times as long as with the greedy rule
constexpr std::uint64_t least_dead_ends = 100;       // that end an attempt, at least
constexpr double plain_noise = 0.6;                  // of a plain order

/// The sequence 1 1 2 1 1 2 4 1 1 2 1 1 2 4 8 ...: within a logarithmic factor of the best limit
/// for a search that is started over and over (M. Luby, A. Sinclair, D. Zuckerman, "Optimal Speedup
/// of Las Vegas Algorithms", 1993). `i` counts from 1.
std::uint64_t luby(std::uint64_t i) {
  for (;;) {
    const std::uint64_t power = std::bit_floor(i + 1);
    if (power == i + 1) return power / 2;
    i -= power - 1;
  }
}

std::size_t peak_of(const Part& part, const std::vector<std::size_t>& offsets) {
  std::size_t peak = 0;
  for (std::uint32_t item = 0; item < part.size(); ++item)
    peak = std::max(peak, end_of(offsets[item], part.items[item].bytes));
  return peak;
}

}  // namespace

Improver::Improver(const Part& part, Effort& effort)
    : part_(part),
      lower_bound_(part.lower_bound),
      greedy_(part),
      heard_(part, Priorities::area),
      trouble_(part.size()),
      can_pack_(count_conflicts(part) <= most_conflicts),
      stuck_(part, Priorities::area),
      on_the_way_(part, Priorities::width) {
  Effort as_needed{PlanBudget{}};
  peak_ = greedy_.place(heard_.order(), best_, as_needed);
  effort.spend(as_needed.steps());
}

void Improver::improve(std::size_t enough, Effort& effort) {
  const std::size_t target = std::max(lower_bound_, enough);
  const std::uint64_t before = effort.steps();
  if (can_pack_ && rounds_ >= first_rounds && packing_steps_ < searching * greedy_steps_) {
    pack(target, effort);
    packing_steps_ += effort.steps() - before;
  } else {
    listen(target, effort);
    greedy_steps_ += effort.steps() - before;
  }
}

void Improver::keep(std::size_t peak, const std::vector<std::size_t>& offsets) {
  if (peak >= peak_) return;
  peak_ = peak;
  best_ = offsets;
}

void Improver::place(const Priorities& priorities, Effort& effort) {
  keep(greedy_.place(priorities.order(), offsets_, effort), offsets_);
}

/// Places once more, after the items that stuck out of the target the last time were raised.
void Improver::listen(std::size_t target, Effort& effort) {
  if (rounds_++ == 0) {
    place(Priorities(part_, Priorities::width), effort);
    place(Priorities(part_, Priorities::bytes), effort);
    place(Priorities(part_, Priorities::none), effort);
    offsets_ = best_;
  }
  for (std::uint32_t item = 0; item < part_.size(); ++item)
    trouble_[item] = end_of(offsets_[item], part_.items[item].bytes) > target ? 1 : 0;
  heard_.raise(trouble_, random_);
  place(heard_, effort);
}

/// At first the plain orders are tried on three ways down at once, for a quick descent. After that
/// they are tried in turn with an order that learns, and with another that learns on smaller steps:
/// tight parts are solved by going for the target at once, where there is the least choice; for
/// others, whose target cannot be reached, smaller steps are all there is.
void Improver::pack(std::size_t target, Effort& effort) {
  if (!packing_) {
    packing_.emplace(part_);
    for (const auto favour : {Priorities::width, Priorities::area, Priorities::bytes})
      plain_.emplace_back(part_, favour);
  }
  if (vain_descents_ < ways_down * plain_.size()) return descend(target, effort);
  switch (attempts_++ % 5) {
    case 0:
    case 2: {
      Priorities& plain = plain_[plain_turns_ % plain_.size()];
      if (plain_turns_ >= plain_.size()) plain.shuffle(plain_noise, random_);
      attempt(target, plain, least_dead_ends * luby(++plain_turns_), effort);
      break;
    }
    case 1:
    case 3:
      attempt(target, stuck_, least_dead_ends * luby(++stuck_turns_), effort);
      stuck_.raise(packing_->trouble(), random_);
      break;
    default:
      ++way_turns_;
      attempt(target + quarters_above(target, way_turns_ % 3 + 1), on_the_way_,
              least_dead_ends * luby(way_turns_), effort);
      on_the_way_.raise(packing_->trouble(), random_);
      break;
  }
}

void Improver::descend(std::size_t target, Effort& effort) {
  constexpr std::array<std::size_t, ways_down> quarters{2, 3, 0};
  const std::size_t before = peak_;
  const std::size_t favour = (descents_ + vain_descents_ / ways_down) % plain_.size();
  attempt(target + quarters_above(target, quarters[vain_descents_ % ways_down]), plain_[favour],
          least_dead_ends, effort);
  if (peak_ < before) {
    descents_ = favour;
    vain_descents_ = 0;
  } else {
    ++vain_descents_;
  }
}

/// Of the way from the target to the peak.
std::size_t Improver::quarters_above(std::size_t target, std::size_t quarters) const noexcept {
  return (peak_ - target) / part_.unit / 4 * quarters * part_.unit;
}

void Improver::attempt(std::size_t capacity, const Priorities& priorities, std::uint64_t dead_ends,
                       Effort& effort) {
  switch (packing_->attempt(capacity, priorities.order(), dead_ends, effort)) {
    case Packing::Outcome::packed:
      keep(peak_of(part_, packing_->offsets()), packing_->offsets());
      break;
    case Packing::Outcome::impossible:
      lower_bound_ = std::max(lower_bound_, capacity + part_.unit);
      break;
    case Packing::Outcome::gave_up:
      break;
  }
}

}  // namespace cistern::detail
