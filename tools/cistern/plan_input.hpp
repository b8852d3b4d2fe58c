// What `cistern plan` plans: a table of lifetimes, or a recorded run or one turn of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cistern/trace/lifetimes.hpp"
#include "output.hpp"

namespace cistern::command {

struct PlanInput {
  Lifetimes lifetimes;
  Json headline;     // what it is: "name", "source", and for runs what is marked and planned
  std::string text;  // the same in lines for people
};

/// Reads `file`. `cycle` picks one of the turns that a run marks, counted from 1; a run that marks
/// none is one. Throws JobFailed if there is nothing to plan in `file`, or no such turn.
PlanInput load_plan_input(const std::string& file, std::optional<int> device,
                          std::optional<std::uint64_t> cycle);

}  // namespace cistern::command
