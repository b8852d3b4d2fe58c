#include "cistern/trace/replay.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "cistern/core/device.hpp"
#include "cistern/core/measure.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/device/simulated_queues.hpp"
#include "trace/block_checker.hpp"
#include "trace/follower.hpp"
#include "trace/pass.hpp"
#include "trace/program.hpp"

namespace cistern {
namespace {

using detail::Clock;
using detail::Follower;
using detail::Nobody;
using detail::Pass;
using detail::Program;
using detail::Step;

/// A fresh stack, and what makes it follow a recording, if something does.
struct Opened {
  Stack stack;
  std::optional<Follower> follower;

  Opened(const Trace& trace, const RecordedLayout* layout, Stack opened)
      : stack(std::move(opened)) {
    if (layout != nullptr) follower.emplace(trace, *layout, stack);
  }
  [[nodiscard]] Pass pass(const Program& program) {
    return Pass(program, follower ? &*follower : nullptr);
  }
};

void note(std::string error, ReplayResult& result) {
  if (result.error.empty()) result.error = std::move(error);
}

/// What was waited for so far; nothing where the device has no queues to be seen.
std::optional<StreamWaits> waits_so_far(const SimulatedDevice* device) {
  const SimulatedQueues* queues = device != nullptr ? device->queues() : nullptr;
  if (queues == nullptr) return std::nullopt;
  return StreamWaits{.of_streams = queues->waits(), .of_host = queues->synchronizations()};
}

/// A pass without a clock; what it finds goes to `result` but for the mean, which is returned.
double plain_pass(const Program& program, Opened opened,
                  const std::function<void(double)>& progress, ReplayResult& result) {
  Stack& stack = opened.stack;
  Pass pass = opened.pass(program);
  Nobody nobody;
  pass.before(*stack, nobody);
  const auto* simulated = dynamic_cast<const SimulatedDevice*>(&stack->device());
  const SimulatedDevice::Duration device_start =
      simulated != nullptr ? simulated->virtual_time() : SimulatedDevice::Duration{};
  const std::optional<StreamWaits> waits_at_start = waits_so_far(simulated);
  Measure measure(*stack);
  const double mean = pass.steps(*stack, nobody, progress);
  result.stats = measure.stop();
  if (simulated != nullptr) {
    result.device_time_ns =
        static_cast<std::uint64_t>((simulated->virtual_time() - device_start).count());
  }
  result.waits = waits_so_far(simulated);
  if (result.waits) {
    result.waits->of_streams -= waits_at_start->of_streams;
    result.waits->of_host -= waits_at_start->of_host;
  }
  result.allocations = pass.tally().allocations;
  result.frees = pass.tally().frees;
  result.failed = pass.tally().failed;
  result.initial_failed = pass.initial_failed();
  result.peak_live_bytes = pass.tally().peak_live;
  note(pass.after(*stack, nobody), result);
  return mean;
}

/// An allocator that does nothing, and of which the compiler knows nothing.
struct DoNothing {
  [[gnu::noinline]] Expected<Block> try_allocate(const Request& request) noexcept {
    asm volatile("" : : : "memory");
    return Block{.bytes = request.bytes, .requested = request.bytes};
  }
  [[gnu::noinline]] bool deallocate(const Block& /*block*/, Stream /*stream*/) noexcept {
    asm volatile("" : : : "memory");
    return true;
  }
};

double overhead_pass(const Program& program) {
  DoNothing nothing;
  Nobody nobody;
  Pass pass(program);
  pass.before(nothing, nobody);
  return pass.steps(nothing, nobody, {});
}

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The median of an odd number of means: one for a long trace, more while they take no time to
/// speak of.
template <class OnePass>
double median_mean(OnePass&& one_pass) {
  constexpr auto no_time = std::chrono::milliseconds(20);
  constexpr std::size_t most = 9;
  std::vector<double> means;
  const Clock::time_point start = Clock::now();
  do {
    means.push_back(one_pass());
  } while (means.size() % 2 == 0 || (means.size() < most && Clock::now() - start < no_time));
  return median(means);
}

/// Reads the clock around every operation.
struct Stopwatch : Nobody {
  void start() noexcept { started = Clock::now(); }
  void stop() noexcept {
    ns.push_back(std::chrono::duration<double, std::nano>(Clock::now() - started).count());
  }

