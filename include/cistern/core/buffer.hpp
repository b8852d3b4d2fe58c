// The owner most programs use: memory that is freed when it goes out of scope. Move-only; not
// thread-safe by itself.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "cistern/core/resource.hpp"

namespace cistern {

/// A block and the resource it came from. The resource may be let go of while buffers of it live.
class Buffer {
 public:
  Buffer() noexcept = default;

  /// Allocates; throws `OutOfMemory`.
  Buffer(Resource& resource, const Request& request)
      : resource_(&resource), block_(resource.allocate_held(request)), stream_(request.stream) {}
  Buffer(Resource& resource, std::size_t bytes) : Buffer(resource, Request{.bytes = bytes}) {}

  /// Takes over a block that `resource` handed out. (Of an arena, one that `allocate_held` granted:
  /// any other comes to an end with the next reset.)
  Buffer(Resource& resource, const Block& block, Stream stream = {}) noexcept
      : resource_(&resource), block_(block), stream_(stream) {}

  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept
      : resource_(other.resource_),
        block_(std::exchange(other.block_, {})),
        stream_(other.stream_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      reset();
      resource_ = other.resource_;
      block_ = std::exchange(other.block_, {});
      stream_ = other.stream_;
    }
    return *this;
  }
  ~Buffer() { reset(); }

  /// The address of the first byte, where the device's memory has addresses; null for an empty
  /// buffer.
  [[nodiscard]] void* data() const noexcept { return block_.memory; }
  [[nodiscard]] std::size_t bytes() const noexcept { return block_.requested; }
  [[nodiscard]] std::size_t capacity() const noexcept { return block_.bytes; }
  [[nodiscard]] bool empty() const noexcept { return block_.empty(); }
  [[nodiscard]] const Block& block() const noexcept { return block_; }
  [[nodiscard]] Stream stream() const noexcept { return stream_; }
  /// Where the block came from; null for a buffer that never had one.
  [[nodiscard]] Resource* resource() const noexcept { return resource_; }

  /// The bytes requested as elements of `T`, which may be const. Only where the memory is
  /// host-addressable. Like a pointer, a const buffer is one that keeps its memory, not one whose
  /// memory is const.
  template <class T>
  [[nodiscard]] std::span<T> as() const noexcept {
    return {static_cast<T*>(data()), bytes() / sizeof(T)};
  }

  /// The stream in whose order the buffer will be freed; at first the one it was requested for.
  void set_stream(Stream stream) noexcept { stream_ = stream; }

  /// Makes the buffer larger where it lies, to at least `bytes`, as `Resource::try_grow` does. On
  /// failure it is as it was. An empty buffer lies nowhere and cannot grow.
  Expected<void> try_grow(std::size_t bytes) noexcept {
    if (block_.empty()) {
      return tl::unexpected(
          Error{.code = Errc::cannot_grow, .stage = "buffer", .requested = bytes});
    }
    return resource_->try_grow(block_, bytes).map([this](const Block& grown) { block_ = grown; });
  }

  /// Frees now. Empty afterwards.
  void reset() noexcept {
    if (!block_.empty()) resource_->deallocate(std::exchange(block_, {}), stream_);
  }

  /// Gives the block up to the caller, who must free it. Empty afterwards.
  [[nodiscard]] Block release() noexcept { return std::exchange(block_, {}); }

 private:
  Resource* resource_ = nullptr;
  Block block_{};
  Stream stream_{};
};

}  // namespace cistern
