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
#include "trace/block_checker.hpp"
#include "trace/program.hpp"

namespace cistern {
namespace {

using detail::Program;
using detail::Step;
using Clock = std::chrono::steady_clock;

// --- one step after the other ---

struct Slot {
  Block block;
  bool is_granted = false;
};

struct Tally {
  std::uint64_t allocations = 0;
  std::uint64_t frees = 0;
  std::uint64_t failed = 0;
  std::uint64_t refused_frees = 0;
  std::uint64_t live = 0;
  std::uint64_t peak_live = 0;
};

/// What looks on while steps are played; this one does not.
struct Nobody {
  void start() noexcept {}
  void stop() noexcept {}
  void granted(const Step& /*step*/, const Block& /*block*/) {}
  void freed(const Block& /*block*/) {}
};

/// The replay proper: every pass is this loop.
template <class Target, class Observer>
void play(Target& target, std::span<const Step> steps, std::vector<Slot>& slots, Tally& tally,
          Observer& observer) {
  for (const Step& step : steps) {
    Slot& slot = slots[step.slot];
    if (step.kind == Step::Kind::allocate) {
      observer.start();
      const Expected<Block> block = target.try_allocate(step.request());
      observer.stop();
      slot.is_granted = block.has_value();
      if (!slot.is_granted) {
        ++tally.failed;
        continue;
      }
      slot.block = *block;
      ++tally.allocations;
      tally.live += step.bytes;
      tally.peak_live = std::max(tally.peak_live, tally.live);
      observer.granted(step, slot.block);
    } else if (slot.is_granted) {
      observer.freed(slot.block);
      observer.start();
      const bool accepted = target.deallocate(slot.block, {.handle = nullptr, .id = step.stream});
      observer.stop();
      if (!accepted) ++tally.refused_frees;
      ++tally.frees;
      tally.live -= step.bytes;
    }
  }
}

/// A pass over a program, in pieces between which there is time to say how far it is.
class Pass {
 public:
  explicit Pass(const Program& program) : program_(program), slots_(program.slots) {}

  template <class Target, class Observer>
  void before(Target& target, Observer& observer) {
    play(target, program_.before, slots_, tally_, observer);
    initial_failed_ = tally_.failed;
    tally_ =
        Tally{.refused_frees = tally_.refused_frees, .live = tally_.live, .peak_live = tally_.live};
  }

  /// Returns the mean time of an operation, in nanoseconds.
  template <class Target, class Observer>
  double steps(Target& target, Observer& observer, const std::function<void(double)>& progress) {
    constexpr std::size_t piece = std::size_t{1} << 16U;
    const std::span<const Step> all = program_.steps;
    Clock::duration elapsed{};
    for (std::size_t done = 0; done < all.size(); done += piece) {
      if (progress) progress(static_cast<double>(done) / static_cast<double>(all.size()));
      const std::span<const Step> some = all.subspan(done, std::min(piece, all.size() - done));
      const Clock::time_point start = Clock::now();
      play(target, some, slots_, tally_, observer);
      elapsed += Clock::now() - start;
    }
    const std::uint64_t operations = tally_.allocations + tally_.frees + tally_.failed;
    if (operations == 0) return 0;
    return std::chrono::duration<double, std::nano>(elapsed).count() /
           static_cast<double>(operations);
  }

  /// Frees what is left and says whether the stack is empty then.
  template <class Observer>
  std::string after(Resource& stack, Observer& observer) {
    Tally rest{.refused_frees = tally_.refused_frees, .live = tally_.live};
    play(stack, program_.after, slots_, rest, observer);
    if (rest.refused_frees > 0)
      return fmt::format("{} frees of live blocks were refused", rest.refused_frees);
    if (const Stats now = stack.stats();
        now.live_blocks.current != 0 || now.live_granted.current != 0) {
      return fmt::format("every block was freed, and {} blocks of {} bytes are said to be live",
                         now.live_blocks.current, now.live_granted.current);
    }
    stack.trim();
    if (const Stats now = stack.stats(); now.reserved.current != 0 || now.cached.current != 0) {
      return fmt::format("every block was freed, and {} bytes stay reserved after a trim",
                         now.reserved.current);
    }
    return {};
  }

  [[nodiscard]] const Tally& tally() const noexcept { return tally_; }
  [[nodiscard]] std::uint64_t initial_failed() const noexcept { return initial_failed_; }

 private:
  const Program& program_;
  std::vector<Slot> slots_;
  Tally tally_;
  std::uint64_t initial_failed_ = 0;
};

// --- the passes ---

void note(std::string error, ReplayResult& result) {
  if (result.error.empty()) result.error = std::move(error);
}

/// A pass without a clock; what it finds goes to `result` but for the mean, which is returned.
double plain_pass(const Program& program, Stack stack, const std::function<void(double)>& progress,
                  ReplayResult& result) {
  Pass pass(program);
  Nobody nobody;
  pass.before(*stack, nobody);
  const auto* simulated = dynamic_cast<const SimulatedDevice*>(&stack->device());
  const SimulatedDevice::Duration device_start =
      simulated != nullptr ? simulated->virtual_time() : SimulatedDevice::Duration{};
  Measure measure(*stack);
  const double mean = pass.steps(*stack, nobody, progress);
  result.stats = measure.stop();
  if (simulated != nullptr) {
    result.device_time_ns =
        static_cast<std::uint64_t>((simulated->virtual_time() - device_start).count());
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
  [[gnu::noinline]] Expected<Block> try_allocate(Request request) noexcept {
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
std::string timed_pass(const Program& program, Stack stack,
                       const std::function<void(double)>& progress, OperationTimes& times) {
  Pass pass(program);
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
std::string check_pass(const Program& program, Stack stack,
                       const std::function<void(double)>& progress) {
  Pass pass(program);
  Checking checking(stack->device().limits());
  pass.before(*stack, checking);
  pass.steps(*stack, checking, progress);
  std::string broken_law = stack->validate();
  std::string not_empty = pass.after(*stack, checking);
  if (!checking.blocks.error().empty()) return checking.blocks.error();
  if (!broken_law.empty()) return broken_law;
  return not_empty.empty() ? stack->validate() : not_empty;
}

}  // namespace

double ReplayResult::utilisation() const noexcept {
  if (stats.reserved.peak == 0) return 0;
  return static_cast<double>(peak_live_bytes) / static_cast<double>(stats.reserved.peak);
}

ReplayResult replay(const Trace& trace, const std::function<Stack()>& open,
                    const ReplayOptions& options) {
  const Program program = detail::compile(trace);
  ReplayResult result;
  const double passes = options.check ? 3 : 2;
  const auto progress_of = [&](int pass) -> std::function<void(double)> {
    if (!options.progress) return {};
    return [&options, passes, pass](double part) { options.progress((pass + part) / passes); };
  };

  result.ns_per_op.mean =
      median_mean([&] { return plain_pass(program, open(), progress_of(0), result); });
  result.replay_overhead_ns = median_mean([&] { return overhead_pass(program); });
  note(timed_pass(program, open(), progress_of(1), result.ns_per_op), result);
  if (options.check) note(check_pass(program, open(), progress_of(2)), result);
  return result;
}

}  // namespace cistern