  Clock::time_point started;
  std::vector<double> ns;  // room for all is made in advance
};

/// What reading the clock adds to a time: the median of many times of nothing.
double clock_cost() {
  constexpr std::size_t readings = 1001;
  Stopwatch watch;
  watch.ns.reserve(readings);
  for (std::size_t i = 0; i < readings; ++i) {
    watch.start();
    watch.stop();
  }
  return median(watch.ns);
}

/// The nearest-rank percentile; reorders `values`, which are not empty.
double percentile(std::vector<double>& values, std::size_t percent) {
  const std::size_t rank = (values.size() * percent + 99) / 100;
  const auto place =
      values.begin() + static_cast<std::ptrdiff_t>(std::max<std::size_t>(rank, 1) - 1);
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

/// Measures the operations one by one. Returns what the stack did wrong.
std::string timed_pass(const Program& program, Opened opened,
                       const std::function<void(double)>& progress, OperationTimes& times) {
  Stack& stack = opened.stack;
  Pass pass = opened.pass(program);
  Nobody nobody;
  pass.before(*stack, nobody);
  Stopwatch watch;
  watch.ns.reserve(program.steps.size());
  pass.steps(*stack, watch, progress);
  if (!watch.ns.empty()) {
    const double cost = clock_cost();
    const auto less_cost = [&](double ns) { return std::max(0.0, ns - cost); };
    times.p50 = less_cost(percentile(watch.ns, 50));
    times.p99 = less_cost(percentile(watch.ns, 99));
    times.max = less_cost(percentile(watch.ns, 100));
  }
  return pass.after(*stack, nobody);
}

struct Checking : Nobody {
  explicit Checking(const DeviceLimits& limits) : blocks(limits) {}
  void granted(const Step& step, const Block& block) { blocks.granted(step.request(), block); }
  void freed(const Block& block) { blocks.freed(block); }

  detail::BlockChecker blocks;
};

/// Holds every block against the laws. Returns what the stack did wrong.
std::string check_pass(const Program& program, Opened opened,
                       const std::function<void(double)>& progress) {
  Stack& stack = opened.stack;
  Pass pass = opened.pass(program);
  Checking checking(stack->device().limits());
  pass.before(*stack, checking);
  pass.steps(*stack, checking, progress);
  std::string broken_law = stack->validate();
  std::string not_empty = pass.after(*stack, checking);
  if (!checking.blocks.error().empty()) return checking.blocks.error();
  if (!broken_law.empty()) return broken_law;
  return not_empty.empty() ? stack->validate() : not_empty;
}

/// Compares addresses with the recorded ones, which stand beside the steps.
struct Comparing : Nobody {
  void granted(const Step& step, const Block& block) {
    const auto address = reinterpret_cast<std::uintptr_t>(block.memory) + block.offset;
    if (address == addresses[static_cast<std::size_t>(&step - first_step)]) ++matches;
  }

  const Step* first_step = nullptr;
  std::span<const std::uint64_t> addresses;
  std::uint64_t matches = 0;
};

/// Says how far the stack follows the recording.
FollowedAddresses compare_pass(const Program& program, const RecordedLayout& layout, Opened opened,
                               const std::function<void(double)>& progress) {
  Pass pass = opened.pass(program);
  Nobody nobody;
  Comparing comparing;
  comparing.addresses = layout.addresses;
  comparing.first_step = program.steps.data();
  pass.before(*opened.stack, nobody);
  pass.steps(*opened.stack, comparing, progress);
  const std::uint64_t followed = opened.follower->followed();
  pass.free_rest(*opened.stack, nobody);

  using Kind = RecordedLayout::Change::Kind;
  const auto obtained = std::count_if(
      layout.changes.begin(), layout.changes.end(),
      [](const RecordedLayout::Change& change) { return change.kind == Kind::obtained; });
  const std::uint64_t segments = layout.segments.size() + static_cast<std::uint64_t>(obtained);
  const std::uint64_t allocations = pass.tally().allocations + pass.tally().failed;
  return {.matches = comparing.matches,
          .mismatches = allocations - comparing.matches,
          .segments_followed = followed,
          .segments_missed = segments - followed};
}

/// The peak of what is reserved in each of some turns on one stack.
std::vector<std::uint64_t> peaks_of_turns(const Program& program, const Stack& stack,
                                          std::size_t turns,
                                          const std::function<void(double)>& progress) {
  std::vector<std::uint64_t> peaks;
  peaks.reserve(turns);
  for (std::size_t turn = 0; turn < turns; ++turn) {
    if (progress) progress(static_cast<double>(turn) / static_cast<double>(turns));
    Pass pass(program);
    Nobody nobody;
    stack->reset_peaks();
    stack->cycle();
    pass.before(*stack, nobody);
    pass.steps(*stack, nobody, {});
    pass.free_rest(*stack, nobody);
    peaks.push_back(stack->stats().reserved.peak);
  }
  return peaks;
}

/// Throws std::invalid_argument if the options make no sense for the trace.
void require_sense(const Trace& trace, const ReplayOptions& options) {
  if (options.turns == 0) throw std::invalid_argument("a replay has at least one turn");
  const RecordedLayout* layout = options.follow;
  if (layout == nullptr) return;
  if (options.turns > 1)
    throw std::invalid_argument(
        "a recording is followed once: addresses of a second turn are not known");
  const auto is_change_beyond = [&](const RecordedLayout::Change& change) {
    return change.event > trace.events.size();
  };
  const auto is_other = [](const Event& event) {
    return event.operation != Operation::allocate && event.operation != Operation::free;
  };
  if (layout->addresses.size() != trace.events.size() ||
      layout->initial_blocks.size() != trace.initial_blocks.size() ||
      std::any_of(layout->changes.begin(), layout->changes.end(), is_change_beyond) ||
      std::any_of(trace.events.begin(), trace.events.end(), is_other))
    throw std::invalid_argument("the layout is not of this trace");
}

}  // namespace

double ReplayResult::utilisation() const noexcept {
  if (stats.reserved.peak == 0) return 0;
  return static_cast<double>(peak_live_bytes) / static_cast<double>(stats.reserved.peak);
}

ReplayResult replay(const Trace& trace, const std::function<Stack()>& open,
                    const ReplayOptions& options) {
  require_sense(trace, options);
  const Program program = detail::compile(trace);
  ReplayResult result;
  const auto opened = [&] { return Opened(trace, options.follow, open()); };
  const double passes = 2 + (options.check ? 1 : 0) + (options.follow != nullptr ? 1 : 0) +
                        (options.turns > 1 ? static_cast<double>(options.turns) : 0);
  double before = 0;  // passes that are done
  const auto next_progress = [&]() -> std::function<void(double)> {
    if (!options.progress) return {};
    return [&options, passes, pass = before++](double part) {
      options.progress((pass + part) / passes);
    };
  };

  const auto progress = next_progress();
  result.ns_per_op.mean =
      median_mean([&] { return plain_pass(program, opened(), progress, result); });
  result.replay_overhead_ns = median_mean([&] { return overhead_pass(program); });
  note(timed_pass(program, opened(), next_progress(), result.ns_per_op), result);
  if (options.check) note(check_pass(program, opened(), next_progress()), result);
  if (options.follow != nullptr)
    result.addresses = compare_pass(program, *options.follow, opened(), next_progress());
  result.peak_reserved_per_turn = {result.stats.reserved.peak};
  if (options.turns > 1) {
    result.peak_reserved_per_turn = peaks_of_turns(program, open(), options.turns, next_progress());
  }
  return result;
}

}  // namespace cistern
