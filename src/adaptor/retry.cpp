#include "cistern/adaptor/retry.hpp"

#include <algorithm>
#include <utility>

#include "cistern/core/device.hpp"
#include "cistern/core/report.hpp"
#include "cistern/core/size.hpp"

namespace cistern {
namespace {

// While a thread recovers a request, its other requests (of a callback, of a pool on the way) are
// not recovered: they would begin again what is under way.
thread_local bool is_recovering = false;

class RecoveringThread {
 public:
  RecoveringThread() noexcept { is_recovering = true; }
  RecoveringThread(const RecoveringThread&) = delete;
  RecoveringThread& operator=(const RecoveringThread&) = delete;
  RecoveringThread(RecoveringThread&&) = delete;
  RecoveringThread& operator=(RecoveringThread&&) = delete;
  ~RecoveringThread() { is_recovering = false; }
};

// What was tried for the request of this thread that failed last, for the report of it.
struct Tried {
  const Retry* stage = nullptr;
  Error error;
  std::uint64_t attempts = 0;
  std::array<std::size_t, Retry::step_count> returned{};
};
thread_local Tried last_tried;

constexpr std::array step_names = {"own idle memory", "other pools", "callbacks"};
static_assert(step_names.size() == Retry::step_count);

std::size_t missing_by(const Error& error) noexcept {
  return saturating_subtract(error.requested, error.available);
}

}  // namespace

struct Retry::Registered {
  std::uint64_t id = 0;
  Callback call;
  unsigned running = 0;  // guarded by the stage's mutex
};

/// One request that the upstream failed, and what is done for it.
class Retry::Recovery {
 public:
  explicit Recovery(Retry& retry) noexcept : retry_(retry), started_(retry.options_.now()) {}

  [[nodiscard]] std::chrono::nanoseconds spent() const noexcept {
    return retry_.options_.now() - started_;
  }
  [[nodiscard]] bool may_go_on() const noexcept {
    return attempts_ < retry_.options_.attempts && spent() < retry_.options_.window;
  }
  [[nodiscard]] std::uint64_t attempts() const noexcept { return attempts_; }
  [[nodiscard]] const std::array<std::size_t, step_count>& returned() const noexcept {
    return returned_;
  }

  /// The steps before the upstream is asked again, which last refused with `error`. The first
  /// attempt takes what is missing and no more (nothing, where the upstream had room and failed all
  /// the same); the next ones take all that a step can give, until it is enough; the last one takes
  /// every step.
  void prepare_attempt(const Error& error) noexcept {
    ++attempts_;
    const bool is_last = attempts_ == retry_.options_.attempts;
    error_ = error;
    thorough_ = is_last || attempts_ > 1;
    missing_ = missing_by(error);
    came_ = 0;
    const auto is_enough = [&] { return !is_last && came_ >= missing_; };
    if (!is_enough()) trim_own();
    if (!is_enough()) trim_others();
    if (!is_enough() && call_back(is_last)) {
      if (!is_enough()) trim_own();  // what they freed may lie idle in a pool now
      if (!is_enough()) trim_others();
    }
  }

 private:
  [[nodiscard]] bool in_time() const noexcept { return spent() < retry_.options_.window; }

  // How many bytes a pool is asked to give back: a little more than is missing, since pools above
  // the device round up.
  [[nodiscard]] std::size_t wanted() const noexcept {
    if (thorough_) return unbounded;
    const std::size_t left = saturating_subtract(missing_, came_);
    const std::size_t roomy = saturating_add(left, left / 8);
    return round_up(roomy, retry_.device().limits().granularity).value_or(unbounded);
  }

  void trim_own() noexcept {
    // A bound is relieved only by pools above it, which come with the others.
    if (!in_time() || error_.code == Errc::over_limit) return;
    const std::size_t idle = retry_.upstream().stats().cached.current;
    if (idle > 0) count(Step::own, retry_.upstream().trim(saturating_subtract(idle, wanted())));
  }

  void trim_others() noexcept {
    if (!in_time() || wanted() == 0) return;
    if (error_.code == Errc::over_limit && error_.bound == nullptr) return;
    count(Step::others, retry_.device().registry().trim(wanted(), error_.bound));
  }

  // False if there is none. Those that are added meanwhile wait for the next attempt: they could
  // add more without end.
  bool call_back(bool all) noexcept {
    const std::uint64_t last = retry_.last_callback();
    std::uint64_t place = 0;
    bool any = false;
    while (in_time() && (all || came_ < missing_)) {
      const std::shared_ptr<Registered> callback = retry_.start_next_callback(place, last);
      if (callback == nullptr) break;
      any = true;
      count(Step::callbacks, call(*callback, still_missing()));
      retry_.end_callback(*callback);
    }
    return any;
  }

  // Never 0: where enough came back in all, it is not in one piece.
  [[nodiscard]] std::size_t still_missing() const noexcept {
    if (missing_ > came_) return missing_ - came_;
    return missing_ > 0 ? missing_ : error_.requested;
  }

  static std::size_t call(const Registered& callback, std::size_t missing) noexcept {
    try {
      return callback.call(missing);
    } catch (...) {
      report("retry: a callback threw when %zu bytes were missing", missing);
      return 0;
    }
  }

  void count(Step step, std::size_t bytes) noexcept {
    std::size_t& sum = returned_[static_cast<std::size_t>(step)];
    sum = saturating_add(sum, bytes);
    came_ = saturating_add(came_, bytes);
  }

  Retry& retry_;
  const Clock::time_point started_;
  std::uint64_t attempts_ = 0;
  std::array<std::size_t, step_count> returned_{};

