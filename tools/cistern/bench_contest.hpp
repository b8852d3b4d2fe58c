// Measures several subjects at one workload so that the machine's moods meet all alike: they take
// turns in rounds, and the median of a subject's rounds counts. In each round a subject is made
// anew, in a process of its own, and warmed up. Threads that share a subject begin together.
#pragma once

#include <barrier>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "bench_isolated.hpp"

namespace cistern::command {

/// What is done with the subjects.
struct Setting {
  std::string workload;
  std::optional<std::size_t> bytes{};   // where all blocks are of one size
  std::string trace{};                  // the file's name, where one is played
  std::vector<std::size_t> threads{1};  // each subject is measured on each number of them
};

/// "pair", "trace small.trace".
[[nodiscard]] std::string workload_name(const Setting& setting);

/// Whether an operation is an allocation with its free, and not each of the two.
[[nodiscard]] bool is_pair_timed(const Setting& setting);

/// What all rounds found.
struct Standing {
  std::string subject;
  std::size_t threads = 1;
  double ns_per_op = 0;  // the median, and the spread around it
  double least = 0;
  double most = 0;
  std::optional<double> reserved_over_live;  // the median
};

struct Standings {
  std::vector<Standing> standings;
  std::vector<std::string> failures;  // of the other subjects, each with its name and why
};

class Contest {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Contest(Setting setting) : setting_(std::move(setting)) {}

  [[nodiscard]] const Setting& setting() const noexcept { return setting_; }

  /// Enters a subject: `make()` is a fresh one, `workload` what each thread does with it. A
  /// workload that has `of_round(n)` is another one in each round. A subject that has
  /// `is_for_one_thread` is measured on one only.
  template <class Make, class Workload>
  void enter(const std::string& subject, Make make, const Workload& workload) {
    for (const std::size_t threads : setting_.threads) {
      if (requires { std::invoke_result_t<Make>::is_for_one_thread; } && threads > 1) continue;
      entries_.push_back({.subject = subject,
                          .threads = threads,
                          .turn_limit = operation_limit * (workload.operations * threads),
                          .play = [=](Clock::duration budget, std::size_t round) {
                            if constexpr (requires { workload.of_round(round); }) {
                              return play_round(make, workload.of_round(round), threads, budget);
                            } else {
                              return play_round(make, workload, threads, budget);
                            }
                          }});
    }
  }

  /// A subject that cannot be made here.
  void leave_out(std::string_view subject) {
    std::erase_if(entries_, [&](const Entry& each) { return each.subject == subject; });
  }

  /// Each subject has about `seconds` in all on each number of threads, and one turn a round at
  /// least. One of which a round fails or does not end has no more of them. `after_round` is called
  /// after each.
  [[nodiscard]] Standings run(double seconds, std::size_t rounds,
                              const std::function<void()>& after_round) const;

 private:
  /// None takes so long: what does, hangs.
  static constexpr std::chrono::microseconds operation_limit{100};

  struct Entry {
    std::string subject;
    std::size_t threads = 1;
    Clock::duration turn_limit;
    std::function<Sample(Clock::duration budget, std::size_t round)> play;
  };

  [[nodiscard]] Sample play_isolated(const Entry& entry, Clock::duration budget,
                                     std::size_t round) const;

  /// What was timed; of several threads, the sums.
  struct Timed {
    Clock::duration elapsed{};
    std::size_t turns = 0;

    Timed& operator+=(const Timed& other) noexcept {
      elapsed += other.elapsed;
      turns += other.turns;
      return *this;
    }
  };

  template <class Make, class Workload>
  static Sample play_round(const Make& make, const Workload& workload, std::size_t threads,
                           Clock::duration budget) {
    using Subject = std::invoke_result_t<Make>;
    const std::size_t players = requires {
      Workload::brings_threads;
    }
    ? 1 : threads;
    Timed timed;
    std::optional<std::size_t> reserved;
    do {  // what is not warmed up takes one turn, and then another subject
      const std::unique_ptr<Subject> subject(
          new Subject(make()));  // some can neither be copied nor moved
      timed += play_together(*subject, workload, players, budget);
      reserved = subject->peak_reserved();
    } while (timed.elapsed < budget);
    Sample sample{.ns_per_op = std::chrono::duration<double, std::nano>(timed.elapsed).count() /
                               static_cast<double>(timed.turns * workload.operations)};
    // How much of what several threads held was live at one time nobody knows.
    if (reserved && threads == 1) {
      sample.reserved_over_live =
          static_cast<double>(*reserved) / static_cast<double>(workload.peak_live());
    }
    return sample;
  }

  template <class Subject, class Workload>
  static Timed play_together(Subject& subject, const Workload& workload, std::size_t threads,
                             Clock::duration budget) {
    std::vector<Timed> timed(threads);
    std::barrier start(static_cast<std::ptrdiff_t>(threads));
    const auto play_one = [&](std::size_t thread) {
      try {
        for (std::size_t i = 0; i < workload.warm_up_turns(); ++i)
          workload.turn(subject);
        start.arrive_and_wait();
        timed[thread] = play(subject, workload, budget);
      } catch (const std::exception& error) {
        fail_isolated(error);  // others may wait for this thread
      }
    };
    std::vector<std::thread> others;  // none for one thread: some allocators notice the first
    try {
      for (std::size_t thread = 1; thread < threads; ++thread)
        others.emplace_back(play_one, thread);
    } catch (const std::exception& error) {
      fail_isolated(error);  // those that were started wait for the rest
    }
    play_one(0);
    for (std::thread& other : others)
      other.join();
    return std::accumulate(timed.begin(), timed.end(), Timed{},
                           [](Timed sum, const Timed& each) { return sum += each; });
  }

  template <class Subject, class Workload>
  static Timed play(Subject& subject, const Workload& workload, Clock::duration budget) {
    Timed timed;
    do {
      const Clock::time_point start = Clock::now();
      workload.turn(subject);
      timed += {.elapsed = Clock::now() - start, .turns = 1};
    } while (workload.warm_up_turns() > 0 && timed.elapsed < budget);
    return timed;
  }

  Setting setting_;
  std::vector<Entry> entries_;
};

}  // namespace cistern::command
