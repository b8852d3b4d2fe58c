// What an OpenCL device holds of the driver's: the context, the queues that are its streams, and
// what goes with the memory it handed out. Each is let go of once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "cistern/device/opencl.hpp"
#include "device/device_account.hpp"
#include "device/opencl_api.hpp"

namespace cistern {

/// A reference to a queue, so that no other thread's retiring it ends it. Move-only.
class OpenClQueue {
 public:
  OpenClQueue() noexcept = default;
  /// Retains it; empty where that fails.
  OpenClQueue(const OpenClApi& api, cl_command_queue queue) noexcept
      : api_(&api), queue_(api.retain_command_queue(queue) == CL_SUCCESS ? queue : nullptr) {}
  OpenClQueue(OpenClQueue&& other) noexcept
      : api_(other.api_), queue_(std::exchange(other.queue_, nullptr)) {}
  OpenClQueue(const OpenClQueue&) = delete;
  OpenClQueue& operator=(const OpenClQueue&) = delete;
  OpenClQueue& operator=(OpenClQueue&&) = delete;
  ~OpenClQueue() {
    if (queue_ != nullptr) api_->release_command_queue(queue_);
  }

  [[nodiscard]] cl_command_queue get() const noexcept { return queue_; }
  explicit operator bool() const noexcept { return queue_ != nullptr; }

 private:
  const OpenClApi* api_ = nullptr;
  cl_command_queue queue_ = nullptr;
};

class OpenClDevice::State {
 public:
  State(const OpenClApi& entry_points, const Options& asked);
  State(const OpenClApi& entry_points, cl_context users_context, cl_command_queue users_queue,
        const Options& asked);
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  State(State&&) = delete;
  State& operator=(State&&) = delete;
  ~State();

  const OpenClApi& api;
  const Options options;
  cl_device_id id = nullptr;
  cl_context context = nullptr;
  cl_command_queue queue = nullptr;      // of the default stream
  cl_command_queue own_queue = nullptr;  // of the device alone: memory is backed on it
  bool is_unified = false;
  cl_device_svm_capabilities svm = 0;

  [[nodiscard]] cl_mem_flags buffer_flags() const noexcept;
  [[nodiscard]] bool has_fine_svm() const noexcept {
    return (svm & CL_DEVICE_SVM_FINE_GRAIN_BUFFER) != 0;
  }
  [[nodiscard]] static Error fail(cl_int code, std::size_t requested) noexcept;
  /// Of what asks for no memory, and so is device_failed whatever the code.
  [[nodiscard]] static Expected<void> answer(cl_int code) noexcept;

  /// What the objects for this device share.
  [[nodiscard]] DeviceAccount& account() const noexcept { return *account_; }

  /// Waits on the own queue for a command that was put into it, whose event this takes over, and
  /// answers how it ended: a driver may take a command and fail it later.
  cl_int finish_own(cl_event command) const noexcept;

  // --- streams; thread-safe ---

  Stream add_stream(cl_command_queue added);
  void retire(Stream stream) noexcept;
  /// Empty for a stream that was retired or is no queue's.
  [[nodiscard]] OpenClQueue queue_of(Stream stream) const noexcept;

  // --- memory; thread-safe ---

  Expected<Piece> obtain_buffer(std::size_t bytes, cl_mem_flags flags) noexcept;
  Expected<Piece> obtain_svm(std::size_t bytes) const noexcept;
  Expected<Piece> obtain_pinned(std::size_t bytes) noexcept;
  void give_back_buffer(cl_mem object) noexcept;
  void give_back_pinned(void* memory) noexcept;

  /// A reference of the caller's.
  Expected<cl_mem> object_of(const Block& block) noexcept;
  [[nodiscard]] std::size_t kept_sub_buffers() const noexcept;
  static constexpr std::size_t most_sub_buffers = 4096;

 private:
  using Part = std::pair<std::size_t, std::size_t>;  // offset and bytes
  struct Root {
    std::size_t bytes = 0;
    std::map<Part, cl_mem> parts;
  };

  void find_device();
  void require_context(cl_command_queue of, cl_context wanted) const;
  [[nodiscard]] bool runs_out_of_order(cl_command_queue of) const;
  void read_device();
  void make_queue(cl_command_queue& made) const;
  void close() noexcept;
  Expected<void> back(cl_mem object, std::size_t bytes) const noexcept;
  void drop_parts(Root& root) noexcept;

  DeviceAccount* account_ = nullptr;
  mutable std::mutex mutex_;  // guards all below
  std::map<std::uint64_t, cl_command_queue> streams_;
  std::map<cl_mem, Root> roots_;
  std::size_t sub_buffers_ = 0;
  std::map<void*, cl_mem> pinned_;
};

}  // namespace cistern
