// `cistern info`: what a trace looks like from afar.
#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "command.hpp"
#include "load.hpp"
#include "output.hpp"
#include "terminal.hpp"

namespace cistern::command {
namespace {

struct InfoArguments {
  std::string trace;
  std::optional<int> device;
  bool json = false;
};

using Cycles = TraceSummary::Cycles;

/// The least value of a bin, and the largest.
std::uint64_t bin_from(std::size_t bin) {
  return bin == 0 ? 0 : std::uint64_t{1} << (bin - 1);
}
std::uint64_t bin_to(std::size_t bin) {
  return bin == 0 ? 0 : bin_from(bin) - 1 + bin_from(bin);
}

const char* name(Cycles::Evidence evidence) {
  switch (evidence) {
    case Cycles::Evidence::events:
      return "events";
    case Cycles::Evidence::repeating_sizes:
      return "repeating sizes";
    case Cycles::Evidence::none:
      break;
  }
  return "none";
}

Json as_json(const LoadedTrace& loaded) {
  const TraceSummary& summary = loaded.summary;
  Json json = headline(loaded);
  json["resets"] = summary.resets;
  json["peak_live_blocks"] = summary.peak_live_blocks;
  json["final_live_bytes"] = summary.final_live_bytes;
  json["final_live_blocks"] = summary.final_live_blocks;
  json["requested_bytes"] = summary.requested_bytes;
  json["duration_ns"] = summary.duration_ns;
  json["sizes"] = Json::array();
  for (std::size_t bin = 0; bin < summary.sizes.size(); ++bin) {
    const TraceSummary::SizeBin& sizes = summary.sizes[bin];
    if (sizes.count == 0) continue;
    json["sizes"].push_back({{"from", bin_from(bin)},
                             {"to", bin_to(bin)},
                             {"allocations", sizes.count},
                             {"bytes", sizes.bytes}});
  }
  json["lifetimes"] = Json::array();
  for (std::size_t bin = 0; bin < summary.lifetimes.size(); ++bin) {
    if (summary.lifetimes[bin] == 0) continue;
    json["lifetimes"].push_back(
        {{"from", bin_from(bin)}, {"to", bin_to(bin)}, {"blocks", summary.lifetimes[bin]}});
  }
  json["never_freed"] = summary.never_freed;
  json["streams"] = Json::array();
  for (const auto& [id, use] : summary.streams) {
    json["streams"].push_back({{"id", id}, {"allocations", use.allocations}, {"bytes", use.bytes}});
  }
  json["threads"] = summary.threads;
  json["cycles"] = {{"evidence", name(summary.cycles.evidence)},
                    {"turns", summary.cycles.turns},
                    {"allocations_per_turn", summary.cycles.allocations_per_turn},
                    {"first_allocation", summary.cycles.first_allocation}};
  return json;
}

/// One bar: what it stands for, and how long it is.
struct Bar {
  std::string label;
  std::uint64_t count = 0;
  std::string remark;
};

void print_bars(const char* title, const std::vector<Bar>& bars) {
  if (bars.empty()) return;
  constexpr std::size_t label_width = 12;
  constexpr std::size_t count_width = 12;
  constexpr std::size_t remark_width = 12;
  const std::size_t room = columns() - label_width - count_width - remark_width - 2;
  const std::uint64_t most = std::ranges::max(bars, {}, &Bar::count).count;
  fmt::print("\n{}\n", title);
  for (const Bar& bar : bars) {
    const double part = static_cast<double>(bar.count) / static_cast<double>(most);
    const auto length = static_cast<std::size_t>(part * static_cast<double>(room));
    fmt::print("{:>{}}{:>{}}{:>{}}  {:#<{}}\n", bar.label, label_width, with_commas(bar.count),
               count_width, bar.remark, remark_width, "",
               std::max<std::size_t>(length, bar.count > 0 ? 1 : 0));
  }
}

void print_sizes(const TraceSummary& summary) {
  std::vector<Bar> bars;
  for (std::size_t bin = 0; bin < summary.sizes.size(); ++bin) {
    const TraceSummary::SizeBin& sizes = summary.sizes[bin];
    if (sizes.count > 0)
      bars.push_back({in_units(bin_from(bin)), sizes.count, in_units(sizes.bytes)});
  }
  print_bars("Allocations, by size from each line's to the next power of two; and their bytes:",
             bars);
}

void print_lifetimes(const TraceSummary& summary) {
  std::vector<Bar> bars;
  for (std::size_t bin = 0; bin < summary.lifetimes.size(); ++bin) {
    if (summary.lifetimes[bin] > 0)
      bars.push_back({with_commas(bin_from(bin)), summary.lifetimes[bin], {}});
  }
  if (summary.never_freed > 0) bars.push_back({"never freed", summary.never_freed, {}});
  print_bars("Blocks, by how many events later they were freed, likewise:", bars);
}

void print_streams(const TraceSummary& summary) {
  constexpr std::size_t most = 8;
  std::vector<std::pair<std::uint64_t, TraceSummary::StreamUse>> streams(summary.streams.begin(),
                                                                         summary.streams.end());
  std::ranges::stable_sort(streams, std::ranges::greater{},
                           [](const auto& each) { return each.second.allocations; });
  fmt::print("\n{}, {}\n", counted(summary.threads, "thread"), counted(streams.size(), "stream"));
  for (std::size_t i = 0; i < std::min(most, streams.size()); ++i) {
    fmt::print("  stream {}: {}, {}\n", streams[i].first,
               counted(streams[i].second.allocations, "allocation"),
               in_units(streams[i].second.bytes));
  }
  if (streams.size() > most) fmt::print("  and {} more\n", streams.size() - most);
}

void print_cycles(const Cycles& cycles) {
  switch (cycles.evidence) {
    case Cycles::Evidence::none:
      fmt::print("No cycles are marked, and none show in the sizes.\n");
      break;
    case Cycles::Evidence::events:
      fmt::print("The program marked {}.\n", counted(cycles.turns, "cycle"));
      break;
    case Cycles::Evidence::repeating_sizes:
      fmt::print("From allocation {} on the sizes repeat: {} of {}.\n",
                 with_commas(cycles.first_allocation), counted(cycles.turns, "turn"),
                 counted(cycles.allocations_per_turn, "allocation"));
      break;
  }
}

void run_info(const InfoArguments& arguments) {
  const LoadedTrace loaded = load(arguments.trace, arguments.device);
  if (arguments.json) return print_json(as_json(loaded));
  const TraceSummary& summary = loaded.summary;
  fmt::print("{}", headline_text(loaded));
  fmt::print("{}, {}, over {}; {} requested in all\n", counted(summary.frees, "free"),
             counted(summary.resets, "reset"), as_time(static_cast<double>(summary.duration_ns)),
             in_units(summary.requested_bytes));
  fmt::print("{} live at the peak, {} of {} at the end\n",
             counted(summary.peak_live_blocks, "block"),
             counted(summary.final_live_blocks, "block"), in_units(summary.final_live_bytes));
  print_sizes(summary);
  print_lifetimes(summary);
  print_streams(summary);
  print_cycles(summary.cycles);
}

}  // namespace

void add_info(CLI::App& app, Job& job) {
  auto arguments = std::make_shared<InfoArguments>();
  CLI::App* command =
      app.add_subcommand("info", "Show what a trace holds: sizes, lifetimes, streams, cycles");
  command->add_option("TRACE", arguments->trace, "A trace of any known format; - is standard input")
      ->required();
  add_device_option(*command, arguments->device);
  command->add_flag("--json", arguments->json, "Print one JSON document");
  command->footer("Example:\n  cistern info snapshot.pickle.gz");
  command->callback([&job, arguments] { job = [arguments] { run_info(*arguments); }; });
}

}  // namespace cistern::command
