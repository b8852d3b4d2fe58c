// `cistern bench`: our stacks beside other allocators, each in processes of its own.
#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "bench_contest.hpp"
#include "bench_peers.hpp"
#include "bench_subjects.hpp"
#include "bench_workloads.hpp"
#include "cistern/core/size.hpp"
#include "cistern/stack/units.hpp"
#include "command.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace cistern::command {
namespace {

using namespace cistern::literals;

constexpr std::array pair_sizes{4_KiB, 64_KiB, 1_MiB, 16_MiB};

const std::vector<std::size_t> one_thread{1};

/// 1, 2, and as many as the machine runs at once.
std::vector<std::size_t> usual_threads() {
  std::vector<std::size_t> counts{1, 2};
  if (std::thread::hardware_concurrency() > 2)
    counts.push_back(std::thread::hardware_concurrency());
  return counts;
}

struct BenchArguments {
  std::vector<std::string> workloads{"pair",        "token", "token_touched",
                                     "token_reset", "churn", "growth"};
  std::vector<std::size_t> threads = usual_threads();
  double seconds = 0.3;
  bool json = false;
};

std::string said_of_missing(const PeerLibrary& peer) {
  return fmt::format("{} is left out: {} cannot be opened; the package {} brings it.", peer.subject,
                     peer.library, peer.package);
}

template <class Workload>
Contest contest_of_all(const std::string& name, std::optional<std::size_t> bytes,
                       const std::vector<std::size_t>& threads, const Workload& workload) {
  Contest contest(name, bytes, threads);
  each_subject([&](const char* subject, auto make) { contest.enter(subject, make, workload); });
  return contest;
}

void add_contests(const std::string& workload, const std::vector<std::size_t>& threads,
                  std::vector<Contest>& contests) {
  if (workload == "pair") {
    for (const std::size_t bytes : pair_sizes)
      contests.push_back(contest_of_all(workload, bytes, threads, Pair{.bytes = bytes}));
  } else if (workload == "token") {
    contests.push_back(contest_of_all(workload, std::nullopt, threads, Token{}));
    contests.back().enter(
        "cistern:arena", [] { return OwnedStackSubject("arena > cache > host"); }, Token{});
    contests.back().enter(
        "cistern:planned", [] { return OwnedStackSubject("planned > cache > host"); }, Token{});
  } else if (workload == "token_reset") {
    Contest contest(workload, std::nullopt, one_thread);
    each_arena([&](const char* subject, auto make) { contest.enter(subject, make, TokenReset{}); });
    contests.push_back(std::move(contest));
  } else if (workload == "token_touched") {
    contests.push_back(contest_of_all(workload, std::nullopt, threads, Token{.is_touched = true}));
  } else if (workload == "churn") {
    Contest contest(workload, std::nullopt, threads);
    each_placer([&](const char* subject, auto make) { contest.enter(subject, make, Churn{}); });
    contests.push_back(std::move(contest));
  } else {
    contests.push_back(contest_of_all(workload, std::nullopt, one_thread, Growth{}));
  }
}

Json as_json(const Contest& contest, const Standing& standing) {
  Json json{{"workload", contest.workload()}};
  if (contest.bytes()) json["bytes"] = *contest.bytes();
  json["threads"] = standing.threads;
  json["subject"] = standing.subject;
  json["ns_per_op"] = standing.ns_per_op;
  json["ns_per_op_least"] = standing.least;
  json["ns_per_op_most"] = standing.most;
  json["reserved_over_live"] = nullptr;
  if (standing.reserved_over_live) json["reserved_over_live"] = *standing.reserved_over_live;
  return json;
}

void print_standings(const Contest& contest, const std::vector<Standing>& standings) {
  std::string title = contest.workload();
  if (contest.bytes()) title += " " + format_size(*contest.bytes());
  const bool is_churn = contest.workload() == "churn";
  Table table(
      {title, "threads", is_churn ? "an operation" : "a pair", "from", "to", "reserved/live"});
  for (const Standing& each : standings) {
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
  make_room_for_peers();
  const std::vector<PeerLibrary> missing = missing_peers();
  std::vector<Contest> contests;
  for (const std::string& workload : arguments.workloads)
    add_contests(workload, arguments.threads, contests);

  for (Contest& contest : contests) {
    for (const PeerLibrary& peer : missing)
      contest.leave_out(peer.subject);
  }

  Json document{{"results", Json::array()}, {"missing_peers", Json::array()}};
  for (const PeerLibrary& peer : missing) {
    document["missing_peers"].push_back(
        {{"subject", peer.subject}, {"library", peer.library}, {"package", peer.package}});
  }
  Progress progress("measuring");
  std::size_t rounds = 0;
  const auto after_round = [&] {
    progress.update(static_cast<double>(++rounds) /
                    static_cast<double>(contests.size() * Contest::rounds));
  };
  for (const Contest& contest : contests) {
    const std::vector<Standing> standings = contest.run(arguments.seconds, after_round);
    if (!arguments.json) {
      progress.wipe();
      print_standings(contest, standings);
    }
    for (const Standing& standing : standings)
      document["results"].push_back(as_json(contest, standing));
  }
  if (arguments.json) {
    print_json(document);
  } else {
    fmt::print(
        "A pair is an allocation and its free: the median of {} rounds, in which the subjects\n"
        "take turns, with the fastest and the slowest round. Threads share the subject; the\n"
        "time is that of a thread for what it does itself. Each round of churn has a seed of\n"
        "its own; an operation is an allocation or a free. In token_reset all blocks of a turn\n"
        "are given back at once.\n",
        Contest::rounds);
    for (const PeerLibrary& peer : missing)
      fmt::print("{}\n", said_of_missing(peer));
  }
}

}  // namespace

void add_bench(CLI::App& app, Job& job) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* command = app.add_subcommand("bench", "Measure stacks beside other allocators");
  command
      ->add_option("WORKLOAD", arguments->workloads,
                   "pair, token, token_touched, token_reset, churn, growth; all if none is named")
      ->check(CLI::IsMember(arguments->workloads));
  command
      ->add_option("--threads", arguments->threads,
                   "How many share a subject in pair, token, token_touched and churn; repeatable")
      ->type_name("N")
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command
      ->add_option("--seconds", arguments->seconds,
                   "For each subject at each workload and number of threads, about")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON document");
  command->footer("Example:\n  cistern bench pair token --seconds 1");
  command->callback([&job, arguments] { job = [arguments] { run_bench(*arguments); }; });
}

}  // namespace cistern::command
