// The one interface. Devices, pools and adaptors are all a `Resource`: something that hands out
// blocks and takes them back. A stack is a chain of them, and a program talks to the outermost.
//
// Resources are made by `make` and held by `Ref`s. Every call is thread-safe unless a class says
// otherwise. Letting go of the last `Ref` while blocks are live is allowed: a report says what is
// still out, and the resource stays until the last of its blocks has been freed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cistern/core/block.hpp"
#include "cistern/core/error.hpp"
#include "cistern/core/shortage.hpp"
#include "cistern/core/stats.hpp"

namespace cistern {

class Device;
struct PoolsAbove;
template <class T>
class Ref;

/// What is taken for granted when a stage is asked how large a request it could serve.
struct Supposition {
  // Blocks of the stage that have come back to it: what was requested of it, and granted.
  std::size_t requested = 0;
  std::size_t granted = 0;
  bool may_recover = false;           // a stage that recovers says that it would
  bool recovers = false;              // the device's other pools give back what they can
  const PoolsAbove* pools = nullptr;  // those that ask, and so are no other pools
};

class Resource {
 public:
  Resource(const Resource&) = delete;
  Resource& operator=(const Resource&) = delete;
  Resource(Resource&&) = delete;
  Resource& operator=(Resource&&) = delete;

  /// A block of at least `request.bytes` with the alignment asked for, or why not. A request
  /// that fails leaves what is live as it was, but idle memory may have been given back to make
  /// room for it. Zero bytes give the empty block. Errors: those up to bad_alignment, wrong_thread
  /// and device_failed.
  [[nodiscard]] virtual Expected<Block> try_allocate(const Request& request) noexcept = 0;

  /// The same, throwing `OutOfMemory`. (Virtual for the sake of fast paths, which write the
  /// caller's block at once; what is overridden is what `try_allocate` does.)
  [[nodiscard]] virtual Block allocate(const Request& request) {
    Expected<Block> block = try_allocate(request);
    if (!block) [[unlikely]]
      throw_out_of_memory(request, block.error());
    return *block;
  }
  [[nodiscard]] Block allocate(std::size_t bytes) { return allocate(Request{.bytes = bytes}); }

  /// The same two for a block that has an owner who will free it, as a `Buffer` will: the `reset`
  /// of an arena leaves it alone. Of any other stage these are the two above.
  [[nodiscard]] virtual Expected<Block> try_allocate_held(const Request& request) noexcept {
    return try_allocate(request);
  }
  [[nodiscard]] Block allocate_held(const Request& request) {
    Expected<Block> block = try_allocate_held(request);
    if (!block) [[unlikely]]
      throw_out_of_memory(request, block.error());
    return *block;
  }

  /// Takes a block back, on any thread, in the order of `stream`, which need not be the one it was
  /// requested for: see `stream_order.hpp`. Never allocates. A block that is not a live block of
  /// this resource (freed before, or another resource's) is refused: nothing changes but
  /// `refused_frees`, a report says so, and the answer is false.
  virtual bool deallocate(const Block& block, Stream stream) noexcept = 0;
  bool deallocate(const Block& block) noexcept { return deallocate(block, Stream{}); }

  /// True for a block that was handed out here and has not come back, in whatever way.
  [[nodiscard]] virtual bool is_live(const Block& block) const noexcept;

  /// Makes a live block larger where it lies: at least `bytes` are granted, at the same address and
  /// with what was written there. Returns the handle that takes the place of the given one, which
  /// is stale from then on; `requested` is the larger of `bytes` and what it was. On failure the
  /// block stays live as it was, and nothing is counted. Not on two threads at once for one block.
  /// Errors: cannot_grow, where another block or another stage is in the way; invalid_block; those
  /// of `try_allocate`. This implementation answers cannot_grow.
  [[nodiscard]] virtual Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept;

  /// Says that a live block is in use on one more stream than the one that will free it, so that
  /// its memory is not reused before that stream is done with it. Without effect where the device
  /// has no queues. Error: invalid_block.
  virtual Expected<void> also_used_on(const Block& block, Stream stream) noexcept = 0;

  /// All of `requests`, or none of them: `blocks[i]` answers `requests[i]`. What must be paid once
  /// a call is paid once for all: a lock, a commit of residency. On failure, with the error of the
  /// first request that failed (its `requested` includes what was still to be asked for, where
  /// memory ran out), nothing is live that was not before, and `blocks` holds empty blocks. It
  /// counts as one failure; where a stage can only ask for one after the other, as this
  /// implementation does, what was granted and went back also counts as allocations and frees.
  /// Requires two spans of one size.
  [[nodiscard]] virtual Expected<void> try_allocate_batch(std::span<const Request> requests,
                                                          std::span<Block> blocks) noexcept;

  /// The same for blocks that have an owner who will free them (see `try_allocate_held`).
  [[nodiscard]] virtual Expected<void> try_allocate_held_batch(std::span<const Request> requests,
                                                               std::span<Block> blocks) noexcept {
    return try_allocate_batch(requests, blocks);
  }

  /// The same two, throwing `OutOfMemory`.
  [[nodiscard]] std::vector<Block> allocate_batch(std::span<const Request> requests);
  [[nodiscard]] std::vector<Block> allocate_held_batch(std::span<const Request> requests);

