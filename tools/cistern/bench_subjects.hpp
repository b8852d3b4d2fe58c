// What the benchmark measures: stacks of ours and allocators of others, all with the same three
// calls. They are types, not objects behind an interface, so that a fast peer is not made slower
// than it is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <malloc.h>

#include "bench_isolated.hpp"
#include "bench_mapped.hpp"
#include "bench_peers.hpp"
#include "cistern/pool/arena.hpp"
#include "cistern/pool/planned.hpp"
#include "cistern/pool/suballocator.hpp"
#include "cistern/stack/stack.hpp"

namespace cistern::command {

/// One of our stacks.
class StackSubject {
 public:
  using Handle = Block;

  explicit StackSubject(const std::string& stack) : stack_(open(stack)), resource_(&*stack_) {}

  [[nodiscard]] Handle allocate(std::size_t bytes) { return resource_->allocate(bytes); }
  void free(const Handle& block, std::size_t /*bytes*/) { resource_->deallocate(block); }
  void cycle() { resource_->cycle(); }
  [[nodiscard]] bool can_touch() const noexcept {
    return resource_->device().limits().host_addressable;
  }
  static std::byte* address(const Handle& block) { return static_cast<std::byte*>(block.memory); }
  [[nodiscard]] std::optional<std::size_t> peak_reserved() const {
    return resource_->stats().reserved.peak;
  }

 private:
  Stack stack_;
  Resource* resource_;
};

/// One whose pool has an owner thread.
struct OwnedStackSubject : StackSubject {
  using StackSubject::StackSubject;
  static constexpr bool is_for_one_thread = true;
};

/// Whether a stack has an owner thread: who asks first, and none that asks later.
inline bool is_owned(const std::string& stack) {
  return holds_isolated([&] {
    const Stack opened = open(stack);
    const Buffer first = opened.buffer(1);
    bool is_refused = false;
    std::thread([&] {
      const auto block = opened->try_allocate({.bytes = 1});
      is_refused = !block && block.error().code == Errc::wrong_thread;
      if (block) opened->deallocate(*block);
    }).join();
    return is_refused;
  });
}

/// Enters the stacks that the user names.
template <class Visit>
void each_named_stack(const std::vector<std::string>& stacks, Visit& visit) {
  for (const std::string& stack : stacks) {
    if (is_owned(stack)) {
      visit("cistern:" + stack, [stack] { return OwnedStackSubject(stack); });
    } else {
      visit("cistern:" + stack, [stack] { return StackSubject(stack); });
    }
  }
}

/// A pool of ours that is reset: `Pool` is its type, or Resource for who does not know it.
template <class Pool>
class ResetSubject {
 public:
  explicit ResetSubject(const std::string& stack)
      : stack_(open(stack)), pool_(dynamic_cast<Pool*>(&*stack_)) {}

  [[nodiscard]] void* allocate(std::size_t bytes) { return pool_->allocate(bytes).memory; }
  void reset() {
    pool_->reset();
    // What learning took is no part of the steady state.
    if (++turns_ == learning_turns) pool_->reset_peaks();
  }
  [[nodiscard]] std::optional<std::size_t> peak_reserved() const {
    return pool_->stats().reserved.peak;
  }

 private:
  static constexpr std::size_t learning_turns = 4;

  Stack stack_;
  Pool* pool_;
  std::size_t turns_ = 0;
};

/// The least that an allocator can do: a pointer that is moved along.
class BumpSubject {
 public:
  BumpSubject() : memory_(std::make_unique_for_overwrite<std::byte[]>(capacity)) {}

  [[nodiscard]] void* allocate(std::size_t bytes) {
    const std::size_t start = used_;
    used_ += (bytes + granule - 1) & ~(granule - 1);
    if (used_ > capacity) throw std::bad_alloc();
    return memory_.get() + start;
  }
  void reset() {
    peak_ = std::max(peak_, used_);
    used_ = 0;
  }
  [[nodiscard]] std::optional<std::size_t> peak_reserved() const { return peak_; }

 private:
  static constexpr std::size_t capacity = std::size_t{2} << 30U;
  static constexpr std::size_t granule = 64;

  std::unique_ptr<std::byte[]> memory_;  // NOLINT(modernize-avoid-c-arrays): sized at run time
  std::size_t used_ = 0;
  std::size_t peak_ = 0;
};

/// The standard library's arena, over memory that is large enough.
class MonotonicSubject {
 public:
  MonotonicSubject() : memory_(std::make_unique_for_overwrite<std::byte[]>(capacity)) {}

  [[nodiscard]] void* allocate(std::size_t bytes) { return arena_.allocate(bytes, 64); }
  void reset() { arena_.release(); }
  [[nodiscard]] static std::optional<std::size_t> peak_reserved() { return std::nullopt; }

 private:
  static constexpr std::size_t capacity = std::size_t{2} << 30U;

