// `cistern bench`: our stacks beside other allocators, each in processes of its own.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "bench_contest.hpp"
#include "bench_peers.hpp"
#include "bench_subjects.hpp"
#include "bench_svg.hpp"
#include "bench_trace.hpp"
#include "bench_workloads.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/stack/stack.hpp"
#include "cistern/stack/units.hpp"
#include "command.hpp"
#include "load.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "save.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace cistern::command {
namespace {

using namespace cistern::literals;

/// All that need no file.
constexpr std::array<std::string_view, 7> known_workloads{
    "pair", "token", "token_touched", "token_reset", "churn", "growth", "producer_consumer"};

/// 1, 2, and as many as the machine runs at once.
std::vector<std::size_t> usual_threads() {
  std::vector<std::size_t> counts{1, 2};
  if (std::thread::hardware_concurrency() > 2)
    counts.push_back(std::thread::hardware_concurrency());
  return counts;
}

struct BenchArguments {
  std::vector<std::string> words;  // the workloads, as they were written
  std::vector<std::string> stacks;
  std::vector<std::size_t> threads = usual_threads();
  std::vector<std::size_t> sizes{256, 4_KiB, 64_KiB, 256_KiB, 1_MiB, 16_MiB, 256_MiB};  // of `pair`
  std::size_t rounds = 5;
  std::optional<int> device;
  double seconds = 0.3;
  std::string svg;  // a folder
  bool json = false;
};

struct ChosenWorkload {
  std::string name;
  std::string file;  // of `trace`
};

std::vector<ChosenWorkload> chosen_workloads(const std::vector<std::string>& words) {
  std::vector<ChosenWorkload> chosen;
  for (auto word = words.begin(); word != words.end(); ++word) {
    if (*word == "trace") {
      if (++word == words.end()) throw WrongArguments("trace: the name of its file is missing");
      if (*word != "-" && !std::filesystem::exists(*word))
        throw WrongArguments(fmt::format("trace: there is no file '{}'", *word));
      chosen.push_back({.name = "trace", .file = *word});
    } else if (std::ranges::count(known_workloads, *word) > 0) {
      chosen.push_back({.name = *word, .file = ""});
    } else {
      throw WrongArguments(fmt::format("there is no workload '{}' (there are {}, trace FILE)",
                                       *word, fmt::join(known_workloads, ", ")));
    }
  }
  return chosen;
}

std::string said_of_missing(const PeerLibrary& peer) {
  return fmt::format("{} is left out: {} cannot be opened; the package {} brings it.", peer.subject,
                     peer.library, peer.package);
}

template <class Workload>
Contest contest_of_all(const BenchArguments& arguments, Setting setting, const Workload& workload) {
  Contest contest(std::move(setting));
  each_subject(arguments.stacks, [&](const std::string& subject, auto make) {
    contest.enter(subject, make, workload);
  });
  return contest;
}

/// Those of `threads` whose blocks, `bytes` each, fit into half of the machine's memory. The others
/// are named on standard error. Throws JobFailed if there are none.
std::vector<std::size_t> threads_with_room(std::vector<std::size_t> threads, std::size_t bytes) {
  const std::size_t room = make<HostDevice>()->limits().total_memory / 2;
  const std::size_t most = std::max<std::size_t>(room / bytes, 1);
  std::erase_if(threads, [&](std::size_t count) {
    if (count <= most) return false;
    fmt::print(stderr,
               "cistern: token_touched on {} threads is left out: their blocks, {} each, take more "
               "than half of the machine's memory, which is enough for {}\n",
               count, in_units(bytes), most);
    return true;
  });
  if (threads.empty()) throw JobFailed("token_touched: there is no room for so many threads");
  return threads;
}

Contest trace_contest(const BenchArguments& arguments, const std::string& file) {
  const LoadedTrace loaded = load(file, arguments.device);
  return contest_of_all(arguments, {.workload = "trace", .trace = loaded.trace.name},
                        TraceTurn(loaded.trace));
}

void add_contests(const ChosenWorkload& chosen, const BenchArguments& arguments,
                  std::vector<Contest>& contests) {
  const Setting alone{.workload = chosen.name};
  const Setting shared{.workload = chosen.name, .threads = arguments.threads};
  if (chosen.name == "pair") {
    for (const std::size_t bytes : arguments.sizes) {
      Setting setting = shared;
      setting.bytes = bytes;
      contests.push_back(contest_of_all(arguments, setting, Pair{.bytes = bytes}));
    }
  } else if (chosen.name == "token") {
    contests.push_back(contest_of_all(arguments, shared, Token{}));
    contests.back().enter(
        "cistern:arena", [] { return OwnedStackSubject("arena > cache > host"); }, Token{});
    contests.back().enter(
        "cistern:planned", [] { return OwnedStackSubject("planned > cache > host"); }, Token{});
  } else if (chosen.name == "token_touched") {
    const Token touched{.is_touched = true};
    Setting setting = shared;
    setting.threads = threads_with_room(arguments.threads, touched.peak_live());
    contests.push_back(contest_of_all(arguments, setting, touched));
  } else if (chosen.name == "token_reset") {
    Contest contest(alone);
    each_arena([&](const char* subject, auto make) { contest.enter(subject, make, TokenReset{}); });
    contests.push_back(std::move(contest));
  } else if (chosen.name == "churn") {
    Contest contest(shared);
    each_placer(arguments.stacks, [&](const std::string& subject, auto make) {
      contest.enter(subject, make, Churn{});
    });
    contests.push_back(std::move(contest));
  } else if (chosen.name == "growth") {
    contests.push_back(contest_of_all(arguments, alone, Growth{}));
  } else if (chosen.name == "producer_consumer") {
    contests.push_back(
        contest_of_all(arguments, {.workload = chosen.name, .threads = {2}}, ProducerConsumer{}));
  } else {
    contests.push_back(trace_contest(arguments, chosen.file));
  }
}

/// One picture for each workload of which something was measured, in the order in which they were.
void draw(const std::string& folder, std::span<const Measured> measured) {
  while (!measured.empty()) {
    const std::string name = workload_name(measured.front().setting);
    const auto next = std::ranges::find_if(
        measured, [&](const Measured& each) { return workload_name(each.setting) != name; });
    const auto count = static_cast<std::size_t>(next - measured.begin());
    std::string file = name + ".svg";
    std::ranges::replace(file, ' ', '-');
    std::ranges::replace(file, '/', '-');
    const auto of_one = measured.first(count);
    const bool has_any =
        std::ranges::any_of(of_one, [](const Measured& each) { return !each.standings.empty(); });
    if (has_any) save(std::filesystem::path(folder) / file, bench_picture(of_one));
    measured = measured.subspan(count);
  }
}

Json as_json(const Setting& setting, const Standing& standing) {
  Json json{{"workload", setting.workload}};
  if (setting.bytes) json["bytes"] = *setting.bytes;
  if (!setting.trace.empty()) json["trace"] = setting.trace;
  json["threads"] = standing.threads;
  json["subject"] = standing.subject;
  json["ns_per_op"] = standing.ns_per_op;
  json["ns_per_op_least"] = standing.least;
  json["ns_per_op_most"] = standing.most;
  json["reserved_over_live"] = nullptr;
  if (standing.reserved_over_live) json["reserved_over_live"] = *standing.reserved_over_live;
  return json;
}

void print_standings(const Measured& measured) {
  const Setting& setting = measured.setting;
  std::string title = workload_name(setting);
  if (setting.bytes)
    title += " " + format_size(*setting.bytes) + (*setting.bytes < 1_KiB ? "B" : "");
  Table table({title, "threads", is_pair_timed(setting) ? "a pair" : "an operation", "from", "to",
               "reserved/live"});
  for (const Standing& each : measured.standings) {
    table.add(
        {each.subject, with_commas(each.threads), as_time(each.ns_per_op), as_time(each.least),
         as_time(each.most),
         each.reserved_over_live ? fmt::format("{:.3f}", *each.reserved_over_live) : "unknown"});
  }
  fmt::print("{}\n", table.text(columns()));
}

void run_bench(const BenchArguments& arguments) {
  if (!(arguments.seconds > 0 && arguments.seconds <= 3600)) {  // nor is it no number
    throw WrongArguments("--seconds: more than 0 and at most 3600");
  }
  const std::vector<ChosenWorkload> chosen = chosen_workloads(arguments.words);
  for (const std::string& stack : arguments.stacks) {
    if (const auto checked = check(stack); !checked) throw StackError(checked.error());
  }
  make_room_for_peers();
  const std::vector<PeerLibrary> missing = missing_peers();
  std::vector<Contest> contests;
  for (const ChosenWorkload& each : chosen)
    add_contests(each, arguments, contests);
  for (Contest& contest : contests) {
    for (const PeerLibrary& peer : missing)
      contest.leave_out(peer.subject);
  }

  Json document{
      {"results", Json::array()}, {"missing_peers", Json::array()}, {"failures", Json::array()}};
  for (const PeerLibrary& peer : missing) {
    document["missing_peers"].push_back(
        {{"subject", peer.subject}, {"library", peer.library}, {"package", peer.package}});
  }
  if (!arguments.svg.empty()) std::filesystem::create_directories(arguments.svg);
  std::vector<Measured> measured;
  Progress progress("measuring");
  std::size_t rounds = 0;
  const auto after_round = [&] {
    progress.update(static_cast<double>(++rounds) /
                    static_cast<double>(contests.size() * arguments.rounds));
  };
  for (Contest& next : contests) {
    const Contest contest = std::move(next);  // a trace may be large: it goes when it is measured
    Standings found = contest.run(arguments.seconds, arguments.rounds, after_round);
    measured.push_back({.setting = contest.setting(), .standings = std::move(found.standings)});
    progress.wipe();
    if (!arguments.json) print_standings(measured.back());
    std::fflush(stdout);  // so that a failure stands behind the table it is missing in
    for (const std::string& failure : found.failures) {
      fmt::print(stderr, "cistern: {}\n", failure);
      document["failures"].push_back(failure);
    }
    for (const Standing& standing : measured.back().standings)
      document["results"].push_back(as_json(contest.setting(), standing));
  }
  if (!arguments.svg.empty()) draw(arguments.svg, measured);
  if (arguments.json) {
    print_json(document);
  } else {
    fmt::print(
        "A pair is an allocation and its free: the median of {}, in which the subjects\n"
        "take turns, with the fastest and the slowest round. Threads share the subject; the\n"
        "time is that of a thread for what it does itself.\n",
        counted(arguments.rounds, "round"));
    const auto is_chosen = [&](std::string_view name) {
      return std::ranges::count(chosen, name, &ChosenWorkload::name) > 0;
    };
    if (is_chosen("churn") || is_chosen("trace"))
      fmt::print("In churn and a trace an operation is an allocation or a free.\n");
    if (is_chosen("churn")) fmt::print("Each round of churn has a seed of its own.\n");
    if (is_chosen("token_reset"))
      fmt::print("In token_reset all blocks of a turn are given back at once.\n");
    for (const PeerLibrary& peer : missing)
      fmt::print("{}\n", said_of_missing(peer));
  }
  if (const std::size_t failures = document["failures"].size(); failures > 0)
    throw JobFailed(fmt::format("{} failed", counted(failures, "measurement")));
}

}  // namespace