  /// Marks the start of a turn of the program's loop (a token, a training step), for the stages
  /// that record or learn turns.
  virtual void cycle() noexcept {}

  /// Ends the turn and begins the next: everything that an arena has handed out comes back to it at
  /// once, but for what is held; the handles are stale from then on.
  /// Returns how many blocks came back. A stage that is no arena takes nothing back, and this is
  /// its `cycle`.
  virtual std::size_t reset() noexcept {
    cycle();
    return 0;
  }

  /// Gives idle memory back to the device, outermost stage first and least recently used first,
  /// until no more than `keep_bytes` lie idle in the whole stack. Returns by how much `reserved`
  /// fell (roughly, while other threads allocate).
  std::size_t trim(std::size_t keep_bytes = 0) noexcept;

  /// A copy of the figures, exact while nobody allocates or frees. O(stages).
  [[nodiscard]] virtual Stats stats() const noexcept = 0;

  /// Sets every peak of the stack to its current level, or to that of `floor` where that is higher.
  virtual void reset_peaks(const Stats& floor) noexcept = 0;
  void reset_peaks() noexcept { reset_peaks(Stats{}); }

  /// The buckets that hold idle blocks, in order of capacity, stage by stage. Allocates.
  [[nodiscard]] virtual std::vector<BucketStats> buckets() const { return {}; }

  /// What callers still hold of this stage. O(blocks).
  [[nodiscard]] virtual Outstanding outstanding() const noexcept = 0;

  /// The device at the bottom: its limits and capabilities.
  [[nodiscard]] virtual Device& device() const noexcept = 0;

  /// The largest request that would succeed now, at the default alignment: a pool's own idle memory
  /// counts, and with recovery also what the other pools on the device would give back where the
  /// stack recovers (`retry`); callbacks do not. Exact on a device that knows what it has and hands
  /// out any of it, while nobody else allocates or frees; else a lower bound. 0 where nothing would
  /// succeed. Slow: O(idle blocks), and may read files.
  enum class Recovery : bool { without, with };
  [[nodiscard]] std::size_t largest_allocatable(Recovery recovery = Recovery::with) const noexcept {
    return largest_after({.may_recover = recovery == Recovery::with});
  }

  /// The same under a supposition; each stage answers with the help of its upstream.
  [[nodiscard]] virtual std::size_t largest_after(const Supposition& /*supposed*/) const noexcept {
    return 0;
  }

  /// Adds what this stage and those below it know about a request that failed. Takes no longer than
  /// `outstanding`, allocates nothing.
  virtual void explain(Shortage& /*shortage*/) const noexcept {}

  /// Calls `visit` with each of the stages that this one stands on.
  virtual void each_upstream(const std::function<void(Resource&)>& /*visit*/) const {}

  /// True if `other` is this resource or one below it. O(stages).
  [[nodiscard]] bool stands_on(const Resource& other) const;

  /// The law of this stage's structure, or of a stage's below it, that does not hold; empty if all
  /// hold. For tests: O(blocks), and exact only while nobody allocates or frees.
  [[nodiscard]] virtual std::string validate() const = 0;

  void retain() noexcept { owners_.fetch_add(1, std::memory_order_relaxed); }
  /// False, and without effect, if the last owner has gone.
  bool try_retain() noexcept;
  void release() noexcept;

 protected:
  Resource() = default;
  virtual ~Resource();

  /// A batch by one request after the other, each asked for by `ask`.
  using AskForOne = Expected<Block> (Resource::*)(const Request&) noexcept;
  Expected<void> allocate_each(std::span<const Request> requests, std::span<Block> blocks,
                               AskForOne ask) noexcept;

  /// Called by `make` once the resource is whole, and when its last owner has gone.
  virtual void opened() noexcept {}
  virtual void closing() noexcept {}
  template <class T, class... Arguments>
  friend Ref<T> make(Arguments&&... arguments);

  [[noreturn]] void throw_out_of_memory(const Request& request, const Error& error) const;
  /// Reports a free that is refused; always false.
  static bool refuse_free(const char* stage, const Block& block) noexcept;

  /// `trim` without the answer; a stage trims itself and then its upstream.
  virtual void trim_to(std::size_t keep_bytes) noexcept = 0;
  friend class Stage;

  /// Called once, when the last `Ref` is gone: the stage destroys itself, now or with its last
  /// block. This one does so by the pins: a stage that does not override it pins itself once for
  /// each live block.
  virtual void abandoned() noexcept { unpin(); }

  /// Gives up the ownership of `upstream`, which destroys this resource when it ends itself.
  void end_with(Resource& upstream) noexcept;
  /// Returns how many blocks are pinned with this one.
  std::size_t pin() noexcept { return pins_.fetch_add(1, std::memory_order_relaxed); }
  void unpin() noexcept {
    if (pins_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  /// Blocks that are pinned, while there are owners.
  [[nodiscard]] std::size_t pinned() const noexcept {
    return pins_.load(std::memory_order_relaxed) - 1;
  }

 private:
  void close() noexcept;

  std::atomic<std::size_t> owners_{0};
  std::atomic<std::size_t> pins_{1};             // the live blocks, and one for the owners
  std::atomic<Resource*> last_to_end_{nullptr};  // those that end with this one, chained
  Resource* next_to_end_ = nullptr;
};

}  // namespace cistern
