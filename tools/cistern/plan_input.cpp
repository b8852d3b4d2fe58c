#include "plan_input.hpp"

#include <utility>
#include <variant>

#include <fmt/format.h>

#include "cistern/trace/turn.hpp"
#include "command.hpp"
#include "load.hpp"

namespace cistern::command {
namespace {

using Cycle = std::optional<std::uint64_t>;

PlanInput of_table(Lifetimes lifetimes, Cycle cycle) {
  if (cycle) throw JobFailed(fmt::format("{}: a table of lifetimes has no cycles", lifetimes.name));
  Json headline{{"name", lifetimes.name}, {"source", lifetimes.source}};
  std::string text = fmt::format("{} ({})\n", lifetimes.name, lifetimes.source);
  return {std::move(lifetimes), std::move(headline), std::move(text)};
}

/// What of a run is planned, in words. The cycle 0 is the whole run.
std::string extent(std::uint64_t marked, std::uint64_t cycle, const Trace& planned) {
  if (marked == 0) return "No cycles are marked: the whole run is planned as one.";
  if (cycle == 0) {
    return fmt::format("The whole run is planned; --cycle plans one of the {} that it marks.",
                       counted(marked, "cycle"));
  }
  return fmt::format("Cycle {} of {} is planned; live when it began: {}.", cycle, marked,
                     counted(planned.initial_blocks.size(), "block"));
}

Trace checked_turn_of(const Trace& trace, std::uint64_t cycle, std::uint64_t marked) {
  if (auto turn = turn_of(trace, cycle)) return *std::move(turn);
  throw JobFailed(fmt::format("{}: there is no cycle {}: {}", trace.name, cycle,
                              marked == 0 ? "none is marked, so that the whole run is cycle 1"
                                          : fmt::format("the run marks {}", marked)));
}

PlanInput of_run(Trace trace, Cycle asked) {
  TraceSummary summary = summarise(trace);
  const LoadedTrace whole{std::move(trace), std::move(summary), std::nullopt};
  const TraceSummary::Cycles& cycles = whole.summary.cycles;
  const std::uint64_t marked =
      cycles.evidence == TraceSummary::Cycles::Evidence::events ? cycles.turns : 0;
  const std::uint64_t cycle = marked == 0 && asked == 1 ? 0 : asked.value_or(0);
  const Trace planned = cycle == 0 ? whole.trace : checked_turn_of(whole.trace, cycle, marked);
  Json headline{{"name", planned.name},
                {"source", planned.source},
                {"marked_cycles", marked},
                {"cycle", nullptr}};
  if (cycle != 0) headline["cycle"] = cycle;
  return {lifetimes_of(planned), std::move(headline),
          headline_text(whole) + extent(marked, cycle, planned) + '\n'};
}

}  // namespace

PlanInput load_plan_input(const std::string& file, std::optional<int> device, Cycle cycle) {
  auto input = read_plannable(file, {.device = device});
  if (!input) throw JobFailed(input.error().text());
  if (auto* const table = std::get_if<Lifetimes>(&*input))
    return of_table(std::move(*table), cycle);
  return of_run(std::get<Trace>(std::move(*input)), cycle);
}

}  // namespace cistern::command
