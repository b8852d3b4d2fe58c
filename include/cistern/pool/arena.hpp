// An arena: many blocks are taken one after the other, and `reset` takes them all back at once. Of
// one thread, as `owned_pool.hpp` says.
//
// One chunk holds what a cycle needs, and a request takes the next bytes of it. How much that is
// shows in the cycles before: at a reset the chunk is made to hold the largest sum of bytes that
// was live in either of the last two. What does not fit is passed on upstream, block by block, and
// what is freed of that goes back upstream at once. So an arena that is never reset has no chunk,
// and holds no more than what is live.
//
// Blocks may be freed one by one as well, and the two may be mixed. One rule says what a reset
// means for who holds a block: what is held (`try_allocate_held`), as by a `Buffer`, is passed on
// upstream and stays until the buffer is gone; every other handle is stale from then on, and
// refused wherever it turns up. Memory of the chunk that is freed one by one is used again when it
// is the last that was taken, when nothing of the chunk is live, and after the reset.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cistern/core/intrusive_list.hpp"
#include "cistern/core/slab.hpp"
#include "cistern/pool/owned_pool.hpp"

namespace cistern {

class Arena final : public OwnedPool {
 public:
  struct Options {
    std::size_t chunk = 0;  // bytes, from the first request on; at least so many after a reset
    // A report says that a reset seems to be forgotten, where what is live has grown over so many
    // cycles in a row without one, or beyond so many bytes; 0 bytes are half of the device's
    // memory.
    std::size_t warn_cycles = 16;
    std::size_t warn_bytes = 0;
  };

  /// Throws std::invalid_argument if `upstream` is null. A hit, a free and a reset are O(1), but
  /// for the calls upstream that what was passed on needs: one a block.
  Arena(Ref<Resource> upstream, const Options& options);
  explicit Arena(Ref<Resource> upstream) : Arena(std::move(upstream), Options{}) {}

  /// Blocks in callers' hands; pieces of idle memory that wait here for a request, and the bytes
  /// that are idle. The owner's.
  [[nodiscard]] std::size_t in_use_count() const noexcept { return live().blocks; }
  [[nodiscard]] std::size_t free_count() const noexcept { return room() > 0 ? 1 : 0; }
  [[nodiscard]] std::size_t free_bytes() const noexcept { return idle_bytes(); }

  /// Gives everything idle upstream and forgets what former cycles needed. The owner's.
  void clear() noexcept;

  using OwnedPool::deallocate;
  using OwnedPool::reset_peaks;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override {
    const std::size_t bytes = rounded(request.bytes);
    const Front front = here();
    const bool is_plain =
        is_alignment_within(request.alignment, alignment_) && request.stream.id == stream_.id;
    if (has_room(front, bytes) && is_plain) [[likely]]
      return take(front, request.bytes, bytes);
    return miss(request);
  }
  [[nodiscard]] Expected<Block> try_allocate_held(const Request& request) noexcept override {
    return pass_on(request, Until::freed);
  }
  /// What `Resource::allocate` does, in fewer steps for a caller that knows that this is an arena.
  [[nodiscard]] Block allocate(std::size_t requested) {
    const std::size_t bytes = rounded(requested);
    const Front front = here();
    if (has_room(front, bytes) && stream_.id == 0) [[likely]]
      return take(front, requested, bytes);
    return OwnedPool::allocate(requested);
  }
  using OwnedPool::allocate;
  [[nodiscard]] Expected<void> try_allocate_batch(std::span<const Request> requests,
                                                  std::span<Block> blocks) noexcept override;
  /// In place where the block was the last to be taken of the chunk, or was passed on to an
  /// upstream that can.
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override;
  void explain(Shortage& shortage) const noexcept override;
  [[nodiscard]] std::size_t trimmable() const noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  /// A block of the chunk. They are used in order, and again from the first after a reset: what is
  /// older than the cycle is over without being touched.
  struct Taken : Node {
    std::size_t requested = 0;
  };
  /// The records of as many blocks as a chunk was cut into. Never given back, like all nodes: those
  /// of a former page are of former cycles.
  struct Page {
    std::vector<Taken> records;
    std::vector<RemoteFree> remote;
    std::unique_ptr<Page> former;

    Page(const Resource* owner, std::size_t size);
    [[nodiscard]] bool has(const Node& node) const noexcept;
    [[nodiscard]] Taken* end() noexcept { return records.data() + records.size(); }
    [[nodiscard]] std::size_t place_of(const Node& node) const noexcept {
      return static_cast<std::size_t>(static_cast<const Taken*>(&node) - records.data());
    }
  };
  /// A block of the upstream's.
  struct Passed : Node {
    Block below;
    Stream stream;
    bool is_held = false;
    RemoteFree remote;
    ListLinks<Passed> links;  // of those that a reset ends
    Passed* next_free = nullptr;
  };

  /// What a chunk must have to serve a cycle by itself.
  struct Work {
    std::size_t bytes = 0;
    std::size_t blocks = 0;

    void raise_to(const Work& other) noexcept {
      bytes = std::max(bytes, other.bytes);
      blocks = std::max(blocks, other.blocks);
    }
  };

  // --- the fast path ---