  std::unique_ptr<std::byte[]> memory_;  // NOLINT(modernize-avoid-c-arrays): sized at run time
  std::pmr::monotonic_buffer_resource arena_{memory_.get(), capacity,
                                             std::pmr::null_memory_resource()};
};

/// The C library's malloc.
class GlibcSubject {
 public:
  using Handle = void*;

  [[nodiscard]] static Handle allocate(std::size_t bytes) {
    void* memory = std::malloc(bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
  }
  static void free(Handle memory, std::size_t /*bytes*/) { std::free(memory); }
  static std::byte* address(Handle memory) { return static_cast<std::byte*>(memory); }
  [[nodiscard]] static std::optional<std::size_t> peak_reserved() { return MappedGrowth::peak(); }

 private:
  MappedGrowth growth_{mallinfo2().fordblks};  // the command has used this malloc before
};

/// A library that is opened at run time, by two pointers to its functions. Calls into a shared
/// library go through such pointers anyway: glibc's pair is no slower this way.
class LibrarySubject {
 public:
  using Handle = void*;

  explicit LibrarySubject(const PeerLibrary& peer) : functions_(opened(peer)) {}

  [[nodiscard]] Handle allocate(std::size_t bytes) const {
    void* memory = functions_.allocate(bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
  }
  void free(Handle memory, std::size_t /*bytes*/) const { functions_.free(memory); }
  static std::byte* address(Handle memory) { return static_cast<std::byte*>(memory); }
  [[nodiscard]] static std::optional<std::size_t> peak_reserved() { return MappedGrowth::peak(); }

 private:
  static PeerFunctions opened(const PeerLibrary& peer) {
    auto functions = open_peer(peer);
    if (!functions) throw std::runtime_error(functions.error());
    return *functions;
  }

  PeerFunctions functions_;
  MappedGrowth growth_;  // from when the library is open
};

/// The standard library's pools over operator new, with pools for blocks as large as it allows:
/// `Pool` is the kind under one mutex or the one for one thread.
template <class Pool>
class PmrSubject {
 public:
  using Handle = void*;

  [[nodiscard]] Handle allocate(std::size_t bytes) { return pool_.allocate(bytes); }
  void free(Handle memory, std::size_t bytes) { pool_.deallocate(memory, bytes); }
  static std::byte* address(Handle memory) { return static_cast<std::byte*>(memory); }
  [[nodiscard]] std::optional<std::size_t> peak_reserved() const { return upstream_.peak(); }

 private:
  class Counting final : public std::pmr::memory_resource {
   public:
    [[nodiscard]] std::size_t peak() const noexcept { return peak_; }

   private:
    void* do_allocate(std::size_t bytes, std::size_t alignment) override {
      void* memory = std::pmr::new_delete_resource()->allocate(bytes, alignment);
      current_ += bytes;
      peak_ = std::max(peak_, current_);
      return memory;
    }
    void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
      std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
      current_ -= bytes;
    }
    [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
      return this == &other;
    }

    std::size_t current_ = 0;
    std::size_t peak_ = 0;
  };

  static constexpr std::size_t largest_pool_block = std::size_t{64}
                                                    << 20;  // it takes what it can of this

  Counting upstream_;
  Pool pool_{std::pmr::pool_options{.max_blocks_per_chunk = 0,
                                    .largest_required_pool_block = largest_pool_block},
             &upstream_};
};

struct UnsynchronizedSubject : PmrSubject<std::pmr::unsynchronized_pool_resource> {
  static constexpr bool is_for_one_thread = true;
};

/// What a coalescing pool does without its lock and its figures: places in one range that is always
/// large enough.
class SuballocatorSubject {
 public:
  static constexpr bool is_for_one_thread = true;
  using Handle = Chunk*;

  SuballocatorSubject() : parts_(nullptr, {}) {
    parts_.adopt(Block{.bytes = range}, start, 0, Stream{});
  }

  [[nodiscard]] Handle allocate(std::size_t bytes) {
    Chunk* block = parts_.take({.bytes = (bytes + granule - 1) / granule * granule});
    if (block == nullptr) throw std::bad_alloc();
    block->begin_life();
    extent_ = std::max(extent_, block->end() - start);
    return block;
  }
  void free(Handle block, std::size_t /*bytes*/) {
    block->end_life();
    parts_.put(block, Stream{});
  }
  static const void* address(Handle block) { return block; }
  [[nodiscard]] std::optional<std::size_t> peak_reserved() const { return extent_; }

 private:
  static constexpr std::size_t range = std::size_t{1} << 40U;
  static constexpr std::size_t granule = 512;
  static constexpr std::uintptr_t start = 1U << 20U;

  Suballocator parts_;
  std::size_t extent_ = 0;
};

/// Exact best fit in one growing range, as it is usually written: an ordered set of holes by size
/// and another by address.
class BestFitSetSubject {
 public:
  static constexpr bool is_for_one_thread = true;
  struct Handle {
    std::size_t start = 0;
    std::size_t bytes = 0;
  };

