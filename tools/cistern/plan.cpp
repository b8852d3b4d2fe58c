// `cistern plan`: offsets for buffers whose lives are known, so that they need as little memory as
// can be found.
#include "cistern/plan/plan.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "cistern/core/size.hpp"
#include "command.hpp"
#include "load.hpp"
#include "output.hpp"
#include "plan_input.hpp"
#include "plan_picture.hpp"
#include "save.hpp"

namespace cistern::command {
namespace {

struct PlanArguments {
  std::string input;
  std::optional<int> device;
  std::optional<std::uint64_t> cycle;
  std::size_t granularity = 1;
  std::optional<std::size_t> capacity;
  std::optional<double> seconds;
  std::optional<std::uint64_t> steps;
  std::string svg;
  std::string offsets;
  bool json = false;
};

struct Result {
  Plan plan;
  double seconds = 0;

  /// 1 where there is nothing to place.
  [[nodiscard]] double ratio() const {
    return plan.lower_bound_bytes == 0
               ? 1
               : static_cast<double>(plan.peak_bytes) / static_cast<double>(plan.lower_bound_bytes);
  }
};

/// A second, unless the arguments say how much is enough.
PlanBudget budget(const PlanArguments& arguments) {
  PlanBudget budget;
  if (arguments.seconds || !arguments.steps) budget.seconds = arguments.seconds.value_or(1);
  budget.steps = arguments.steps.value_or(budget.steps);
  budget.enough_bytes = arguments.capacity.value_or(0);
  return budget;
}

/// Makes sizes and offsets multiples of `granularity`.
void round_up_all(Lifetimes& lifetimes, std::size_t granularity) {
  for (std::size_t place = 0; place < lifetimes.buffers.size(); ++place) {
    Lifetime& buffer = lifetimes.buffers[place];
    const auto bytes = round_up(buffer.bytes, granularity);
    if (!bytes) {
      throw JobFailed(fmt::format("{}: {} bytes have no multiple of {} above them in 64 bits",
                                  lifetimes.ids[place], buffer.bytes, granularity));
    }
    buffer.bytes = *bytes;
    buffer.alignment = std::max(buffer.alignment, granularity);
  }
}

Result make(const Lifetimes& lifetimes, const PlanBudget& budget) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  Result result{.plan = make_plan(lifetimes.buffers, budget)};
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (const std::string broken = validate(lifetimes.buffers, result.plan); !broken.empty())
    throw JobFailed(fmt::format("{}: the plan is broken: {}", lifetimes.name, broken));
  return result;
}

/// Why `plan` does not fit; empty if it does.
std::string why_unfit(const Result& result, std::size_t capacity) {
  const Plan& plan = result.plan;
  if (plan.peak_bytes <= capacity) return {};
  if (plan.lower_bound_bytes > capacity) {
    return fmt::format("no plan fits {} bytes: at least {} are needed", capacity,
                       plan.lower_bound_bytes);
  }
  if (plan.proved_optimal) {
    return fmt::format("no plan fits {} bytes: the best, proved optimal, needs {}", capacity,
                       plan.peak_bytes);
  }
  return fmt::format(
      "no plan that fits {} bytes was found in {}; the best needs {}. There may be one: more "
      "--seconds or --steps look further",
      capacity, as_time(1e9 * result.seconds), plan.peak_bytes);
}

/// The table of minimalloc with a column for the offsets.
std::string as_csv(const Lifetimes& lifetimes, const Plan& plan) {
  const bool any_aligned = std::any_of(lifetimes.buffers.begin(), lifetimes.buffers.end(),
                                       [](const Lifetime& buffer) { return buffer.alignment > 1; });
  std::string csv =
      any_aligned ? "id,lower,upper,size,alignment,offset\n" : "id,lower,upper,size,offset\n";
  const auto out = std::back_inserter(csv);
  for (std::size_t place = 0; place < lifetimes.buffers.size(); ++place) {
    const Lifetime& buffer = lifetimes.buffers[place];
    fmt::format_to(out, "{},{},{},{}", lifetimes.ids[place], buffer.lower, buffer.upper,
                   buffer.bytes);
    if (any_aligned) fmt::format_to(out, ",{}", buffer.alignment);
    fmt::format_to(out, ",{}\n", plan.offsets[place]);
  }
  return csv;
}

Json as_json(const PlanInput& input, const PlanArguments& arguments, const Result& result) {
  const Plan& plan = result.plan;
  Json json = input.headline;
  json["granularity"] = arguments.granularity;
  json["buffers"] = input.lifetimes.buffers.size();
  json["lower_bound_bytes"] = plan.lower_bound_bytes;
  json["peak_bytes"] = plan.peak_bytes;
  json["ratio"] = result.ratio();
  json["proved_optimal"] = plan.proved_optimal;
  json["capacity"] = nullptr;
  json["fits"] = nullptr;
  if (arguments.capacity) {
    json["capacity"] = *arguments.capacity;
    json["fits"] = plan.peak_bytes <= *arguments.capacity;
  }
  json["seconds"] = result.seconds;
  json["steps"] = plan.steps;
  return json;
}

void print(std::FILE* out, const PlanInput& input, const PlanArguments& arguments,
           const Result& result) {
  const Plan& plan = result.plan;
  const auto print_level = [&](const char* name, std::size_t bytes, const std::string& remark) {
    fmt::print(out, "{:<12} {:>12} {:>16} bytes{}\n", name, in_units(bytes), with_commas(bytes),
               remark);
  };
  fmt::print(out, "{}{}, planned in {} and {}\n", input.text,
             counted(input.lifetimes.buffers.size(), "buffer"), as_time(1e9 * result.seconds),
             counted(plan.steps, "step"));
  print_level("peak", plan.peak_bytes,
              fmt::format(", {:.4f} times the bound{}", result.ratio(),
                          plan.proved_optimal ? ": proved optimal" : ""));
  print_level("lower bound", plan.lower_bound_bytes, "");
  if (arguments.capacity) {
    print_level("capacity", *arguments.capacity,
                plan.peak_bytes <= *arguments.capacity ? ": the plan fits" : ": it does not fit");
  }
}

void check_plan(const PlanArguments& arguments) {
  if (!std::has_single_bit(arguments.granularity))
    throw WrongArguments("--granularity: a power of two");
  if (arguments.seconds && !(*arguments.seconds >= 0))  // nor is it no number
    throw WrongArguments("--seconds: 0 or more");
  if (arguments.svg == "-" || (arguments.json && arguments.offsets == "-")) {
    throw WrongArguments(
        "standard output takes the offsets alone, or the JSON: name a file for the other");
  }
}

void run_plan(const PlanArguments& arguments) {
  check_plan(arguments);
  PlanInput input = load_plan_input(arguments.input, arguments.device, arguments.cycle);
  round_up_all(input.lifetimes, arguments.granularity);
  const Result result = make(input.lifetimes, budget(arguments));
  if (!arguments.svg.empty()) save(arguments.svg, plan_picture(input.lifetimes, result.plan));
  if (!arguments.offsets.empty()) save(arguments.offsets, as_csv(input.lifetimes, result.plan));
  if (arguments.json) {
    print_json(as_json(input, arguments, result));
  } else {
    print(arguments.offsets == "-" ? stderr : stdout, input, arguments, result);
  }
  if (arguments.capacity) {
    if (const std::string why = why_unfit(result, *arguments.capacity); !why.empty())
      throw JobFailed(why);
  }
}

}  // namespace

