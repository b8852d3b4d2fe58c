#include "device/cuda_api.hpp"

#include <atomic>
#include <stdexcept>

#include <dlfcn.h>

namespace cistern {
namespace {

struct NamedResult {
  std::uint32_t code = 0;
  const char* name = "";
  bool is_sticky = false;
};

constexpr NamedResult named_results[] = {
    {.code = 0, .name = "CUDA_SUCCESS"},
    {.code = 1, .name = "CUDA_ERROR_INVALID_VALUE"},
    {.code = 2, .name = "CUDA_ERROR_OUT_OF_MEMORY"},
    {.code = 3, .name = "CUDA_ERROR_NOT_INITIALIZED"},
    {.code = 4, .name = "CUDA_ERROR_DEINITIALIZED"},
    {.code = 5, .name = "CUDA_ERROR_PROFILER_DISABLED"},
    {.code = 6, .name = "CUDA_ERROR_PROFILER_NOT_INITIALIZED"},
    {.code = 7, .name = "CUDA_ERROR_PROFILER_ALREADY_STARTED"},
    {.code = 8, .name = "CUDA_ERROR_PROFILER_ALREADY_STOPPED"},
    {.code = 34, .name = "CUDA_ERROR_STUB_LIBRARY"},
    {.code = 36, .name = "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER"},
    {.code = 46, .name = "CUDA_ERROR_DEVICE_UNAVAILABLE"},
    {.code = 100, .name = "CUDA_ERROR_NO_DEVICE"},
    {.code = 101, .name = "CUDA_ERROR_INVALID_DEVICE"},
    {.code = 102, .name = "CUDA_ERROR_DEVICE_NOT_LICENSED"},
    {.code = 200, .name = "CUDA_ERROR_INVALID_IMAGE"},
    {.code = 201, .name = "CUDA_ERROR_INVALID_CONTEXT"},
    {.code = 202, .name = "CUDA_ERROR_CONTEXT_ALREADY_CURRENT"},
    {.code = 205, .name = "CUDA_ERROR_MAP_FAILED"},
    {.code = 206, .name = "CUDA_ERROR_UNMAP_FAILED"},
    {.code = 207, .name = "CUDA_ERROR_ARRAY_IS_MAPPED"},
    {.code = 208, .name = "CUDA_ERROR_ALREADY_MAPPED"},
    {.code = 209, .name = "CUDA_ERROR_NO_BINARY_FOR_GPU"},
    {.code = 210, .name = "CUDA_ERROR_ALREADY_ACQUIRED"},
    {.code = 211, .name = "CUDA_ERROR_NOT_MAPPED"},
    {.code = 212, .name = "CUDA_ERROR_NOT_MAPPED_AS_ARRAY"},
    {.code = 213, .name = "CUDA_ERROR_NOT_MAPPED_AS_POINTER"},
    {.code = 214, .name = "CUDA_ERROR_ECC_UNCORRECTABLE", .is_sticky = true},
    {.code = 215, .name = "CUDA_ERROR_UNSUPPORTED_LIMIT"},
    {.code = 216, .name = "CUDA_ERROR_CONTEXT_ALREADY_IN_USE"},
    {.code = 217, .name = "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"},
    {.code = 218, .name = "CUDA_ERROR_INVALID_PTX"},
    {.code = 219, .name = "CUDA_ERROR_INVALID_GRAPHICS_CONTEXT"},
    {.code = 220, .name = "CUDA_ERROR_NVLINK_UNCORRECTABLE", .is_sticky = true},
    {.code = 221, .name = "CUDA_ERROR_JIT_COMPILER_NOT_FOUND"},
    {.code = 222, .name = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
    {.code = 223, .name = "CUDA_ERROR_JIT_COMPILATION_DISABLED"},
    {.code = 224, .name = "CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY"},
    {.code = 225, .name = "CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC"},
    {.code = 226, .name = "CUDA_ERROR_CONTAINED", .is_sticky = true},
    {.code = 300, .name = "CUDA_ERROR_INVALID_SOURCE"},
    {.code = 301, .name = "CUDA_ERROR_FILE_NOT_FOUND"},
    {.code = 302, .name = "CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND"},
    {.code = 303, .name = "CUDA_ERROR_SHARED_OBJECT_INIT_FAILED"},
    {.code = 304, .name = "CUDA_ERROR_OPERATING_SYSTEM"},
    {.code = 400, .name = "CUDA_ERROR_INVALID_HANDLE"},
    {.code = 401, .name = "CUDA_ERROR_ILLEGAL_STATE"},
    {.code = 402, .name = "CUDA_ERROR_LOSSY_QUERY"},
    {.code = 500, .name = "CUDA_ERROR_NOT_FOUND"},
    {.code = 600, .name = "CUDA_ERROR_NOT_READY"},
    {.code = 700, .name = "CUDA_ERROR_ILLEGAL_ADDRESS", .is_sticky = true},
    {.code = 701, .name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
    {.code = 702, .name = "CUDA_ERROR_LAUNCH_TIMEOUT", .is_sticky = true},
    {.code = 703, .name = "CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING"},
    {.code = 704, .name = "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED"},
    {.code = 705, .name = "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED"},
    {.code = 708, .name = "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE"},
    {.code = 709, .name = "CUDA_ERROR_CONTEXT_IS_DESTROYED"},
    {.code = 710, .name = "CUDA_ERROR_ASSERT", .is_sticky = true},
    {.code = 711, .name = "CUDA_ERROR_TOO_MANY_PEERS"},
    {.code = 712, .name = "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"},
    {.code = 713, .name = "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"},
    {.code = 714, .name = "CUDA_ERROR_HARDWARE_STACK_ERROR", .is_sticky = true},
    {.code = 715, .name = "CUDA_ERROR_ILLEGAL_INSTRUCTION", .is_sticky = true},
    {.code = 716, .name = "CUDA_ERROR_MISALIGNED_ADDRESS", .is_sticky = true},
    {.code = 717, .name = "CUDA_ERROR_INVALID_ADDRESS_SPACE", .is_sticky = true},
    {.code = 718, .name = "CUDA_ERROR_INVALID_PC", .is_sticky = true},
    {.code = 719, .name = "CUDA_ERROR_LAUNCH_FAILED", .is_sticky = true},
    {.code = 720, .name = "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"},
    {.code = 721, .name = "CUDA_ERROR_TENSOR_MEMORY_LEAK", .is_sticky = true},
    {.code = 800, .name = "CUDA_ERROR_NOT_PERMITTED"},
    {.code = 801, .name = "CUDA_ERROR_NOT_SUPPORTED"},
    {.code = 802, .name = "CUDA_ERROR_SYSTEM_NOT_READY"},
    {.code = 803, .name = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
    {.code = 804, .name = "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"},
    {.code = 805, .name = "CUDA_ERROR_MPS_CONNECTION_FAILED"},
    {.code = 806, .name = "CUDA_ERROR_MPS_RPC_FAILURE"},
    {.code = 807, .name = "CUDA_ERROR_MPS_SERVER_NOT_READY"},
    {.code = 808, .name = "CUDA_ERROR_MPS_MAX_CLIENTS_REACHED"},
    {.code = 809, .name = "CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED"},
    {.code = 810, .name = "CUDA_ERROR_MPS_CLIENT_TERMINATED"},
    {.code = 811, .name = "CUDA_ERROR_CDP_NOT_SUPPORTED"},
    {.code = 812, .name = "CUDA_ERROR_CDP_VERSION_MISMATCH"},
    {.code = 900, .name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
    {.code = 901, .name = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    {.code = 902, .name = "CUDA_ERROR_STREAM_CAPTURE_MERGE"},
    {.code = 903, .name = "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"},
    {.code = 904, .name = "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"},
    {.code = 905, .name = "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"},
    {.code = 906, .name = "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"},
    {.code = 907, .name = "CUDA_ERROR_CAPTURED_EVENT"},
    {.code = 908, .name = "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"},
    {.code = 909, .name = "CUDA_ERROR_TIMEOUT"},
    {.code = 910, .name = "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE"},
    {.code = 911, .name = "CUDA_ERROR_EXTERNAL_DEVICE", .is_sticky = true},
    {.code = 912, .name = "CUDA_ERROR_INVALID_CLUSTER_SIZE"},
    {.code = 913, .name = "CUDA_ERROR_FUNCTION_NOT_LOADED"},
    {.code = 914, .name = "CUDA_ERROR_INVALID_RESOURCE_TYPE"},
    {.code = 915, .name = "CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION"},
    {.code = 916, .name = "CUDA_ERROR_KEY_ROTATION"},
    {.code = 999, .name = "CUDA_ERROR_UNKNOWN"},
};

const NamedResult* find_named(CudaResult code) noexcept {
  for (const NamedResult& each : named_results) {
    if (each.code == static_cast<std::uint32_t>(code)) return &each;
  }
  return nullptr;
}

/// cuGetProcAddress, of whichever version the driver has.
class DriverEntryPoints {
 public:
  explicit DriverEntryPoints(void* library)
      : second_(reinterpret_cast<Second*>(dlsym(library, "cuGetProcAddress_v2"))),
        first_(reinterpret_cast<First*>(dlsym(library, "cuGetProcAddress"))) {}

  [[nodiscard]] bool are_there() const noexcept { return first_ != nullptr || second_ != nullptr; }

  [[nodiscard]] void* find(const char* name, int version) {
    void* found = nullptr;
    CudaSymbolStatus status{};
    const CudaResult code = second_ != nullptr
                                ? second_(name, &found, version, cuda_legacy_entry_points, &status)
                                : first_(name, &found, version, cuda_legacy_entry_points);
    if (code == CudaResult::success) return found;
    if (code != CudaResult::not_found) failure_ = code;
    return nullptr;
  }
  /// What it answered where that was neither an entry point nor that there is none.
  [[nodiscard]] CudaResult failure() const noexcept { return failure_; }

 private:
  using First = CudaResult(const char*, void**, int, std::uint64_t);
  using Second = CudaResult(const char*, void**, int, std::uint64_t, CudaSymbolStatus*);

  Second* second_;
  First* first_;
  CudaResult failure_ = CudaResult::success;
};

struct LoadedDriver {
  CudaApi api;
  std::string why_not;
};

// The library stays loaded: it leaves threads behind.
LoadedDriver load_driver() {
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return {.api = {}, .why_not = "no CUDA driver is installed (libcuda.so.1)"};
  LoadedDriver loaded;
  DriverEntryPoints points(library);
  const char* const missing =
      points.are_there()
          ? fill_cuda_api(loaded.api, [&](const char* n, int v) { return points.find(n, v); })
          : "cuGetProcAddress";
  if (missing == nullptr) return loaded;
  loaded.why_not =
      points.failure() == CudaResult::success
          ? std::string("the CUDA driver is older than 11.3: it has no ") + missing
          : std::string("the CUDA driver has no entry points: ") + cuda_name(points.failure());
  return loaded;
}

std::atomic<const CudaApi*> stand_in{nullptr};

}  // namespace

const CudaApi* CudaApi::system(std::string& why) {
  if (const CudaApi* const other = stand_in.load(std::memory_order_acquire)) return other;
  static const LoadedDriver loaded = load_driver();
  if (loaded.why_not.empty()) return &loaded.api;
  why = loaded.why_not;
  return nullptr;
}

void CudaApi::stand_in_for_system(const CudaApi* api) noexcept {
  stand_in.store(api, std::memory_order_release);
}

void check_cuda(CudaResult code, const char* call) {
  if (code != CudaResult::success)
    throw std::runtime_error(std::string("cuda: ") + call + " failed: " + cuda_name(code));
}

const char* cuda_name(CudaResult code) noexcept {
  const NamedResult* const found = find_named(code);
  return found != nullptr ? found->name : "a CUDA error without a name";
}

bool is_sticky(CudaResult code) noexcept {
  const NamedResult* const found = find_named(code);
  return found != nullptr && found->is_sticky;
}

bool is_gone(CudaResult code) noexcept {
  switch (code) {
    case CudaResult::not_initialized:
    case CudaResult::deinitialized:
    case CudaResult::invalid_context:
    case CudaResult::invalid_handle:
    case CudaResult::context_is_destroyed:
      return true;
    default:
      return false;
  }
}

bool is_of_capture(CudaResult code) noexcept {
  return code >= CudaResult::stream_capture_unsupported && static_cast<std::uint32_t>(code) <= 908;
}

}  // namespace cistern