  [[nodiscard]] std::size_t rounded(std::size_t bytes) const noexcept {
    return (bytes + below_granule_) & in_granules_;
  }
  /// Where the next block comes from: its record, and the bytes that are left.
  struct Front {
    Taken* record;
    std::size_t room;
  };
  [[nodiscard]] Front here() const noexcept { return {next_.read(), room_.read()}; }
  // Not for 0 bytes, to which what overflows is rounded.
  [[nodiscard]] bool has_room(const Front& front, std::size_t bytes) const noexcept {
    return bytes - 1 < front.room && front.record != last_;
  }
  [[nodiscard]] Block take(const Front& front, std::size_t requested, std::size_t bytes) noexcept {
    const std::uint64_t generation = generation_;
    front.record->requested = requested;
    front.record->generation.store(generation, std::memory_order_relaxed);
    next_.set(front.record + 1);
    room_.set(front.room - bytes);
    requested_.rise(requested);
    return {.memory = chunk_end_ - front.room,
            .offset = chunk_.offset,
            .bytes = bytes,
            .requested = requested,
            .node = front.record,
            .generation = generation};
  }

  // --- the slow path ---

  /// What ends a block that is passed on.
  enum class Until : bool { reset, freed };

  Expected<Block> miss(const Request& request) noexcept;
  void ready_chunk(const Request& request) noexcept;
  Expected<Block> pass_on(const Request& request, Until until) noexcept;
  [[nodiscard]] bool is_for_chunk(const Request& request) const noexcept;
  [[nodiscard]] Block take_slowly(const Request& request) noexcept;
  [[nodiscard]] std::size_t page_size() const noexcept;
  [[nodiscard]] bool is_for_chunk_of_another_stream(const Request& request) const noexcept;
  Expected<Block> adopt(const Request& request, const Block& block, Until until) noexcept;
  Expected<void> pass_on_batch(std::span<const Request> requests, std::span<Block> blocks) noexcept;
  Expected<Block> grow_taken(const Block& block, std::size_t bytes) noexcept;
  [[nodiscard]] std::size_t room() const noexcept { return room_.read() + hidden_room_.read(); }
  void set_room(std::size_t bytes) noexcept;
  /// What was taken of the chunk since it was last empty, and what of that is live.
  [[nodiscard]] Sum taken() const noexcept;
  [[nodiscard]] Sum taken_live() const noexcept;
  template <class Visit>
  void each_live(Visit&& visit) const;
  [[nodiscard]] Page* page_of(const Node& record) const noexcept;
  [[nodiscard]] bool is_taken(const Node& record) const noexcept {
    return page_of(record) != nullptr;
  }
  [[nodiscard]] bool is_chunk_idle() const noexcept {
    return !chunk_.empty() && taken_live().blocks == 0;
  }
  void rewind() noexcept;
  void note_work() noexcept;
  void check_owner_changed() noexcept override { set_room(room()); }
  void fit_chunk() noexcept;
  void set_chunk(const Work& work) noexcept;
  void give_up_chunk() noexcept;
  bool set_page(std::size_t blocks) noexcept;
  void warn_if_forgotten() noexcept;
  [[nodiscard]] bool is_home() const noexcept { return behind_.id == stream_.id; }
  void take_back_taken(Taken& record, Stream stream) noexcept;
  void take_back_passed(Passed& record, Stream stream) noexcept;

  [[nodiscard]] bool names(const Block& block) const noexcept override;
  [[nodiscard]] RemoteFree& remote_free(Node& record) const noexcept override;
  [[nodiscard]] Sum sum_of(const Node& record) const noexcept override;
  [[nodiscard]] Sum unsettled_grants() const noexcept override;
  void set_settled() noexcept override;
  void take_back(Node& record, Stream stream) noexcept override;
  void take_all_back() noexcept override;
  void begin_cycle(bool was_reset) noexcept override;
  void trim_own(std::size_t keep_bytes) noexcept override;
  [[nodiscard]] std::uint64_t last_generation() const noexcept override { return generation_; }

  // Read and written by the fast path. Where it is off, there is no room but a hidden one.
  const std::size_t below_granule_;  // sizes in the chunk are multiples of one more
  const std::size_t in_granules_;    // the bits that such a multiple can have
  const std::size_t alignment_;      // of every block in it
  Stream stream_;                    // the chunk serves one in a cycle
  Owned<> room_;                     // bytes that are left, at its end
  std::byte* chunk_end_ = nullptr;
  Owned<Taken*> next_;                                         // the record of the next block
  Taken* last_ = nullptr;                                      // behind the last
  std::uint64_t generation_ = (std::uint64_t{1} << 32U) | 1U;  // of the blocks that are taken now
  Owned<> requested_;                                          // of what was taken

  const bool is_address_;  // else what lies in the chunk is told by offsets
  const std::size_t least_chunk_;
  const std::size_t warn_cycles_;
  const std::size_t warn_bytes_;

  Block chunk_;          // of the upstream; empty where there is none
  Stream behind_;        // comes after all that has used it: `stream_`, if that can be made to wait
  Owned<> chunk_bytes_;  // of it that can be taken
  Owned<> hidden_room_;
  OwnedSum settled_;  // of what was taken
  Sum dead_;          // of that, what was freed one by one

  std::atomic<Page*> page_{nullptr};
  std::unique_ptr<Page> owned_page_;  // the same
  Slab<Passed> passed_{this};
  IntrusiveList<Passed, &Passed::links> ended_by_reset_;
  std::size_t passed_bytes_ = 0;  // that these would take of a chunk

  // The peaks of this cycle, and the larger ones of this and the one before at its end.
  Work peak_;
  Work peak_before_;
  std::size_t live_before_ = 0;  // blocks, when the cycle began
  std::size_t grown_cycles_ = 0;
  bool has_warned_ = false;
};

}  // namespace cistern
