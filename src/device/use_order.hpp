// Which uses of memory have an order between them, by vector clocks (Fidge; Mattern, 1988): each
// stream knows of every other up to which piece of work it comes after. Two uses of the same bytes
// of which one writes, and neither comes after the other, are a conflict.
//
// Of each stretch of bytes only those uses are kept that nothing later stands for: a write stands
// for all uses that it comes after, a read for the reads. A piece of work that conflicts with one
// that was forgotten conflicts with the one that stands for it, so that no piece of work in
// conflict is missed, though not every pair is named.
//
// Work in a stream that runs out of order comes after what the stream's barriers came after, and
// not after the work before it. Not thread-safe; throws std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "cistern/device/simulated_queues.hpp"
#include "device/range_map.hpp"

namespace cistern {

class UseOrder {
 public:
  using Access = SimulatedQueues::Access;
  using Work = SimulatedQueues::Work;
  using Conflict = SimulatedQueues::Conflict;

  /// Streams are known from `begin` until `retire`; all others below require one that is.
  void begin(Stream stream) { streams_.try_emplace(stream.id); }
  [[nodiscard]] bool knows(Stream stream) const { return streams_.contains(stream.id); }

  /// What `waiter` does from now on comes after what stands in `on` now.
  void wait(Stream waiter, Stream on);
  /// What anyone does from now on comes after what stands in `on` now.
  void wait_on_host(Stream on);
  /// The same, and the stream is forgotten.
  void retire(Stream stream);

  /// A piece of work begins to be described: its uses follow, then `end_work`. Numbers rise.
  void use(const Work& work, std::uintptr_t begin, std::uintptr_t end);
  void end_work(const Work& work, Stream stream);

  /// All uses of the range should come before what stands in `stream` has ended. It is forgotten.
  void give_back(Stream stream, std::uintptr_t begin, std::uintptr_t end);

  /// Those found since the last call.
  [[nodiscard]] std::vector<Conflict> take_conflicts() { return std::exchange(conflicts_, {}); }

  [[nodiscard]] std::size_t known_ranges() const noexcept { return uses_.size(); }

 private:
  // By stream, the last piece of work that is known to come before.
  using Clock = std::map<std::uint64_t, std::uint64_t>;
  struct Known {
    Clock clock;             // of what is launched next
    std::uint64_t last = 0;  // the last piece of work that was launched
  };

  static void join(Clock& clock, const Clock& other);
  Known& known(std::uint64_t stream);
  Clock clock_of_marker(Stream stream);
  [[nodiscard]] bool is_before(const Work& work, const Clock& clock) const;
  void note(std::uintptr_t begin, std::uintptr_t end, const Work& earlier, const Work& later);

  std::map<std::uint64_t, Known> streams_;
  Clock host_;  // what the host has waited for
  RangeMap<std::vector<Work>> uses_;
  std::vector<Conflict> conflicts_;
};

}  // namespace cistern
