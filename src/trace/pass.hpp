// A pass over a program, in pieces: every replay, whatever it looks for, plays steps with this one
// loop, and hands what it wants to see to an observer.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "cistern/core/resource.hpp"
#include "trace/follower.hpp"
#include "trace/program.hpp"

namespace cistern::detail {

using Clock = std::chrono::steady_clock;

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
    if (step.kind == Step::Kind::cycle) {
      if constexpr (requires { target.cycle(); }) target.cycle();
      continue;
    }
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
      slot.is_granted = false;
      if (!accepted) ++tally.refused_frees;
      ++tally.frees;
      tally.live -= step.bytes;
    }
  }
}

/// A pass over a program, in pieces between which there is time to say how far it is.
class Pass {
 public:
  explicit Pass(const Program& program, Follower* follower = nullptr)
      : program_(program), follower_(follower), slots_(program.slots) {}

  template <class Target, class Observer>
  void before(Target& target, Observer& observer) {
    if (follower_ != nullptr) {
      restore(observer);
    } else {
      play(target, program_.before, slots_, tally_, observer);
    }
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
    double shown = 0;
    for (std::size_t done = 0; done < all.size();) {
      std::size_t end = std::min(done + piece, all.size());
      if (follower_ != nullptr) {
        follower_->reach(done);
        end = std::min(end, follower_->next_change());
      }
      const double part = static_cast<double>(done) / static_cast<double>(all.size());
      if (progress && (done == 0 || part > shown + 0.01)) progress(shown = part);
      const Clock::time_point start = Clock::now();
      play(target, all.subspan(done, end - done), slots_, tally_, observer);
      elapsed += Clock::now() - start;
      done = end;
    }
    const std::uint64_t operations = tally_.allocations + tally_.frees + tally_.failed;
    if (operations == 0) return 0;
    return std::chrono::duration<double, std::nano>(elapsed).count() /
           static_cast<double>(operations);
  }

  /// Not much further than to the first request that is refused, and without a clock.
  void steps_until_refused(Resource& target) {
    constexpr std::size_t piece = std::size_t{1} << 10U;
    const std::span<const Step> all = program_.steps;
    Nobody nobody;
    for (std::size_t done = 0; done < all.size() && tally_.failed == 0; done += piece)
      play(target, all.subspan(done, std::min(piece, all.size() - done)), slots_, tally_, nobody);
  }

  /// Frees what is live, wherever the steps ended.
  void free_all(Resource& target) {
    for (Slot& slot : slots_) {
      if (slot.is_granted) target.deallocate(slot.block);
      slot.is_granted = false;
    }
  }

  /// Frees what is left in the end.
  template <class Observer>
  Tally free_rest(Resource& stack, Observer& observer) {
    Tally rest{.refused_frees = tally_.refused_frees, .live = tally_.live};
    play(stack, program_.after, slots_, rest, observer);
    return rest;
  }

  /// The same; says whether the stack is empty then.
  template <class Observer>
  std::string after(Resource& stack, Observer& observer) {
    const Tally rest = free_rest(stack, observer);
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
  template <class Observer>
  void restore(Observer& observer) {
    const std::vector<Block> blocks = follower_->restore();
    for (std::size_t index = 0; index < blocks.size(); ++index) {
      const Step& step = program_.before[index];
      slots_[step.slot] = {.block = blocks[index], .is_granted = true};
      tally_.live += step.bytes;
      observer.granted(step, blocks[index]);
    }
  }

  const Program& program_;
  Follower* follower_;  // null where nothing is followed
  std::vector<Slot> slots_;
  Tally tally_;
  std::uint64_t initial_failed_ = 0;
};

}  // namespace cistern::detail
