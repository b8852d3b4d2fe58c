// `cistern replay`: what a recorded trace would have cost on each of some stacks.
#include "cistern/trace/replay.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "cistern/stack/simulated_capacity.hpp"
#include "cistern/stack/stack.hpp"
#include "cistern/trace/capacity.hpp"
#include "cistern/trace/streams.hpp"
#include "command.hpp"
#include "load.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace cistern::command {
namespace {

struct ReplayArguments {
  std::string trace;
  // Nothing writes to the memory, so the host can stand for a device that has more of it.
  std::vector<std::string> stacks{"host", "cache > host"};
  std::optional<int> device;
  bool check = false;
  bool follow = false;
  bool capacity = false;
  std::size_t granularity = std::size_t{2} << 20;  // of the capacity
  std::size_t turns = 1;
  std::size_t streams = 1;
  bool json = false;
};

struct Run {
  std::string stack;
  ReplayResult result;
  std::optional<SmallestCapacity> capacity;
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
            {"peak_resident_bytes", stats.resident.peak},
            {"residency_commits", stats.residency_commits},
            {"utilisation", result.utilisation()},
            {"hits", stats.hits},
            {"misses", stats.misses},
            {"hit_rate", stats.hit_rate()},
            {"device_allocations", stats.device_allocations},
            {"device_frees", stats.device_frees},
            {"device_time_ns", nullptr},
            {"stream_waits", nullptr},
            {"host_waits", nullptr},
            {"ns_per_op",
             {{"mean", result.ns_per_op.mean},
              {"p50", result.ns_per_op.p50},
              {"p99", result.ns_per_op.p99},
              {"max", result.ns_per_op.max}}},
            {"replay_overhead_ns", result.replay_overhead_ns},
            {"error", nullptr}};
  if (result.device_time_ns) json["device_time_ns"] = *result.device_time_ns;
  if (result.waits) {
    json["stream_waits"] = result.waits->of_streams;
    json["host_waits"] = result.waits->of_host;
  }
  if (result.addresses) {
    json["address_matches"] = result.addresses->matches;
    json["address_mismatches"] = result.addresses->mismatches;
    json["segments_followed"] = result.addresses->segments_followed;
    json["segments_missed"] = result.addresses->segments_missed;
  }
  if (result.peak_reserved_per_turn.size() > 1)
    json["peak_reserved_bytes_per_turn"] = result.peak_reserved_per_turn;
  if (run.capacity) {
    json["min_capacity_bytes"] = nullptr;
    if (run.capacity->bytes) json["min_capacity_bytes"] = *run.capacity->bytes;
  }
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
  const bool any_capacity = runs.front().capacity.has_value();
  if (any_capacity) header.emplace_back("capacity");
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
    if (any_capacity) {
      row.push_back(run.capacity->bytes ? in_units(*run.capacity->bytes) : "none");
    }
    if (any_device_time) {
      row.push_back(result.device_time_ns ? as_time(static_cast<double>(*result.device_time_ns))
                                          : "");
    }
    if (any_failed) row.push_back(with_commas(result.failed + result.initial_failed));
    table.add(std::move(row));
  }
  return table.text(columns());
}

/// What does not fit a table: addresses beside the recorded ones, turn beside turn.
void print_comparisons(const Run& run) {
  if (const auto& addresses = run.result.addresses) {
    fmt::print("{}: {} blocks where they were recorded, {} elsewhere; {} of {} followed.\n",
               run.stack, with_commas(addresses->matches), with_commas(addresses->mismatches),
               with_commas(addresses->segments_followed),
               counted(addresses->segments_followed + addresses->segments_missed, "segment"));
  }
  if (const auto& turns = run.result.peak_reserved_per_turn; turns.size() > 1) {
    fmt::print("{}: reserved in turns 1 to {}:", run.stack, turns.size());
    constexpr std::size_t shown = 8;
    for (std::size_t turn = 0; turn < std::min(turns.size(), shown); ++turn)
      fmt::print(" {}{}", in_units(turns[turn]), turn + 1 < turns.size() ? "," : "\n");
    if (turns.size() > shown) fmt::print(" ... {}\n", in_units(turns.back()));
  }
}

