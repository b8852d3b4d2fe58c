#include "bench_contest.hpp"

#include <algorithm>
#include <exception>

#include <fmt/format.h>

namespace cistern::command {
namespace {

Standing standing(const std::string& subject, std::size_t threads, std::vector<Sample> samples) {
  const std::size_t middle = samples.size() / 2;
  std::ranges::sort(samples, {}, &Sample::reserved_over_live);
  const std::optional<double> reserved_over_live = samples[middle].reserved_over_live;
  std::ranges::sort(samples, {}, &Sample::ns_per_op);
  return {.subject = subject,
          .threads = threads,
          .ns_per_op = samples[middle].ns_per_op,
          .least = samples.front().ns_per_op,
          .most = samples.back().ns_per_op,
          .reserved_over_live = reserved_over_live};
}

}  // namespace

std::string workload_name(const Setting& setting) {
  return setting.trace.empty() ? setting.workload : setting.workload + " " + setting.trace;
}

bool is_pair_timed(const Setting& setting) {
  return setting.workload != "churn" && setting.workload != "trace";
}

Sample Contest::play_isolated(const Entry& entry, Clock::duration budget, std::size_t round) const {
  // It warms up for some turns, and the last one begins within the budget.
  const Clock::duration limit = std::chrono::minutes(2) + 2 * budget + 6 * entry.turn_limit;
  return measure_isolated([&] { return entry.play(budget, round); }, limit);
}

Standings Contest::run(double seconds, std::size_t rounds,
                       const std::function<void()>& after_round) const {
  const auto budget = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(seconds / static_cast<double>(rounds)));
  std::vector<std::vector<Sample>> samples(entries_.size());
  std::vector<std::string> failures(entries_.size());
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      if (!failures[i].empty()) continue;
      try {
        samples[i].push_back(play_isolated(entries_[i], budget, round));
      } catch (const std::exception& error) {
        failures[i] = fmt::format("{} on {}, threads: {}: {}", workload_name(setting_),
                                  entries_[i].subject, entries_[i].threads, error.what());
      }
    }
    after_round();
  }
  Standings all;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (failures[i].empty()) {
      all.standings.push_back(standing(entries_[i].subject, entries_[i].threads, samples[i]));
    } else {
      all.failures.push_back(failures[i]);
    }
  }
  return all;
}

}  // namespace cistern::command
