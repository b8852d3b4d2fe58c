// What the benchmark measures: stacks of ours and allocators of others, all with the same three
// calls. They are types, not objects behind an interface, so that a fast peer is not made slower
// than it is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory_resource>
#include <new>
#include <optional>
#include <string>

#include "cistern/stack/stack.hpp"

namespace cistern::command {

/// One of our stacks.
class StackSubject {
 public:
  using Handle = Block;

  explicit StackSubject(const std::string& stack) : stack_(open(stack)), resource_(&*stack_) {}

  [[nodiscard]] Handle allocate(std::size_t bytes) { return resource_->allocate(bytes); }
  void free(const Handle& block, std::size_t /*bytes*/) { resource_->deallocate(block); }
  static std::byte* address(const Handle& block) { return static_cast<std::byte*>(block.memory); }
  [[nodiscard]] std::optional<std::size_t> peak_reserved() const {
    return resource_->stats().reserved.peak;
  }

 private:
  Stack stack_;
  Resource* resource_;
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
  [[nodiscard]] static std::optional<std::size_t> peak_reserved() { return std::nullopt; }
};

/// The standard library's pools under one mutex, over operator new, with pools for blocks as large
/// as it allows.
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
  std::pmr::synchronized_pool_resource pool_{
      std::pmr::pool_options{.max_blocks_per_chunk = 0,
                             .largest_required_pool_block = largest_pool_block},
      &upstream_};
};

/// Calls `visit(name, make)` for every subject; `make()` is a fresh one.
template <class Visit>
void each_subject(Visit&& visit) {
  visit("cistern:cache", [] { return StackSubject("cache > host"); });
  visit("cistern:cache(pow2)", [] { return StackSubject("cache(buckets=pow2) > host"); });
  visit("cistern:netcl", [] { return StackSubject("netcl > host"); });
  visit("cistern:mlx", [] { return StackSubject("mlx > host"); });
  visit("peer:glibc", [] { return GlibcSubject(); });
  visit("peer:pmr_synchronized", [] { return PmrSubject(); });
}

}  // namespace cistern::command