  [[nodiscard]] Handle allocate(std::size_t requested) {
    const std::size_t bytes = (requested + granule - 1) / granule * granule;
    const auto hole = by_size_.lower_bound({bytes, 0});
    if (hole == by_size_.end()) return append(bytes);
    const auto [size, start] = *hole;
    erase(start, size);
    if (size > bytes) insert(start + bytes, size - bytes);
    return {start, bytes};
  }
  void free(Handle block, std::size_t /*bytes*/) {
    auto after = by_start_.lower_bound(block.start);
    if (after != by_start_.end() && after->first == block.start + block.bytes) {
      block.bytes += after->second;
      erase(after->first, after->second);
      after = by_start_.lower_bound(block.start);
    }
    if (after != by_start_.begin()) {
      const auto [start, size] = *std::prev(after);
      if (start + size == block.start) {
        erase(start, size);
        block = {start, block.bytes + size};
      }
    }
    insert(block.start, block.bytes);
  }
  static const void* address(const Handle& block) { return &block; }
  [[nodiscard]] std::optional<std::size_t> peak_reserved() const { return extent_; }

 private:
  static constexpr std::size_t granule = 512;

  Handle append(std::size_t bytes) {
    std::size_t start = extent_;
    if (!by_start_.empty()) {
      const auto [last, size] = *std::prev(by_start_.end());
      if (last + size == extent_) {
        erase(last, size);
        start = last;
      }
    }
    extent_ = start + bytes;
    return {start, bytes};
  }
  void insert(std::size_t start, std::size_t bytes) {
    by_size_.insert({bytes, start});
    by_start_.insert({start, bytes});
  }
  void erase(std::size_t start, std::size_t bytes) {
    by_size_.erase({bytes, start});
    by_start_.erase(start);
  }

  std::set<std::pair<std::size_t, std::size_t>> by_size_;
  std::map<std::size_t, std::size_t> by_start_;
  std::size_t extent_ = 0;
};

/// Calls `visit(name, make)` for every allocator of others; `make()` is a fresh one.
template <class Visit>
void each_peer(Visit&& visit) {
  visit("peer:glibc", [] { return GlibcSubject(); });
  for (const PeerLibrary& peer : peer_libraries)
    visit(peer.subject, [&peer] { return LibrarySubject(peer); });
  visit("peer:pmr_synchronized", [] { return PmrSubject<std::pmr::synchronized_pool_resource>(); });
  visit("peer:pmr_unsynchronized", [] { return UnsynchronizedSubject(); });
}

/// The same for our stacks, those that the user names among them, and for others' allocators.
template <class Visit>
void each_subject(const std::vector<std::string>& stacks, Visit&& visit) {
  visit("cistern:cache", [] { return StackSubject("cache > host"); });
  visit("cistern:cache(pow2)", [] { return StackSubject("cache(buckets=pow2) > host"); });
  visit("cistern:coalesce", [] { return StackSubject("coalesce > host"); });
  visit("cistern:virtual", [] { return StackSubject("virtual > host"); });
  visit("cistern:netcl", [] { return StackSubject("netcl > host"); });
  visit("cistern:mlx", [] { return StackSubject("mlx > host"); });
  each_named_stack(stacks, visit);
  each_peer(visit);
}

/// The same for what learns turns, or takes all of a turn back at once.
template <class Visit>
void each_arena(Visit&& visit) {
  visit("cistern:arena", [] { return ResetSubject<Arena>("arena > coalesce > host"); });
  visit("cistern:arena (virtual call)",
        [] { return ResetSubject<Resource>("arena > coalesce > host"); });
  visit("cistern:planned", [] { return ResetSubject<Planned>("planned > coalesce > host"); });
  visit("cistern:planned (virtual call)",
        [] { return ResetSubject<Resource>("planned > coalesce > host"); });
  visit("peer:bump_pointer", [] { return BumpSubject(); });
  visit("peer:pmr_monotonic", [] { return MonotonicSubject(); });
}

/// The same for what places blocks in memory that is never touched: what of it each reserves can be
/// compared to the byte.
template <class Visit>
void each_placer(const std::vector<std::string>& stacks, Visit&& visit) {
  visit("cistern:coalesce",
        [] { return StackSubject("coalesce > simulated(capacity=1TiB, extensible=true)"); });
  visit("cistern:coalesce (regions)",
        [] { return StackSubject("coalesce > simulated(capacity=1TiB)"); });
  visit("cistern:coalesce (one class)", [] {
    return StackSubject(
        "coalesce(classes=none, regions=none, place=best) > simulated(capacity=1TiB, "
        "extensible=true)");
  });
  visit("cistern:suballocator", [] { return SuballocatorSubject(); });
  visit("cistern:virtual (64KiB)",
        [] { return StackSubject("virtual(page=64KiB) > simulated(capacity=1TiB)"); });
  visit("cistern:cache", [] { return StackSubject("cache > simulated(capacity=1TiB)"); });
  each_named_stack(stacks, visit);
  visit("peer:best_fit_set", [] { return BestFitSetSubject(); });
  each_peer(visit);
}

}  // namespace cistern::command
