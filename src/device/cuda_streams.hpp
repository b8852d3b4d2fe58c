// The streams of a CUDA context that the program has made known. All devices in the context share
// them: a stream that uses memory of one (the GPU's, say) uses that of another too (managed memory,
// where a stack falls back on it), and each must be able to wait for it. Which of them were asked
// for a stream or have used it is noted: what waits for all streams leaves those of others alone,
// whose programs may have destroyed them since. Thread-safe.
#pragma once

#include <array>
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

/// What the devices in one context share.
class CudaStreamTable {
 public:
  /// A bit for a device; beyond 64 of them, several have the same.
  using Members = std::uint64_t;

  CudaStreamTable(const CudaApi& api, CUctx_st* context) noexcept : api_(api), context_(context) {}

  /// That of `context`: one object, as long as anyone has it. Throws std::bad_alloc.
  static std::shared_ptr<CudaStreamTable> of(const CudaApi& api, CUctx_st* context);

  [[nodiscard]] Members enter() noexcept;
  /// The streams stay known: pools of other devices may have memory that was freed on them.
  void leave(Members member) noexcept;

  Stream add(CUstream_st* handle, Members member);
  [[nodiscard]] CudaQueue queue_of(Stream stream, Members member) noexcept;
  void forget(Stream stream) noexcept;
  [[nodiscard]] std::optional<Stream> next_after(Stream stream, Members member) noexcept;

 private:
  friend class CudaQueue;

  struct Known {
    CUstream_st* handle = nullptr;
    unsigned long long driver_id = 0;  // tells a handle that is used again; 0 where it did not say
    std::uint64_t thread = 0;          // whose default stream it is; 0 for any other stream
    Members members = 0;               // that were asked for it or have used it
    unsigned uses = 0;
    bool is_leaving = false;
  };
  using Table = std::map<std::uint64_t, Known>;

  [[nodiscard]] bool is_captured(CUstream_st* handle) const noexcept;
  void check_context_of(CUstream_st* handle) const;
  [[nodiscard]] unsigned long long driver_id_of(CUstream_st* handle) const noexcept;
  void let_go(std::uint64_t stream) noexcept;
  void remove(Table::iterator known) noexcept;  // under the lock

  const CudaApi& api_;
  CUctx_st* const context_;
  std::mutex mutex_;  // guards all below
  std::condition_variable let_go_;
  std::array<unsigned, 64> devices_{};  // that have each bit
  Table known_;
};

/// The streams as one device knows them.
class CudaStreams {
 public:
  /// Those of `context`. Throws std::bad_alloc.
  CudaStreams(const CudaApi& api, CUctx_st* context)
      : table_(CudaStreamTable::of(api, context)), member_(table_->enter()) {}
  CudaStreams(const CudaStreams&) = delete;
  CudaStreams& operator=(const CudaStreams&) = delete;
  CudaStreams(CudaStreams&&) = delete;
  CudaStreams& operator=(CudaStreams&&) = delete;
  ~CudaStreams() { table_->leave(member_); }

  /// The default stream needs no context, and is not added.
  [[nodiscard]] static bool is_default(CUstream_st* handle) noexcept;
  /// True for the handle that is another stream on each thread.
  [[nodiscard]] static bool is_per_thread(CUstream_st* handle) noexcept;

  /// The one that stands for `handle`, the same for the same one until it is forgotten; called
  /// with the context current. Throws std::invalid_argument for a stream of another context, unless
  /// that is captured, and std::runtime_error if the driver fails.
  Stream add(CUstream_st* handle) { return table_->add(handle, member_); }

  /// Empty for a stream that was forgotten or is no stream of this context.
  [[nodiscard]] CudaQueue queue_of(Stream stream) noexcept;
  /// The same, or the default one.
  [[nodiscard]] CudaQueue queue_or_default(Stream stream) noexcept;

  /// By all devices, and not before those who use it have let go of it.
  void forget(Stream stream) noexcept { table_->forget(stream); }

  /// Whether this device has used the default stream.
  [[nodiscard]] bool uses_default() const noexcept {
    return uses_default_.load(std::memory_order_relaxed);
  }
  /// Of the other streams that it was asked for or has used, the first that was added after
  /// `stream`; none if that was the last.
  [[nodiscard]] std::optional<Stream> next_after(Stream stream) noexcept {
    return table_->next_after(stream, member_);
  }

 private:
  const std::shared_ptr<CudaStreamTable> table_;
  const CudaStreamTable::Members member_;
  std::atomic<bool> uses_default_{false};
};

}  // namespace cistern
