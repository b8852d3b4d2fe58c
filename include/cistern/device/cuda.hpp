// The memory of a CUDA GPU: its own, managed memory that moves between it and the host, pinned
// memory of the host, and what the driver's own pool keeps. Nothing is linked and no toolkit is
// needed: the driver is looked for when a device is made, and where there is none, or no GPU,
// `DeviceAbsent` says so.
//
// All happens in a context of the program's: that which is current on the thread of the first
// request, if it is of this GPU, else the primary one, which the runtime API, PyTorch and CuPy use.
// No context is made before the first request, and whatever is current on a thread stays so.
//
// Streams are CUDA's. The default one is the legacy default stream; any other stream of the context
// becomes one through `stream(handle)`, the per-thread default stream for each thread its own. CUDA
// does not count the references to a stream: the program retires it before it destroys it, for all
// devices at once and not while it is captured, or has closed those that were asked for it and
// whose memory was used on it. The order of reuse is that of `core/stream_order.hpp`.
//
// While a stream is captured into a graph, blocks that a pool has idle are handed out on it as
// ever, if the stream that freed them is not captured as well, or into the same graph. A request
// that needs the driver fails (`Errc::in_capture`), and what goes back to the driver on such a
// stream goes once the capture has ended. What was freed on the default stream cannot be handed out
// while a blocking stream is captured. Work that a block was freed behind is no part of the graph:
// launch it behind the streams that were captured, or synchronize them before the capture. A graph
// uses its addresses whenever it is launched: hold its blocks as long as it lives, or pin the plan
// that they are of (`Planned::pin`). Where memory was used on two streams of which neither can wait
// for the other, since both are captured apart, or one is the default stream beside a blocking one
// that is captured, it is freed after the capture. What a device cannot give back because it ends
// during a capture stays the process's, after a line on standard error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cistern/core/device.hpp"

// As the driver's header declares them: CUcontext and CUstream, or cudaStream_t, are pointers.
struct CUctx_st;     // NOLINT(readability-identifier-naming)
struct CUstream_st;  // NOLINT(readability-identifier-naming)

namespace cistern {

struct CudaApi;

class CudaDevice final : public Device {
 public:
  enum class Memory : std::uint8_t {
    device,   // the GPU's (cuMemAlloc)
    managed,  // moves to where it is used, so that there can be more of it than the GPU has
    pinned,   // the host's, for fast transfers
    async,    // the GPU's, of a pool of the driver's that keeps what is freed
  };
  static constexpr std::size_t automatic_ceiling = static_cast<std::size_t>(-1);

  struct Options {
    unsigned device = 0;  // its number, as the driver counts
    Memory memory = Memory::device;
    // Bytes that all objects for the same memory hold together, at most; 0 for what there is. Of
    // the GPU's memory the automatic one leaves a tenth and at least 1 GiB to others, or half of a
    // small GPU; of managed and pinned memory it is none.
    std::size_t ceiling = automatic_ceiling;
    std::size_t staging = std::size_t{4}
                          << 20;  // bytes of the host through which uploads pass; 0: none
  };

  /// Throws DeviceAbsent if there is no driver or no such GPU, or if the GPU has no memory of the
  /// kind; std::invalid_argument where the ceiling is from 1 to 255 bytes; std::runtime_error with
  /// the name of the error if the driver fails.
  explicit CudaDevice(const Options& options);

  /// In this context of the program's, which outlives the device and its blocks, and on its GPU.
  CudaDevice(CUctx_st* context, const Options& options);

  /// For tests: the same two with entry points of their own, which outlive the device.
  CudaDevice(const CudaApi& api, const Options& options);
  CudaDevice(const CudaApi& api, CUctx_st* context, const Options& options);

  /// The GPU's number, as the driver counts.
  [[nodiscard]] int ordinal() const noexcept;
  [[nodiscard]] Memory memory() const noexcept;

  /// Null before the first request.
  [[nodiscard]] CUctx_st* context() const noexcept;

  /// The stream that stands for `handle`, the same for the same one until it is retired. Null and
  /// CU_STREAM_LEGACY are the default stream. CU_STREAM_PER_THREAD is that of the calling thread.
  /// All devices in the context know it, so that a stack may fall back from one kind of memory on
  /// another; those of other contexts do not.
  /// Throws std::invalid_argument for a stream of another context, unless that is captured, when it
  /// must not be asked about, and std::runtime_error if the driver fails. A stream that the program
  /// has destroyed must not be named: the driver does not know it from any other address.
  /// Thread-safe.
  [[nodiscard]] Stream stream(CUstream_st* handle);

  /// True while the stream is captured into a graph.
  [[nodiscard]] bool is_captured(Stream stream) noexcept;

  /// True once the driver has said that the context is broken, by a kernel or by the hardware: no
  /// request will succeed any more, and each fails with the same error.
  [[nodiscard]] bool is_broken() const noexcept;

  /// One for each GPU and kind of memory: objects for the same one stand for the same memory.
  [[nodiscard]] PoolRegistry& registry() noexcept override;
  /// What is left of the ceiling and, once there is a context, what the driver says is free.
  [[nodiscard]] std::size_t free_memory() const noexcept override;

  /// Pages of the GPU's memory behind reserved addresses, from the driver's granularity to 1 GiB.
  /// Of `device` memory only, and for this GPU's use alone, as is `async` memory. What is unmapped
  /// in the order of a captured stream stays mapped until the capture has ended.
  [[nodiscard]] VirtualMemory* virtual_memory() noexcept override;
  /// The default stream cannot be retired: it is only waited for. What stands in another thread's
  /// per-thread default stream is waited for by way of the legacy one, that is, with all else.
  [[nodiscard]] StreamOrder* stream_order() noexcept override;
  /// Of managed memory: the GPU becomes its preferred location, and it is moved there.
  [[nodiscard]] Residency* residency() noexcept override;
  /// Copies and fills on a captured stream become a part of the graph; an upload or a download on
  /// one fails with in_capture. Where other streams have all of the staging memory in use, an
  /// upload waits for its own stream, and never for theirs.
  [[nodiscard]] Transfer* transfer() noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  class State;
  class Order;
  class Pages;
  class Prefetch;
  class Copies;
  friend class CudaScope;

  explicit CudaDevice(std::unique_ptr<State> state);
  ~CudaDevice() override;
  static DeviceLimits limits_of(const State& state);

  Expected<Piece> obtain(std::size_t bytes, std::size_t alignment, Stream stream) noexcept override;
  void give_back(Piece piece, Stream stream) noexcept override;
  void trim_to(std::size_t keep_bytes) noexcept override;
  [[nodiscard]] std::size_t kept_idle() const noexcept override;

  const std::unique_ptr<State> state_;
  const std::unique_ptr<Order> order_;
  const std::unique_ptr<Pages> pages_;  // null where there are none, as the next
  const std::unique_ptr<Prefetch> prefetch_;
  const std::unique_ptr<Copies> copies_;
};

/// A GPU that was found, as `cistern devices` tells of it.
struct CudaFound {
  std::string name;
  int number = 0;
  int driver_version = 0;      // 12040 is 12.4
  int compute_capability = 0;  // 90 is 9.0
  std::size_t total_memory = 0;
  bool has_managed = false;
  bool has_concurrent_managed = false;  // which the host may touch while a kernel runs
  bool has_virtual_memory = false;
  bool has_async = false;
};

/// All there are; none, and why, where there is none. Makes no context.
std::vector<CudaFound> find_cuda_devices(std::string& why_none);

}  // namespace cistern
