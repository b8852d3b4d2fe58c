// What a CUDA device holds of the driver's: the context, events to make streams wait, the driver's
// pool, and memory that cannot go back yet. Each is let go of once. Thread-safe.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cistern/device/cuda.hpp"
#include "device/cuda_api.hpp"
#include "device/cuda_streams.hpp"
#include "device/device_account.hpp"

namespace cistern {

/// What calls to the driver stand in: the device's context is current on this thread, and no other
/// thread's capture of a graph is disturbed or forbids anything. Both are put back as they were.
class CudaScope {
 public:
  /// Makes the context where there is none yet.
  explicit CudaScope(CudaDevice::State& state) noexcept;
  CudaScope(const CudaScope&) = delete;
  CudaScope& operator=(const CudaScope&) = delete;
  CudaScope(CudaScope&&) = delete;
  CudaScope& operator=(CudaScope&&) = delete;
  ~CudaScope();

  /// Whether calls can be made in it, or why not.
  [[nodiscard]] CudaResult result() const noexcept { return result_; }

 private:
  const CudaApi& api_;
  CudaResult result_;
  bool is_pushed_ = false;
  CudaCaptureMode mode_ = CudaCaptureMode::relaxed;
};

class CudaDevice::State {
 public:
  State(const CudaApi& entry_points, CUctx_st* users_context, const Options& asked);
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  State(State&&) = delete;
  State& operator=(State&&) = delete;
  ~State();

  const CudaApi& api;
  const Options options;
  CudaOrdinal id = 0;
  std::size_t total_memory = 0;  // that may be used
  std::size_t page = 0;          // the smallest that can be mapped; 0 where none can

  [[nodiscard]] bool has(CudaAttribute attribute) const;  // throws, as the next
  [[nodiscard]] bool is_host_addressable() const;
  [[nodiscard]] std::string name() const;

  /// Of a call that asks for memory.
  [[nodiscard]] Error fail(CudaResult code, std::size_t requested) noexcept;
  /// Of what asks for no memory, and so is never out_of_memory.
  [[nodiscard]] Expected<void> answer(CudaResult code, std::size_t requested = 0) noexcept;
  [[nodiscard]] bool is_broken() const noexcept {
    return broken_.load(std::memory_order_relaxed) != CudaResult::success;
  }
  [[nodiscard]] CudaResult broken() const noexcept {
    return broken_.load(std::memory_order_relaxed);
  }

  /// What the objects for this memory share.
  [[nodiscard]] DeviceAccount& account() const noexcept { return *account_; }

  // --- the context ---

  [[nodiscard]] CUctx_st* context() const noexcept {
    return context_.load(std::memory_order_acquire);
  }
  CudaResult open() noexcept;

  // --- streams: all are called within a scope ---

  [[nodiscard]] CudaStreams& streams() const noexcept { return *streams_; }
  CudaResult wait(Stream waiter, Stream on) noexcept;
  /// Of a stream that nobody else captures.
  CudaResult synchronize(CUstream_st* handle) const noexcept;
  CudaResult synchronize(Stream stream) noexcept;
  void retire(Stream stream) noexcept;
  /// Waits for all streams that were used; false if one cannot be waited for.
  bool synchronize_all() noexcept;
  /// Waits for one; false if that cannot be, as where it is captured, and something may go on.
  bool finish(Stream stream) noexcept;

  /// What a stream is in: a graph, which is told by a number; nothing, which is 0; or a capture of
  /// another stream stands in the way, and nothing can be enqueued.
  struct Capture {
    CudaResult result = CudaResult::success;
    std::uint64_t graph = 0;
    [[nodiscard]] bool is_none() const noexcept {
      return result == CudaResult::success && graph == 0;
    }
    /// That it cannot be waited for, or asked for memory: an error.
    [[nodiscard]] CudaResult refusal() const noexcept {
      return result != CudaResult::success ? result
             : graph != 0                  ? CudaResult::stream_capture_unsupported
                                           : CudaResult::success;
    }
  };
  [[nodiscard]] Capture capture_of(CUstream_st* handle) const noexcept;

  /// Null if there is none to be had.
  CUevent_st* take_event() noexcept;
  void put_event(CUevent_st* event) noexcept;

  /// A stream of the device's own, beside all others; null if there is none to be had.
  CUstream_st* own_stream() noexcept;

  // --- memory ---

  Expected<Piece> obtain(std::size_t bytes, Stream stream) noexcept;
  void give_back(const Piece& piece, Stream stream) noexcept;
  Expected<std::byte*> obtain_pinned(std::size_t bytes) noexcept;
  void give_back_pinned(void* memory) noexcept;
  /// Gives back what could not go while a stream was captured, and now can.
  void settle() noexcept;
  /// The same from outside of a scope.
  void reclaim() noexcept;
  /// The same, and what the driver's pool keeps beyond so many bytes.
  void trim(std::size_t keep_bytes) noexcept;
  [[nodiscard]] bool has_pool() const noexcept {
    return pool_.load(std::memory_order_acquire) != nullptr;
  }
  [[nodiscard]] std::size_t pool_idle() const noexcept;

  /// Says so once if memory could not be given back.
  void expect_freed(CudaResult code, std::size_t bytes) noexcept;
  /// Says that the memory stays the process's: it may be in use, and nothing can tell when no more.
  void report_left(std::size_t bytes) noexcept;

 private:
  struct Waiting {  // memory that goes back once its stream can be waited for
    Piece piece;
    Stream stream;
  };

  void find_device(CUctx_st* users_context);
  void read_device();
  CudaResult choose_context(CUctx_st*& chosen) noexcept;
  CudaResult record(CUevent_st* event, CUstream_st* handle, const Capture& before) const noexcept;
  [[nodiscard]] bool may_go(Stream stream) noexcept;
  void bound_pool(CUmemPoolHandle_st* from) noexcept;
  void trim_pool(CUmemPoolHandle_st* from, std::size_t keep_bytes) noexcept;
  CudaResult pool(CUmemPoolHandle_st*& made) noexcept;
  CudaResult ask(std::size_t bytes, CUstream_st* stream, void*& memory) noexcept;
  bool make_room_to_wait() noexcept;
  bool take_waiting(Waiting& taken) noexcept;
  void release(const Piece& piece, Stream stream) noexcept;
  void close() noexcept;
  void note(CudaResult code) noexcept;

  DeviceAccount* account_ = nullptr;
  std::unique_ptr<CudaStreams> streams_;  // of the context, and there before it is
  std::atomic<CUctx_st*> context_{nullptr};
  std::atomic<CudaResult> broken_{CudaResult::success};
  std::atomic<bool> has_reported_{false};
  std::atomic<CUmemPoolHandle_st*> pool_{nullptr};
  std::atomic<bool> has_waiting_{false};

  std::mutex open_mutex_;  // guards the two, and is held while they are made
  bool is_primary_ = false;
  CUstream_st* own_stream_ = nullptr;

  std::mutex mutex_;  // guards all below
  std::vector<CUevent_st*> events_;
  std::vector<Waiting> waiting_;  // has room for every piece that is out
  std::size_t pieces_ = 0;        // that are out
};

}  // namespace cistern
