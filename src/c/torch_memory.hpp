// A stack for each GPU, for a program that asks by the GPU's number and a CUDA stream and keeps
// nothing but addresses. That is what PyTorch does; the C functions of `cistern/c/torch.h` are this
// without a class. Apart from them, so that it can be opened and closed over a driver that is not
// there. Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cistern/core/address_map.hpp"
#include "cistern/device/cuda.hpp"
#include "cistern/stack/stack.hpp"

namespace cistern {

class TorchMemory {
 public:
  static constexpr const char* default_stack = "retry > coalesce > cuda";
  static constexpr int most_gpus = 64;

  TorchMemory() = default;
  TorchMemory(const TorchMemory&) = delete;
  TorchMemory& operator=(const TorchMemory&) = delete;
  TorchMemory(TorchMemory&&) = delete;
  TorchMemory& operator=(TorchMemory&&) = delete;
  /// Gives back what has not been freed.
  ~TorchMemory();

  /// As the C functions.
  [[nodiscard]] void* allocate(std::size_t bytes, int gpu, CUstream_st* stream);
  void free(void* memory, int gpu, CUstream_st* stream) noexcept;
  void also_used_on(void* memory, CUstream_st* stream) noexcept;
  void retire(int gpu, CUstream_st* stream) noexcept;
  void trim() noexcept;

  /// All zero as long as there is no stack for this GPU.
  [[nodiscard]] Stats stats(int gpu) const noexcept;

  /// Ends what the stacks record (`trace`).
  void finish_recordings();

 private:
  struct OneGpu {
    Stack stack;
    CudaDevice* device = nullptr;  // null where the stack stands on another kind of device
    AddressMap blocks;

    [[nodiscard]] Block allocate(const Request& request) const;  // throws
    [[nodiscard]] Stream stream(CUstream_st* handle) const;      // throws
    [[nodiscard]] Stream stream_or_default(CUstream_st* handle) const noexcept;
  };

  [[nodiscard]] OneGpu* find(int gpu) const noexcept;
  OneGpu& find_or_open(int gpu);
  static std::unique_ptr<OneGpu> open_for(int gpu);

  std::array<std::atomic<OneGpu*>, most_gpus> gpus_{};
  std::mutex mutex_;                           // held while a stack is opened
  std::vector<std::unique_ptr<OneGpu>> open_;  // guarded by it
};

}  // namespace cistern