  // Of this attempt.
  Error error_;
  bool thorough_ = false;
  std::size_t missing_ = 0;
  std::size_t came_ = 0;
};

Expected<Block> Retry::try_allocate(const Request& request) noexcept {
  Expected<Block> block = upstream().try_allocate(request);
  if (block) [[likely]]
    return block;
  // A callback may close the stack.
  const Ref<Retry> self = Ref<Retry>::if_owned(this);
  block = recover(block.error(), [&] { return upstream().try_allocate(request); });
  if (!block) failures_.fetch_add(1, std::memory_order_relaxed);
  return block;
}

Expected<void> Retry::try_allocate_batch(std::span<const Request> requests,
                                         std::span<Block> blocks) noexcept {
  const auto ask = [&] { return upstream().try_allocate_batch(requests, blocks); };
  Expected<void> granted = ask();
  if (granted) [[likely]]
    return granted;
  const Ref<Retry> self = Ref<Retry>::if_owned(this);
  granted = recover(granted.error(), ask);
  if (!granted) failures_.fetch_add(1, std::memory_order_relaxed);
  return granted;
}

bool Retry::is_live(const Block& block) const noexcept {
  return upstream().is_live(block);
}

bool Retry::deallocate(const Block& block, Stream stream) noexcept {
  return upstream().deallocate(block, stream);
}

Expected<Block> Retry::try_grow(const Block& block, std::size_t bytes) noexcept {
  Expected<Block> grown = upstream().try_grow(block, bytes);
  if (grown) return grown;
  const Ref<Retry> self = Ref<Retry>::if_owned(this);
  return recover(grown.error(), [&] { return upstream().try_grow(block, bytes); });
}

template <class Ask>
std::invoke_result_t<Ask> Retry::recover(const Error& error, Ask ask) noexcept {
  last_tried = {};
  std::invoke_result_t<Ask> answer = tl::unexpected(error);
  if (!error.is_exhaustion() || is_recovering) return answer;
  const RecoveringThread recovering;
  Recovery recovery(*this);
  while (!answer && answer.error().is_exhaustion() && recovery.may_go_on()) {
    recovery.prepare_attempt(answer.error());
    answer = ask();
  }
  const std::chrono::nanoseconds spent = recovery.spent();
  {
    const std::lock_guard lock(mutex_);
    ++recoveries_.requests;
    if (answer) ++recoveries_.recovered;
    recoveries_.attempts += recovery.attempts();
    for (std::size_t step = 0; step < step_count; ++step) {
      recoveries_.returned[step] =
          saturating_add(recoveries_.returned[step], recovery.returned()[step]);
    }
    recoveries_.spent += spent;
    recoveries_.longest = std::max(recoveries_.longest, spent);
  }
  if (answer) return answer;
  last_tried = {.stage = this,
                .error = error,
                .attempts = recovery.attempts(),
                .returned = recovery.returned()};
  return tl::unexpected(error);
}

std::uint64_t Retry::add_callback(Callback callback) {
  auto registered = std::make_shared<Registered>(Registered{.id = 0, .call = std::move(callback)});
  const std::lock_guard lock(mutex_);
  registered->id = ++callbacks_added_;
  callbacks_.push_back(std::move(registered));
  return callbacks_added_;
}

bool Retry::remove_callback(std::uint64_t callback) noexcept {
  std::shared_ptr<Registered> removed;  // destroyed outside the lock
  std::unique_lock lock(mutex_);
  const auto place = std::find_if(callbacks_.begin(), callbacks_.end(),
                                  [&](const auto& each) { return each->id == callback; });
  if (place == callbacks_.end()) return false;
  removed = std::move(*place);
  callbacks_.erase(place);
  if (!is_recovering) callback_ended_.wait(lock, [&] { return removed->running == 0; });
  lock.unlock();
  return true;
}

std::uint64_t Retry::last_callback() const noexcept {
  const std::lock_guard lock(mutex_);
  return callbacks_added_;
}

// The first callback added after the `place`-th, up to the `last`, or null; it counts as running.
std::shared_ptr<Retry::Registered> Retry::start_next_callback(std::uint64_t& place,
                                                              std::uint64_t last) noexcept {
  const std::lock_guard lock(mutex_);
  const auto next = std::find_if(callbacks_.begin(), callbacks_.end(),
                                 [&](const auto& each) { return each->id > place; });
  if (next == callbacks_.end() || (*next)->id > last) return nullptr;
  place = (*next)->id;
  ++(*next)->running;
  return *next;
}

void Retry::end_callback(Registered& callback) noexcept {
  const std::lock_guard lock(mutex_);
  --callback.running;
  callback_ended_.notify_all();
}

Retry::Recoveries Retry::recoveries() const noexcept {
  const std::lock_guard lock(mutex_);
  return recoveries_;
}

// A request that was recovered did not fail.
Stats Retry::stats() const noexcept {
  Stats stats = upstream().stats();
  stats.failures = failures_.load(std::memory_order_relaxed);
  return stats;
}

std::size_t Retry::largest_after(const Supposition& supposed) const noexcept {
  const bool is_on = options_.attempts > 0 && options_.window.count() > 0;
  Supposition below = supposed;
  below.recovers = supposed.recovers || (supposed.may_recover && is_on);
  return Stage::largest_after(below);
}

void Retry::explain(Shortage& shortage) const noexcept {
  if (last_tried.stage == this && last_tried.error == shortage.error) {
    shortage.attempts = last_tried.attempts;
    for (std::size_t step = 0; step < step_count; ++step)
      shortage.add_step(step_names[step], last_tried.returned[step]);
  }
  Stage::explain(shortage);
}

}  // namespace cistern