void add_plan(CLI::App& app, Job& job) {
  auto arguments = std::make_shared<PlanArguments>();
  CLI::App* command = app.add_subcommand(
      "plan", "Place buffers with known lives in as little memory as can be found");
  command
      ->add_option("LIFETIMES", arguments->input,
                   "A table of lifetimes (CSV), or a trace of any known format; - is standard "
                   "input")
      ->required();
  add_device_option(*command, arguments->device);
  command
      ->add_option("--cycle", arguments->cycle,
                   "Of a trace, plan the cycle with this number, from 1, that it marks")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--granularity", arguments->granularity,
                   "Make sizes and offsets multiples of so many bytes, a power of two")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--capacity", arguments->capacity,
                   "Stop at a plan that needs no more; fail if none is found")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber);
  command->add_option("--seconds", arguments->seconds,
                      "Stop after so long; 1 if neither this nor --steps is given");
  command
      ->add_option("--steps", arguments->steps,
                   "Stop after so many steps; without --seconds the result repeats exactly")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--svg", arguments->svg, "Draw the plan into this file");
  command->add_option("--offsets", arguments->offsets,
                      "Write the table with a column of offsets; - is standard output");
  command->add_flag("--json", arguments->json, "Print one JSON document");
  command->footer("Example:\n  cistern plan buffers.csv --capacity 1MiB --svg plan.svg");
  command->callback([&job, arguments] { job = [arguments] { run_plan(*arguments); }; });
}

}  // namespace cistern::command