void add_bench(CLI::App& app, Job& job) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* command = app.add_subcommand("bench", "Measure stacks beside other allocators");
  arguments->words.assign(known_workloads.begin(), known_workloads.end());
  command->add_option("WORKLOAD", arguments->words,
                      fmt::format("{} or trace FILE; all but a trace if none is named",
                                  fmt::join(known_workloads, ", ")));
  command
      ->add_option("--stack", arguments->stacks,
                   "A stack to measure besides, except in token_reset; repeatable")
      ->type_name("STACK")
      ->allow_extra_args(false);
  add_device_option(*command, arguments->device);
  command
      ->add_option("--threads", arguments->threads,
                   "How many share a subject in pair, token, token_touched and churn; repeatable")
      ->type_name("N")
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--bytes", arguments->sizes, "The sizes of pair; repeatable")
      ->type_name("N")
      ->allow_extra_args(false)
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--rounds", arguments->rounds, "How often each subject is made anew")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      ->add_option("--seconds", arguments->seconds,
                   "For each subject at each workload and number of threads, about")
      ->capture_default_str();
  command->add_option("--svg", arguments->svg, "Draw a picture of each workload into this folder")
      ->type_name("DIR");
  command->add_flag("--json", arguments->json, "Print one JSON document");
  command->footer(
      "Example:\n"
      "  cistern bench pair token --seconds 1\n"
      "  cistern bench trace snapshot.pickle.gz --stack 'tier(B) > host'");
  command->callback([&job, arguments] { job = [arguments] { run_bench(*arguments); }; });
}

}  // namespace cistern::command
