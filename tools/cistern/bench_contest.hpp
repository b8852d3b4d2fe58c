// Measures several subjects at one workload so that the machine's moods meet all alike: they take
// turns in rounds, and the median of a subject's rounds counts. In each round a subject is made
// anew, in a process of its own, and warmed up.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "bench_isolated.hpp"

namespace cistern::command {

/// What all rounds found.
struct Standing {
  std::string subject;
  double ns_per_op = 0;  // the median, and the spread around it
  double least = 0;
  double most = 0;
  std::optional<double> reserved_over_live;  // the median
};

class Contest {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t rounds = 5;

  Contest(std::string workload, std::optional<std::size_t> bytes)
      : workload_(std::move(workload)), bytes_(bytes) {}

  [[nodiscard]] const std::string& workload() const noexcept { return workload_; }
  [[nodiscard]] std::optional<std::size_t> bytes() const noexcept {
    return bytes_;
  }  // where all are of one size

  /// Enters a subject: `make()` is a fresh one, `workload` what is done with it. A workload that
  /// has `of_round(n)` is another one in each round.
  template <class Make, class Workload>
  void enter(std::string subject, Make make, Workload workload) {
    rounds_.push_back({std::move(subject), [make, workload = std::move(workload)](
                                               Clock::duration budget, std::size_t round) {
                         if constexpr (requires { workload.of_round(round); }) {
                           return play_round(make, workload.of_round(round), budget);
                         } else {
                           return play_round(make, workload, budget);
                         }
                       }});
  }

  /// A subject that cannot be made here.
  void leave_out(std::string_view subject) {
    std::erase_if(rounds_, [&](const auto& each) { return each.first == subject; });
  }

  /// Each subject has about `seconds` in all, and one turn a round at least. `after_round` is
  /// called after each.
  std::vector<Standing> run(double seconds, const std::function<void()>& after_round) const;

 private:
  using Round = std::function<Sample(Clock::duration budget, std::size_t round)>;

  template <class Make, class Workload>
  static Sample play_round(const Make& make, const Workload& workload, Clock::duration budget) {
    using Subject = std::invoke_result_t<Make>;
    std::unique_ptr<Subject> subject;
    const auto fresh = [&] {
      subject.reset();
      subject.reset(new Subject(make()));  // some can neither be copied nor moved
    };
    fresh();
    for (std::size_t i = 0; i < workload.warm_up_turns(); ++i)
      workload.turn(*subject);
    Clock::duration elapsed{};
    std::size_t turns = 0;
    do {
      if (workload.warm_up_turns() == 0) fresh();
      const Clock::time_point start = Clock::now();
      workload.turn(*subject);
      elapsed += Clock::now() - start;
      ++turns;
    } while (elapsed < budget);
    Sample sample{.ns_per_op = std::chrono::duration<double, std::nano>(elapsed).count() /
                               static_cast<double>(turns * Workload::operations)};
    if (const std::optional<std::size_t> reserved = subject->peak_reserved()) {
      sample.reserved_over_live =
          static_cast<double>(*reserved) / static_cast<double>(workload.peak_live());
    }
    return sample;
  }

  std::string workload_;
  std::optional<std::size_t> bytes_;
  std::vector<std::pair<std::string, Round>> rounds_;
};

}  // namespace cistern::command
