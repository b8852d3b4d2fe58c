// The part of the CUDA driver's binary interface that is used, declared here: a build needs no
// toolkit, and every build has the device. Names and values are the driver's, which never change
// for a version of an entry point; where the toolkit's headers are installed a test compares them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

// As the driver's own header names them, so that a program's handles are of these types.
struct CUctx_st;            // NOLINT(readability-identifier-naming)
struct CUevent_st;          // NOLINT(readability-identifier-naming)
struct CUmemPoolHandle_st;  // NOLINT(readability-identifier-naming)
struct CUstream_st;         // NOLINT(readability-identifier-naming)

namespace cistern {

/// CUresult. Those that are told apart; the driver has others.
enum class CudaResult : std::uint32_t {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  not_initialized = 3,
  deinitialized = 4,
  no_device = 100,
  invalid_device = 101,
  invalid_context = 201,
  ecc_uncorrectable = 214,
  invalid_handle = 400,
  not_found = 500,
  not_ready = 600,
  illegal_address = 700,
  context_is_destroyed = 709,
  launch_failed = 719,
  not_supported = 801,
  stream_capture_unsupported = 900,
  stream_capture_invalidated = 901,
  stream_capture_merge = 902,
  stream_capture_isolation = 905,
  stream_capture_implicit = 906,
  captured_event = 907,
  unknown = 999,
};

using CudaOrdinal = int;                        // CUdevice
using CudaAddress = unsigned long long;         // CUdeviceptr
using CudaPhysicalMemory = unsigned long long;  // CUmemGenericAllocationHandle

/// CUdevice_attribute.
enum class CudaAttribute : std::uint32_t {
  compute_capability_major = 75,
  compute_capability_minor = 76,
  managed_memory = 83,
  concurrent_managed_access = 89,
  virtual_memory_management = 102,
  memory_pools = 115,
};

enum class CudaLocationType : std::uint32_t { invalid = 0, device = 1 };
enum class CudaAllocationType : std::uint32_t { invalid = 0, pinned = 1 };
enum class CudaAccessFlags : std::uint32_t { none = 0, read = 1, read_write = 3 };
enum class CudaGranularity : std::uint32_t { minimum = 0, recommended = 1 };

/// CUmemLocation.
struct CudaLocation {
  CudaLocationType type = CudaLocationType::device;
  int id = 0;
};

/// CUmemAllocationProp.
struct CudaAllocation {
  CudaAllocationType type = CudaAllocationType::pinned;
  std::uint32_t handle_types = 0;
  CudaLocation location;
  void* security = nullptr;
  struct Flags {
    unsigned char compression = 0;
    unsigned char rdma_capable = 0;
    unsigned short usage = 0;
    unsigned char reserved[4] = {};
  } flags = {};
};

/// CUmemAccessDesc.
struct CudaAccess {
  CudaLocation location;
  CudaAccessFlags flags = CudaAccessFlags::read_write;
};

/// CUmemPoolProps.
struct CudaPoolProperties {
  CudaAllocationType type = CudaAllocationType::pinned;
  std::uint32_t handle_types = 0;
  CudaLocation location;
  void* security = nullptr;
  std::size_t max_bytes = 0;  // 0 is what the system has
  unsigned short usage = 0;
  unsigned char reserved[54] = {};
};

/// CUmemPool_attribute. All of them are 64 bits wide.
enum class CudaPoolAttribute : std::uint32_t {
  release_threshold = 4,
  reserved_current = 5,
  used_current = 7,
};

/// CUmem_advise.
enum class CudaAdvice : std::uint32_t { set_preferred_location = 3, unset_preferred_location = 4 };

enum class CudaCaptureStatus : std::uint32_t { none = 0, active = 1, invalidated = 2 };
enum class CudaCaptureMode : std::uint32_t { global = 0, by_thread = 1, relaxed = 2 };

/// CUdriverProcAddressQueryResult.
enum class CudaSymbolStatus : std::uint32_t { found = 0, not_found = 1, version_too_low = 2 };

inline constexpr unsigned cuda_attach_global = 1;             // CU_MEM_ATTACH_GLOBAL
inline constexpr unsigned cuda_host_portable = 1;             // CU_MEMHOSTALLOC_PORTABLE
inline constexpr unsigned cuda_event_without_timing = 2;      // CU_EVENT_DISABLE_TIMING
inline constexpr unsigned cuda_stream_non_blocking = 1;       // CU_STREAM_NON_BLOCKING
inline constexpr std::uint64_t cuda_legacy_entry_points = 1;  // CU_GET_PROC_ADDRESS_LEGACY_STREAM
inline constexpr std::uintptr_t cuda_legacy_stream = 1;       // CU_STREAM_LEGACY
inline constexpr std::uintptr_t cuda_per_thread_stream = 2;   // CU_STREAM_PER_THREAD

static_assert(sizeof(CudaLocation) == 8 && sizeof(CudaAllocation) == 32);
static_assert(sizeof(CudaAccess) == 12 && sizeof(CudaPoolProperties) == 88);
static_assert(std::is_standard_layout_v<CudaAllocation>);
static_assert(std::is_standard_layout_v<CudaPoolProperties>);

}  // namespace cistern
