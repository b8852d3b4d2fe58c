// The memory of an OpenCL device, 1.2 to 3.0, as cl_mem objects or as shared virtual addresses.
// Nothing is linked: the loader is looked for when a device is made, and where there is none, or no
// platform, `DeviceAbsent` says so.
//
// Drivers put off backing memory until it is used, and then fail in a kernel. So memory is backed
// when it is obtained, on a queue of the device's own: the program's may stand behind events of its
// own. The device's limits are honoured before the driver is asked.
//
// A pool above hands out pieces of objects: `Block::memory` is the cl_mem and `Block::offset`
// counts from its start. A kernel is given `object(block)`.
//
// Streams are command queues. The default one is the queue that the device was made with, which
// runs in order; any other queue of the same context becomes a stream through `stream(queue)`. The
// device retains all of them until they are retired, so the program may release them early. The
// order of reuse is that of `core/stream_order.hpp`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cistern/core/device.hpp"

// As the Khronos headers declare them, which a program includes for itself.
struct _cl_command_queue;  // NOLINT(bugprone-reserved-identifier)
struct _cl_context;        // NOLINT(bugprone-reserved-identifier)
struct _cl_device_id;      // NOLINT(bugprone-reserved-identifier)
struct _cl_mem;            // NOLINT(bugprone-reserved-identifier)

namespace cistern {

struct OpenClApi;

/// What a kernel is given for a block: the object itself, or a sub-buffer. Retained while this
/// lives.
class OpenClObject {
 public:
  OpenClObject() noexcept = default;
  OpenClObject(OpenClObject&& other) noexcept
      : api_(other.api_), object_(std::exchange(other.object_, nullptr)) {}
  OpenClObject& operator=(OpenClObject&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(object_, other.object_);
    return *this;
  }
  OpenClObject(const OpenClObject&) = delete;
  OpenClObject& operator=(const OpenClObject&) = delete;
  ~OpenClObject();

  [[nodiscard]] _cl_mem* get() const noexcept { return object_; }

 private:
  friend class OpenClDevice;
  OpenClObject(const OpenClApi& api, _cl_mem* object) noexcept : api_(&api), object_(object) {}

  const OpenClApi* api_ = nullptr;
  _cl_mem* object_ = nullptr;
};

class OpenClDevice final : public Device {
 public:
  enum class Memory : std::uint8_t {
    buffer,  // cl_mem objects
    svm,     // shared virtual memory: addresses that the device and its kernels know
    pinned,  // staging memory of the host that stays mapped, for fast transfers
  };
  enum class HostPointer : std::uint8_t {
    automatic,  // CL_MEM_ALLOC_HOST_PTR where the device shares the host's memory
    yes,
    no,
  };
  struct Options {
    std::string platform = {};  // a part of its name, or its number from 0; any where empty
    std::string device = {};    // the same, of the platform's devices
    Memory memory = Memory::buffer;
    HostPointer host_pointer = HostPointer::automatic;  // of `buffer`
    bool force_backing = true;
    std::size_t staging = std::size_t{4}
                          << 20;  // bytes of the host through which uploads pass; 0: none
  };

  /// On a context and a queue of its own. Throws DeviceAbsent if there is no such device,
  /// std::runtime_error with the name of the error if OpenCL fails.
  explicit OpenClDevice(const Options& options);

  /// On the program's context and queue, which are retained. The queue must run in order: throws
  /// std::invalid_argument if it does not (make it a stream instead) or is not of the context.
  OpenClDevice(_cl_context* context, _cl_command_queue* queue, const Options& options);

  /// For tests: the same two with entry points of their own, which outlive the device.
  OpenClDevice(const OpenClApi& api, const Options& options);
  OpenClDevice(const OpenClApi& api, _cl_context* context, _cl_command_queue* queue,
               const Options& options);

  /// The context of a program's queue. Throws DeviceAbsent where there is no OpenCL,
  /// std::runtime_error if it is no queue.
  [[nodiscard]] static _cl_context* context_of(_cl_command_queue* queue);

  [[nodiscard]] _cl_context* context() const noexcept;
  [[nodiscard]] _cl_device_id* id() const noexcept;
  /// That of the default stream.
  [[nodiscard]] _cl_command_queue* queue() const noexcept;

  /// The stream that stands for `queue`, the same for the same one until it is retired. Throws
  /// std::invalid_argument for a queue of another context. Thread-safe.
  [[nodiscard]] Stream stream(_cl_command_queue* queue);

  /// What a kernel is given for a block of this device, or of a pool above. Of `buffer` memory
  /// only. Sub-buffers are kept for the next time, a bounded number of them. Errors: invalid_block,
  /// unsupported, device_failed. Thread-safe.
  [[nodiscard]] Expected<OpenClObject> object(const Block& block) noexcept;

  /// True if buffers are obtained with CL_MEM_ALLOC_HOST_PTR.
  [[nodiscard]] bool uses_host_pointer() const noexcept;

  /// One for each device of the machine: objects for the same one stand for the same memory.
  [[nodiscard]] PoolRegistry& registry() noexcept override;
  /// What the device has in all, less what all objects for it in this process hold. OpenCL does not
  /// say what other programs hold.
  [[nodiscard]] std::size_t free_memory() const noexcept override;

  /// The default stream cannot be retired: it is only waited for.
  [[nodiscard]] StreamOrder* stream_order() noexcept override;
  /// Of buffers: clEnqueueMigrateMemObjects to the device. OpenCL knows no end of it: memory that
  /// is no longer resident may stay where it is.
  [[nodiscard]] Residency* residency() noexcept override;
  /// A transfer in a stream that runs out of order stands between two barriers. `upload` goes
  /// through the staging memory; where other streams have all of it in use, it waits for its own
  /// stream instead, and never for theirs. The end of the device waits for what was uploaded.
  [[nodiscard]] Transfer* transfer() noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  class State;
  class Order;
  class Migration;
  class Copies;

  explicit OpenClDevice(std::unique_ptr<State> state);
  ~OpenClDevice() override;
  static DeviceLimits limits_of(const State& state);

  Expected<Piece> obtain(std::size_t bytes, std::size_t alignment, Stream stream) noexcept override;
  void give_back(Piece piece, Stream stream) noexcept override;

  const std::unique_ptr<State> state_;
  const std::unique_ptr<Order> order_;
  const std::unique_ptr<Migration> migration_;
  const std::unique_ptr<Copies> copies_;
};

/// A device that was found, as `cistern devices` tells of it.
struct OpenClFound {
  std::string platform;
  std::string name;
  std::string version;
  std::size_t platform_number = 0;
  std::size_t device_number = 0;  // of its platform
  bool is_unified = false;        // shares the host's memory
  bool has_coarse_svm = false;
  bool has_fine_svm = false;
};

/// All there are; none, and why, where there is none.
std::vector<OpenClFound> find_opencl_devices(std::string& why_none);

}  // namespace cistern
