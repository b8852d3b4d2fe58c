// Queues that run later, and in any order that is allowed: what a device with streams does to a
// program, where anyone can watch. Work is launched with the memory it uses; it stands in its queue
// until it is run. Nothing sleeps and no memory is touched.
//
// Two checks look for memory that passes from one piece of work to another without an order between
// them. One is by the order alone: every piece of work is compared, when it is launched, with those
// that used the same bytes before, and two of which one writes are reported if neither a stream, a
// wait nor the host stands between them. It finds a wait that is missing in whatever order things
// happen to run. The other is by what happens: every write leaves its number on its bytes, and work
// that finds another number than it would if all ran as launched is reported too.
//
// Not for speed: a launch costs what it compares with, O(log n) for each stretch of bytes that it
// shares with earlier work, and waits cost O(streams). What stands in a queue is kept until it is
// run; what is known of bytes, until they are used in order or given back. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cistern/core/stream_order.hpp"

namespace cistern {

class SimulatedQueues final : public StreamOrder {
 public:
  enum class Access : std::uint8_t { read, write };

  /// A piece of work uses the bytes of a block, from its `memory` and `offset` on. A part of a
  /// block is written as a block with another offset and fewer bytes.
  struct Use {
    Block block;
    Access access = Access::write;
  };

  /// A piece of work: launched as the n-th, counted from 1. 0 is not one, but memory that is given
  /// back to the device.
  struct Work {
    std::uint64_t number = 0;
    std::uint64_t stream = 0;  // its id
    Access access = Access::write;
    friend bool operator==(const Work&, const Work&) = default;
  };

  /// Two uses of the same bytes without an order between them.
  struct Conflict {
    std::uintptr_t address = 0;
    std::size_t bytes = 0;
    Work earlier;  // as launched
    Work later;
  };

  SimulatedQueues();
  ~SimulatedQueues();
  SimulatedQueues(const SimulatedQueues&) = delete;
  SimulatedQueues& operator=(const SimulatedQueues&) = delete;
  SimulatedQueues(SimulatedQueues&&) = delete;
  SimulatedQueues& operator=(SimulatedQueues&&) = delete;

  /// A stream with an id that no other had. That of id 0 is always there; any other id that turns
  /// up and was not retired is taken for a stream of the program's own. Throws std::bad_alloc.
  [[nodiscard]] Stream make_stream(bool out_of_order = false);

  /// Enqueues a piece of work and returns its number, which is 0 where the stream was retired (a
  /// mistake, and reported). Throws std::bad_alloc.
  std::uint64_t launch(Stream stream, std::span<const Use> uses);
  std::uint64_t launch(Stream stream, std::initializer_list<Use> uses) {
    return launch(stream, std::span(uses.begin(), uses.size()));
  }

  /// `wait` as the program itself asks for it: neither counted, refused nor ignored.
  void wait_as_program(Stream waiter, Stream on);

  /// Runs all that stands in the queues, in an order that they allow; the seed chooses which.
  void run(std::uint64_t seed);
  /// Runs one thing: of all that may run next, the one with this number, modulo how many there are.
  /// False if nothing stands in the queues.
  bool step(std::uint64_t choice);

  /// Everything that was found, in sentences: the first hundred. Empty if there was nothing.
  [[nodiscard]] std::vector<std::string> reports() const;
  /// The first thousand, in the order of the later work.
  [[nodiscard]] std::vector<Conflict> conflicts() const;
  /// Pieces of work that found other bytes than they should when they were run.
  [[nodiscard]] std::uint64_t corruptions() const noexcept;

  /// What was asked for so far, refused and ignored calls included; and what was run.
  [[nodiscard]] std::uint64_t waits() const noexcept;
  [[nodiscard]] std::uint64_t synchronizations() const noexcept;
  [[nodiscard]] std::uint64_t works_launched() const noexcept;
  [[nodiscard]] std::uint64_t works_run() const noexcept;

  /// Makes the n-th wait from now fail on the device, or the n-th synchronisation; 0 takes it back.
  void fail_next_wait(std::uint64_t n) noexcept;
  void fail_next_synchronization(std::uint64_t n) noexcept;
  /// From now on waits succeed and order nothing: a stack of pools is expected to be caught.
  void ignore_waits(bool ignores) noexcept;

  /// Stretches of bytes of which something is known: what the checks cost in memory.
  [[nodiscard]] std::size_t known_ranges() const noexcept;

 private:
  friend class SimulatedDevice;
  struct State;

  Expected<void> do_wait(Stream waiter, Stream on) noexcept override;
  Expected<void> do_synchronize(Stream stream) noexcept override;
  void do_retire(Stream stream) noexcept override;

  /// The device takes memory back in the order of `stream`: what used it must come before. What
  /// stands in the stream is run, so that nobody finds what it leaves there, but the host does not
  /// count as having waited.
  void gave_back(std::uintptr_t address, std::size_t bytes, Stream stream) noexcept;

  const std::unique_ptr<State> state_;
};

/// One sentence.
std::string describe(const SimulatedQueues::Conflict& conflict);

}  // namespace cistern
