// Where nodes come from: chunks that grow in number, never move and are never given back while the
// stack lives, with the nodes not in use in an intrusive free list. Taking and returning a node is
// O(1). Not thread-safe: the owner's lock guards it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "cistern/core/node.hpp"

namespace cistern {

/// `T` derives from `Node` and has a member `T* next_free`.
template <class T>
requires std::is_base_of_v<Node, T>
class Slab {
 public:
  explicit Slab(const Resource* owner) noexcept : owner_(owner) {}
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  Slab(Slab&&) = delete;
  Slab& operator=(Slab&&) = delete;
  ~Slab() {
    while (chunks_ != nullptr)
      delete std::exchange(chunks_, chunks_->next);
  }

  /// A node that is not in use, or null if the host itself is out of memory.
  T* take() noexcept {
    if (free_ == nullptr && !grow()) return nullptr;
    T* node = free_;
    free_ = node->next_free;
    return node;
  }

  void put(T* node) noexcept {
    node->next_free = free_;
    free_ = node;
  }

  /// Calls `visit(node)` for every node there is, in use or not.
  template <class Visit>
  void each(Visit&& visit) const {
    for (const Chunk* chunk = chunks_; chunk != nullptr; chunk = chunk->next) {
      for (std::size_t i = 0; i < chunk->size; ++i)
        visit(chunk->nodes[i]);
    }
  }

 private:
  struct Chunk {
    Chunk* next;
    std::size_t size;
    std::unique_ptr<T[]> nodes;  // NOLINT(modernize-avoid-c-arrays): sized at run time
  };

  bool grow() noexcept {
    const std::size_t size =
        chunks_ == nullptr ? smallest_chunk : std::min(chunks_->size * 2, largest_chunk);
    std::unique_ptr<T[]> nodes(new (std::nothrow) T[size]);  // NOLINT(modernize-avoid-c-arrays)
    if (nodes == nullptr) return false;
    auto* chunk = new (std::nothrow) Chunk{chunks_, size, std::move(nodes)};
    if (chunk == nullptr) return false;
    chunks_ = chunk;
    for (std::size_t i = size; i-- > 0;) {
      chunk->nodes[i].owner = owner_;
      put(&chunk->nodes[i]);
    }
    return true;
  }

  static constexpr std::size_t smallest_chunk = 32;
  static constexpr std::size_t largest_chunk = 4096;

  const Resource* owner_;
  Chunk* chunks_ = nullptr;
  T* free_ = nullptr;
};

}  // namespace cistern
