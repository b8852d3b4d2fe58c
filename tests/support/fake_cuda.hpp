// A CUDA driver without a GPU: the entry points that the library uses, over memory of the host. It
// keeps the driver's rules and notes whoever breaks them: contexts are current on threads, memory
// is freed once and where it was obtained, pages are unmapped as they were mapped, a stream that is
// captured is not waited for, and memory goes back after what uses it. Every call can fail on
// demand. Work is launched by tests, and stands in simulated queues until it is run.
//
// Two calls never fail: those that put back what was found on a thread. A call that gives something
// up does so even where it fails, as the driver's do: the error may be an earlier kernel's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cistern/device/simulated_queues.hpp"
#include "device/cuda_api.hpp"

namespace cistern::testing {

class FakeDriver;

/// One at a time: entry points are plain functions. While it lives it is what the library takes for
/// the system's driver. Thread-safe but for its beginning and its end.
class FakeCuda {
 public:
  struct Machine {
    int gpus = 1;
    std::size_t memory = std::size_t{24} << 30;
    std::size_t page = std::size_t{2} << 20;
    bool has_virtual_memory = true;
    bool has_pools = true;
    bool has_managed = true;
    bool has_concurrent_managed = true;
  };

  FakeCuda() : FakeCuda(Machine{}) {}
  explicit FakeCuda(const Machine& machine);
  FakeCuda(const FakeCuda&) = delete;
  FakeCuda& operator=(const FakeCuda&) = delete;
  FakeCuda(FakeCuda&&) = delete;
  FakeCuda& operator=(FakeCuda&&) = delete;
  ~FakeCuda();

  [[nodiscard]] const CudaApi& api() const noexcept { return api_; }
  /// Takes an entry point away, as of a driver that is older.
  [[nodiscard]] CudaApi& changeable_api() noexcept { return api_; }

  // --- failures on demand ---

  /// The n-th call from now fails; 0 takes it back.
  void fail_next(std::size_t n, CudaResult code);
  /// The calls that can fail, so far; and the last that did on demand.
  [[nodiscard]] std::size_t calls() const;
  [[nodiscard]] std::string failed_call() const;
  /// Every call in the primary context of the GPU fails from now on.
  void break_context(CudaResult code, int gpu = 0);

  // --- what the program does itself, which never fails and is not counted ---

  [[nodiscard]] CUctx_st* make_context(int gpu = 0);
  [[nodiscard]] CUctx_st* primary_context(int gpu = 0);
  void push(CUctx_st* context);
  void pop();
  [[nodiscard]] CUctx_st* current() const;
  /// In the current context, or the first GPU's primary one.
  [[nodiscard]] CUstream_st* make_stream(bool is_blocking = true);
  void destroy_stream(CUstream_st* stream);
  /// Destroys it, and makes another that happens to have the same handle.
  void reuse_handle(CUstream_st* stream);
  void begin_capture(CUstream_st* stream, CudaCaptureMode mode = CudaCaptureMode::global);
  /// As by waiting for an event of the capture.
  void join_capture(CUstream_st* stream, CUstream_st* captured);
  /// False if the capture was broken meanwhile.
  bool end_capture(CUstream_st* stream);
  [[nodiscard]] bool is_captured(CUstream_st* stream) const;
  void wait(CUstream_st* waiter, CUstream_st* on);
  void synchronize(CUstream_st* stream);
  /// Work that uses memory; on a stream that is captured it is a part of the graph, and not run.
  void launch(CUstream_st* stream, std::span<const SimulatedQueues::Use> uses);
  void launch(CUstream_st* stream, std::initializer_list<SimulatedQueues::Use> uses) {
    launch(stream, std::span(uses.begin(), uses.size()));
  }
  [[nodiscard]] SimulatedQueues& queues() const;
  /// From now on no event is said to have passed unless it was waited for.
  void hold_events(bool is_held);

  // --- what can be seen ---

  struct Figures {
    std::size_t used = 0;      // bytes of all GPUs' memory
    std::size_t host = 0;      // pinned bytes
    std::size_t managed = 0;   // bytes
    std::size_t reserved = 0;  // bytes of addresses
    std::size_t contexts = 0;  // primary ones that are retained by the library
    std::size_t events = 0;    // that are there
    std::size_t events_made = 0;
    std::size_t waits = 0;  // of streams for events
    std::size_t prefetches = 0;
    std::size_t preferred = 0;  // bytes with a preferred location
    std::size_t allocations = 0;
  };
  [[nodiscard]] Figures figures() const;
  /// What the library got from the driver and has not given back, in words; empty if nothing.
  [[nodiscard]] std::string leaks() const;
  /// Rules that were broken, and work that uses the same bytes without an order between.
  [[nodiscard]] std::vector<std::string> misuses() const;

 private:
  CudaApi api_;
  const std::unique_ptr<FakeDriver> driver_;
};

}  // namespace cistern::testing
