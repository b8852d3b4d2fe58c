// `cistern replay`: what a recorded trace would have cost on each of some stacks.
#include "cistern/trace/replay.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "cistern/stack/stack.hpp"
#include "command.hpp"
#include "load.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace cistern::command {
namespace {

struct Arguments {
  std::string trace;
  // Nothing writes to the memory, so the host can stand for a device that has more of it.
  std::vector<std::string> stacks{"host", "cache > host"};
  std::optional<int> device;
  bool check = false;
  bool json = false;
};

struct Run {
  std::string stack;
  ReplayResult result;
};

Json as_json(const Run& run) {
  const ReplayResult& result = run.result;
  const Stats& stats = result.stats;
  Json json{{"stack", run.stack},
            {"allocations", result.allocations},
            {"frees", result.frees},
            {"failed", result.failed},
            {"initial_failed", result.initial_failed},
            {"peak_live_bytes", result.peak_live_bytes},
            {"peak_live_granted_bytes", stats.live_granted.peak},
            {"peak_cached_bytes", stats.cached.peak},
            {"peak_reserved_bytes", stats.reserved.peak},
            {"peak_spilled_bytes", stats.spilled.peak},
            {"utilisation", result.utilisation()},
            {"hits", stats.hits},
            {"misses", stats.misses},
            {"hit_rate", stats.hit_rate()},
            {"device_allocations", stats.device_allocations},
            {"device_frees", stats.device_frees},
            {"device_time_ns", nullptr},
            {"ns_per_op",
             {{"mean", result.ns_per_op.mean},
              {"p50", result.ns_per_op.p50},
              {"p99", result.ns_per_op.p99},
              {"max", result.ns_per_op.max}}},
            {"replay_overhead_ns", result.replay_overhead_ns},
            {"error", nullptr}};
  if (result.device_time_ns) json["device_time_ns"] = *result.device_time_ns;
  if (!result.error.empty()) json["error"] = result.error;
  return json;
}

std::string as_table(const std::vector<Run>& runs) {
  bool any_failed = false;
  bool any_device_time = false;
  for (const Run& run : runs) {
    any_failed |= run.result.failed + run.result.initial_failed > 0;
    any_device_time |= run.result.device_time_ns.value_or(0) > 0;
  }
  std::vector<std::string> header{"stack", "reserved", "used", "hits", "device",
                                  "mean",  "p50",      "p99",  "max"};
  if (any_device_time) header.emplace_back("device time");
  if (any_failed) header.emplace_back("failed");
  Table table(header);
  for (const Run& run : runs) {
    const ReplayResult& result = run.result;
    const OperationTimes& times = result.ns_per_op;
    std::vector<std::string> row{run.stack,
                                 in_units(result.stats.reserved.peak),
                                 as_percent(result.utilisation()),
                                 as_percent(result.stats.hit_rate()),
                                 with_commas(result.stats.device_allocations),
                                 as_time(times.mean),
                                 as_time(times.p50),
                                 as_time(times.p99),
                                 as_time(times.max)};
    if (any_device_time) {
      row.push_back(result.device_time_ns ? as_time(static_cast<double>(*result.device_time_ns))
                                          : "");
    }
    if (any_failed) row.push_back(with_commas(result.failed + result.initial_failed));
    table.add(std::move(row));
  }
  return table.text(columns());
}

void print_report(const LoadedTrace& loaded, const std::vector<Run>& runs) {
  fmt::print("{}\n{}\n", headline_text(loaded), as_table(runs));
  fmt::print(
      "reserved: the most the stack held; used: peak live as a part of it; device:\n"
      "allocations that reached it. Times are of one allocation or free; {} of the\n"
      "mean are the replay's own.\n",
      as_time(runs.front().result.replay_overhead_ns));
  const bool any_failed = std::any_of(runs.begin(), runs.end(), [](const Run& run) {
    return run.result.failed + run.result.initial_failed > 0;
  });
  if (any_failed) {
    fmt::print(
        "failed: requests that were refused, their frees skipped; the rest is of the others.\n");
  }
}

void run(const Arguments& arguments) {
  for (const std::string& stack : arguments.stacks) {
    if (const auto checked = check(stack); !checked) throw StackError(checked.error());
  }
  const LoadedTrace loaded = load(arguments.trace, arguments.device);

  std::string broken;  // what is wrong with a stack, if something is
  std::vector<Run> runs;
  for (const std::string& stack : arguments.stacks) {
    Progress progress(
        fmt::format("replaying on stack {} of {}", runs.size() + 1, arguments.stacks.size()));
    const ReplayOptions options{.check = arguments.check,
                                .progress = [&](double part) { progress.update(part); }};
    runs.push_back({.stack = stack,
                    .result = replay(
                        loaded.trace, [&] { return open(stack); }, options)});
  }

  for (const Run& run : runs) {
    if (!run.result.error.empty()) broken = fmt::format("{}: {}", run.stack, run.result.error);
  }
  if (arguments.json) {
    Json document{{"trace", headline(loaded)}, {"runs", Json::array()}};
    for (const Run& run : runs)
      document["runs"].push_back(as_json(run));
    print_json(document);
  } else {
    print_report(loaded, runs);
    if (arguments.check && broken.empty())
      fmt::print("Checked: no live blocks overlap, are too small or misaligned.\n");
  }
  if (!broken.empty()) throw JobFailed(broken);
}

}  // namespace

void add_replay(CLI::App& app, Job& job) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("replay", "Replay a trace on stacks and compare what came of it");
  command->add_option("TRACE", arguments->trace, "A trace of any known format; - is standard input")
      ->required();
  command->add_option("--stack", arguments->stacks, "A stack to replay it on; repeatable")
      ->type_name("STACK")
      ->allow_extra_args(false)
      ->capture_default_str();
  add_device_option(*command, arguments->device);
  command->add_flag("--check", arguments->check,
                    "Hold every block against the laws: size, alignment, no overlap");
  command->add_flag("--json", arguments->json, "Print one JSON document");
  command->footer(
      "Example:\n"
      "  cistern replay snapshot.pickle.gz --stack 'cache(buckets=pow2) > "
      "simulated(capacity=80GiB)'");
  command->callback([&job, arguments] { job = [arguments] { run(*arguments); }; });
}

}  // namespace cistern::command