void print_report(const LoadedTrace& loaded, const std::vector<Run>& runs) {
  fmt::print("{}\n{}\n", headline_text(loaded), as_table(runs));
  fmt::print(
      "reserved: the most the stack held; used: peak live as a part of it; device:\n"
      "allocations that reached it. Times are of one allocation or free; {} of the\n"
      "mean are the replay's own.\n",
      as_time(runs.front().result.replay_overhead_ns));
  if (runs.front().capacity) {
    fmt::print("capacity: the smallest device on which no request was refused.\n");
  }
  for (const Run& run : runs)
    print_comparisons(run);
  const bool any_failed = std::any_of(runs.begin(), runs.end(), [](const Run& run) {
    return run.result.failed + run.result.initial_failed > 0;
  });
  if (any_failed) {
    fmt::print(
        "failed: requests that were refused, their frees skipped; the rest is of the others.\n");
  }
}

SmallestCapacity capacity_of(const std::string& stack, const Trace& trace,
                             std::size_t granularity) {
  Progress progress(fmt::format("looking for the smallest device for {}", stack));
  return smallest_capacity(
      trace, [&](std::size_t bytes) { return open(with_simulated_capacity(stack, bytes).value()); },
      {.granularity = granularity, .progress = [&](double part) { progress.update(part); }});
}

void run_replay(const ReplayArguments& arguments) {
  if (arguments.follow && (arguments.turns > 1 || arguments.streams > 1)) {
    throw WrongArguments(
        "--follow-segments follows one turn on the recorded streams: it excludes --repeat and "
        "--streams");
  }
  for (const std::string& stack : arguments.stacks) {
    if (const auto checked = check(stack); !checked) throw StackError(checked.error());
  }
  if (arguments.capacity) {
    for (const std::string& stack : arguments.stacks) {
      if (const auto varied = with_simulated_capacity(stack, 1); !varied)
        throw StackError(varied.error());
    }
  }
  LoadedTrace loaded = arguments.follow ? load_with_layout(arguments.trace, arguments.device)
                                        : load(arguments.trace, arguments.device);
  if (arguments.streams > 1) deal_over_streams(loaded.trace, arguments.streams);

  std::string broken;  // what is wrong with a stack, if something is
  std::vector<Run> runs;
  for (const std::string& stack : arguments.stacks) {
    Progress progress(
        fmt::format("replaying on stack {} of {}", runs.size() + 1, arguments.stacks.size()));
    const ReplayOptions options{.check = arguments.check,
                                .follow = loaded.layout ? &*loaded.layout : nullptr,
                                .turns = arguments.turns,
                                .progress = [&](double part) { progress.update(part); }};
    Run run{.stack = stack,
            .result = replay(
                loaded.trace, [&] { return open(stack); }, options),
            .capacity = std::nullopt};
    progress.wipe();
    if (arguments.capacity) run.capacity = capacity_of(stack, loaded.trace, arguments.granularity);
    runs.push_back(std::move(run));
  }

  for (const Run& run : runs) {
    if (!run.result.error.empty()) broken = fmt::format("{}: {}", run.stack, run.result.error);
  }
  if (arguments.json) {
    Json document{{"trace", headline(loaded)},
                  {"repeat", arguments.turns},
                  {"streams", arguments.streams},
                  {"runs", Json::array()}};
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
  auto arguments = std::make_shared<ReplayArguments>();
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
  command->add_flag("--follow-segments", arguments->follow,
                    "Begin where a PyTorch snapshot begins, hand out its segments and compare "
                    "addresses");
  command->add_flag("--capacity", arguments->capacity,
                    "Find the smallest simulated device on which nothing is refused");
  command->add_option("--granularity", arguments->granularity, "How exactly, in bytes")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber)
      ->needs("--capacity");
  command->add_option("--repeat", arguments->turns, "Replay the events so many times in a row")
      ->check(CLI::Range(1, 1000000));
  command->add_option("--streams", arguments->streams, "Deal the allocations over so many streams")
      ->check(CLI::Range(1, 1000000));
  command->add_flag("--json", arguments->json, "Print one JSON document");
  command->footer(
      "Example:\n"
      "  cistern replay snapshot.pickle.gz --stack 'cache(buckets=pow2) > "
      "simulated(capacity=80GiB)'");
  command->callback([&job, arguments] { job = [arguments] { run_replay(*arguments); }; });
}

}  // namespace cistern::command
