// Surviving an exhausted device: a request that the upstream cannot serve is not reported before
// memory has been looked for and the upstream asked again. Idle memory of this stack goes first,
// then that of the other pools on the device, then whatever the program's callbacks can free.
//
// Blocks pass through, so that a request which succeeds pays nothing: no lock, no record, no clock.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <type_traits>
#include <vector>

#include "cistern/core/stage.hpp"

namespace cistern {

class Retry final : public Stage {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    unsigned attempts = 3;  // the upstream is asked again so often, at most, for one request
    // No step of recovery begins once so much time has passed since the request first failed.
    std::chrono::nanoseconds window = std::chrono::seconds(1);
    Clock::time_point (*now)() noexcept = &Clock::now;
  };

  /// Throws std::invalid_argument if `upstream` is null.
  Retry(Ref<Resource> upstream, const Options& options)
      : Stage(std::move(upstream)), options_(options) {}
  explicit Retry(Ref<Resource> upstream) : Retry(std::move(upstream), Options{}) {}

  /// Frees what it can, and returns how many bytes that were, as far as it knows; `missing` is by
  /// how much the request falls short. Called on the thread whose request failed, outside every
  /// lock, by several threads at once; what it throws is caught. It may allocate and free in this
  /// very stack: a request that fails within it is not recovered again. It may remove callbacks and
  /// add some, which are not called before the next attempt. It may close the stack while a block
  /// of it is live, which keeps the stages that the request came through.
  using Callback = std::function<std::size_t(std::size_t missing)>;

  /// Adds a callback behind those there are; returns what removes it, not 0. Thread-safe.
  std::uint64_t add_callback(Callback callback);

  /// Removes a callback; false if it is not there. It is not called any more, and has ended on
  /// every other thread, when this returns, unless this is called from within a callback: then it
  /// does not wait. Thread-safe.
  bool remove_callback(std::uint64_t callback) noexcept;

  enum class Step : std::uint8_t { own, others, callbacks };
  static constexpr std::size_t step_count = 3;

  /// What recovery did so far.
  struct Recoveries {
    std::uint64_t requests = 0;                      // that the upstream failed for want of memory
    std::uint64_t recovered = 0;                     // of these
    std::uint64_t attempts = 0;                      // so often the upstream was asked again
    std::array<std::size_t, step_count> returned{};  // bytes, by step
    std::chrono::nanoseconds spent{};                // in all
    std::chrono::nanoseconds longest{};              // on one request

    [[nodiscard]] std::size_t returned_by(Step step) const noexcept {
      return returned[static_cast<std::size_t>(step)];
    }
  };
  [[nodiscard]] Recoveries recoveries() const noexcept;

  using Stage::deallocate;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override;
  /// A batch is recovered as a whole, by as much as all of it is short of.
  [[nodiscard]] Expected<void> try_allocate_batch(std::span<const Request> requests,
                                                  std::span<Block> blocks) noexcept override;
  [[nodiscard]] bool is_live(const Block& block) const noexcept override;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  [[nodiscard]] Stats stats() const noexcept override;
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override;
  void explain(Shortage& shortage) const noexcept override;

 private:
  struct Registered;
  class Recovery;

  template <class Ask>
  std::invoke_result_t<Ask> recover(const Error& error, Ask ask) noexcept;
  [[nodiscard]] std::uint64_t last_callback() const noexcept;
  std::shared_ptr<Registered> start_next_callback(std::uint64_t& place,
                                                  std::uint64_t last) noexcept;
  void end_callback(Registered& callback) noexcept;
  void abandoned() noexcept override { end_with_upstream(); }

  const Options options_;
  std::atomic<std::uint64_t> failures_{0};  // of requests, recovery notwithstanding

  mutable std::mutex mutex_;  // guards all below
  std::vector<std::shared_ptr<Registered>> callbacks_;
  std::uint64_t callbacks_added_ = 0;
  std::condition_variable callback_ended_;
  Recoveries recoveries_;
};

}  // namespace cistern
