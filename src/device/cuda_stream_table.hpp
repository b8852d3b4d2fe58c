// The streams of a CUDA context that the program has made known. All devices in the context share
// them: a stream that uses memory of one (the GPU's, say) uses that of another too (managed memory,
// where a stack falls back on it), and each must be able to wait for it. Thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "cistern/core/block.hpp"
#include "device/cuda_api.hpp"

namespace cistern {

class CudaStreamTable;

/// A stream that may be used: it is not forgotten before this ends. Move-only.
class CudaQueue {
 public:
  CudaQueue() noexcept = default;
  /// `id` is that of what is known of the stream, 0 where nothing need be.
  CudaQueue(CudaStreamTable& streams, CUstream_st* handle, std::uint64_t id) noexcept
      : streams_(&streams), handle_(handle), id_(id) {}
  CudaQueue(CudaQueue&& other) noexcept
      : streams_(std::exchange(other.streams_, nullptr)), handle_(other.handle_), id_(other.id_) {}
  CudaQueue(const CudaQueue&) = delete;
  CudaQueue& operator=(const CudaQueue&) = delete;
  CudaQueue& operator=(CudaQueue&&) = delete;
  ~CudaQueue();

  [[nodiscard]] CUstream_st* get() const noexcept { return handle_; }
  explicit operator bool() const noexcept { return streams_ != nullptr; }

 private:
  CudaStreamTable* streams_ = nullptr;
  CUstream_st* handle_ = nullptr;
  std::uint64_t id_ = 0;
};

class CudaStreamTable {
 public:
  CudaStreamTable(const CudaApi& api, CUctx_st* context) noexcept : api_(api), context_(context) {}

  /// Those of `context`: one object, as long as anyone has it. Throws std::bad_alloc.
  static std::shared_ptr<CudaStreamTable> of(const CudaApi& api, CUctx_st* context);

  /// The default stream needs no context, and is not added.
  [[nodiscard]] static bool is_default(CUstream_st* handle) noexcept;

  /// The one that stands for `handle`, the same for the same one until it is forgotten; called with
  /// the context current. Throws std::invalid_argument for a stream of another context,
  /// std::runtime_error if the driver fails.
  Stream add(CUstream_st* handle);

  /// Empty for a stream that was forgotten or is no stream of this context.
  [[nodiscard]] CudaQueue queue_of(Stream stream) noexcept;
  /// The same, or the default one.
  [[nodiscard]] CudaQueue queue_or_default(Stream stream) noexcept;

  /// Not before those who use it have let go of it.
  void forget(Stream stream) noexcept;

  [[nodiscard]] bool uses_default() const noexcept {
    return uses_default_.load(std::memory_order_relaxed);
  }
  /// The first that was added after `stream`; none if that was the last.
  [[nodiscard]] std::optional<Stream> next_after(Stream stream) noexcept;

 private:
  friend class CudaQueue;

  struct Known {
    CUstream_st* handle = nullptr;
    unsigned long long driver_id = 0;  // tells a handle that is used again; 0 where it did not say
    std::uint64_t thread = 0;          // whose default stream it is; 0 for any other stream
    unsigned uses = 0;
    bool is_leaving = false;
  };

  void check_context_of(CUstream_st* handle) const;
  [[nodiscard]] unsigned long long driver_id_of(CUstream_st* handle) const noexcept;
  void let_go(std::uint64_t stream) noexcept;

  const CudaApi& api_;
  CUctx_st* const context_;
  std::atomic<bool> uses_default_{false};
  std::mutex mutex_;  // guards all below
  std::condition_variable let_go_;
  std::map<std::uint64_t, Known> known_;
};

}  // namespace cistern
