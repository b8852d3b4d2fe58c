// What the library declares of the CUDA driver's interface, compared with the toolkit's own
// headers. Only built where they are installed: the library itself needs none.
#include <cstddef>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include <cuda.h>
#include <cudaTypedefs.h>
#include <gtest/gtest.h>

#include "device/cuda_api.hpp"

namespace cistern {
namespace {

template <class T>
constexpr bool is_number = std::is_enum_v<T> || std::is_integral_v<T>;

/// Alike for a caller: handles are the same type, what they point to is passed alike, and values
/// are integers or enumerations of one size.
template <class Ours, class Theirs>
constexpr bool is_passed_alike() {
  if constexpr (std::is_same_v<Ours, Theirs>) {
    return true;
  } else if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>) {
    using Our = std::remove_pointer_t<Ours>;
    using Their = std::remove_pointer_t<Theirs>;
    return std::is_const_v<Our> == std::is_const_v<Their> &&
           is_passed_alike<std::remove_const_t<Our>, std::remove_const_t<Their>>();
  } else if constexpr (std::is_class_v<Ours> && std::is_class_v<Theirs>) {
    return sizeof(Ours) == sizeof(Theirs);
  } else if constexpr (is_number<Ours>) {
    return is_number<Theirs> && sizeof(Ours) == sizeof(Theirs);
  } else {
    return false;
  }
}

template <class Ours, class Theirs>
struct IsCalledAlike : std::false_type {};
template <class Our, class... Ours, class Their, class... Theirs>
requires(sizeof...(Ours) ==
         sizeof...(Theirs)) struct IsCalledAlike<Our (*)(Ours...), Their (*)(Theirs...)>
    : std::bool_constant<is_passed_alike<Our, Their>() &&
                         (is_passed_alike<Ours, Theirs>() && ...)> {
};

TEST(CudaHeaders, DeclareEveryEntryPointAsTheLibraryDoes) {
  std::map<std::string, int> versions;
  CudaApi api;
  each_cuda_entry_point(api, [&](auto& /*entry*/, const char* name, int version) {
    EXPECT_TRUE(versions.emplace(name, version).second) << name << " is there twice";
  });
#define EXPECT_ENTRY_POINT(entry, name, version)                                                 \
  static_assert(IsCalledAlike<decltype(CudaApi::entry), PFN_##name##_v##version>::value, #name); \
  EXPECT_EQ(versions[#name], version) << #name;                                                  \
  versions.erase(#name)
  EXPECT_ENTRY_POINT(init, cuInit, 2000);
  EXPECT_ENTRY_POINT(driver_version, cuDriverGetVersion, 2020);
  EXPECT_ENTRY_POINT(device_count, cuDeviceGetCount, 2000);
  EXPECT_ENTRY_POINT(device, cuDeviceGet, 2000);
  EXPECT_ENTRY_POINT(device_name, cuDeviceGetName, 2000);
  EXPECT_ENTRY_POINT(device_memory, cuDeviceTotalMem, 3020);
  EXPECT_ENTRY_POINT(device_attribute, cuDeviceGetAttribute, 2000);
  EXPECT_ENTRY_POINT(retain_primary, cuDevicePrimaryCtxRetain, 7000);
  EXPECT_ENTRY_POINT(release_primary, cuDevicePrimaryCtxRelease, 11000);
  EXPECT_ENTRY_POINT(primary_state, cuDevicePrimaryCtxGetState, 7000);
  EXPECT_ENTRY_POINT(current_context, cuCtxGetCurrent, 4000);
  EXPECT_ENTRY_POINT(push_context, cuCtxPushCurrent, 4000);
  EXPECT_ENTRY_POINT(pop_context, cuCtxPopCurrent, 4000);
  EXPECT_ENTRY_POINT(context_device, cuCtxGetDevice, 2000);
  EXPECT_ENTRY_POINT(memory_info, cuMemGetInfo, 3020);
  EXPECT_ENTRY_POINT(allocate, cuMemAlloc, 3020);
  EXPECT_ENTRY_POINT(free, cuMemFree, 3020);
  EXPECT_ENTRY_POINT(allocate_managed, cuMemAllocManaged, 6000);
  EXPECT_ENTRY_POINT(allocate_host, cuMemHostAlloc, 2020);
  EXPECT_ENTRY_POINT(free_host, cuMemFreeHost, 2000);
  EXPECT_ENTRY_POINT(create_pool, cuMemPoolCreate, 11020);
  EXPECT_ENTRY_POINT(destroy_pool, cuMemPoolDestroy, 11020);
  EXPECT_ENTRY_POINT(trim_pool, cuMemPoolTrimTo, 11020);
  EXPECT_ENTRY_POINT(set_pool, cuMemPoolSetAttribute, 11020);
  EXPECT_ENTRY_POINT(get_pool, cuMemPoolGetAttribute, 11020);
  EXPECT_ENTRY_POINT(allocate_async, cuMemAllocFromPoolAsync, 11020);
  EXPECT_ENTRY_POINT(free_async, cuMemFreeAsync, 11020);
  EXPECT_ENTRY_POINT(granularity, cuMemGetAllocationGranularity, 10020);
  EXPECT_ENTRY_POINT(reserve_addresses, cuMemAddressReserve, 10020);
  EXPECT_ENTRY_POINT(free_addresses, cuMemAddressFree, 10020);
  EXPECT_ENTRY_POINT(create_physical, cuMemCreate, 10020);
  EXPECT_ENTRY_POINT(release_physical, cuMemRelease, 10020);
  EXPECT_ENTRY_POINT(map, cuMemMap, 10020);
  EXPECT_ENTRY_POINT(unmap, cuMemUnmap, 10020);
  EXPECT_ENTRY_POINT(set_access, cuMemSetAccess, 10020);
  EXPECT_ENTRY_POINT(create_stream, cuStreamCreate, 2000);
  EXPECT_ENTRY_POINT(destroy_stream, cuStreamDestroy, 4000);
  EXPECT_ENTRY_POINT(synchronize_stream, cuStreamSynchronize, 2000);
  EXPECT_ENTRY_POINT(stream_context, cuStreamGetCtx, 9020);
  EXPECT_ENTRY_POINT(wait_event, cuStreamWaitEvent, 3020);
  EXPECT_ENTRY_POINT(capture_info, cuStreamGetCaptureInfo, 10010);
  EXPECT_ENTRY_POINT(exchange_capture_mode, cuThreadExchangeStreamCaptureMode, 10010);
  EXPECT_ENTRY_POINT(create_event, cuEventCreate, 2000);
  EXPECT_ENTRY_POINT(destroy_event, cuEventDestroy, 4000);
  EXPECT_ENTRY_POINT(record_event, cuEventRecord, 2000);
  EXPECT_ENTRY_POINT(query_event, cuEventQuery, 2000);
  EXPECT_ENTRY_POINT(synchronize_event, cuEventSynchronize, 2000);
  EXPECT_ENTRY_POINT(copy, cuMemcpyAsync, 4000);
  EXPECT_ENTRY_POINT(fill, cuMemsetD8Async, 3020);
  EXPECT_ENTRY_POINT(advise, cuMemAdvise, 8000);
  EXPECT_ENTRY_POINT(prefetch, cuMemPrefetchAsync, 8000);
#if CUDA_VERSION >= 12000
  EXPECT_ENTRY_POINT(stream_id, cuStreamGetId, 12000);
#else
  versions.erase("cuStreamGetId");
#endif
#undef EXPECT_ENTRY_POINT
  for (const auto& [name, version] : versions)
    ADD_FAILURE() << name << " is compared with nothing";
}

// Where each member lies, by what is written through the library's declaration.
static_assert(sizeof(CudaLocation) == sizeof(CUmemLocation));
static_assert(offsetof(CudaLocation, type) == offsetof(CUmemLocation, type));
static_assert(offsetof(CudaLocation, id) == offsetof(CUmemLocation, id));

static_assert(sizeof(CudaAllocation) == sizeof(CUmemAllocationProp));
static_assert(offsetof(CudaAllocation, type) == offsetof(CUmemAllocationProp, type));
static_assert(offsetof(CudaAllocation, handle_types) ==
              offsetof(CUmemAllocationProp, requestedHandleTypes));
static_assert(offsetof(CudaAllocation, location) == offsetof(CUmemAllocationProp, location));
static_assert(offsetof(CudaAllocation, security) ==
              offsetof(CUmemAllocationProp, win32HandleMetaData));
static_assert(offsetof(CudaAllocation, flags) == offsetof(CUmemAllocationProp, allocFlags));
static_assert(sizeof(CudaAllocation::flags) == sizeof(CUmemAllocationProp::allocFlags));

static_assert(sizeof(CudaAccess) == sizeof(CUmemAccessDesc));
static_assert(offsetof(CudaAccess, location) == offsetof(CUmemAccessDesc, location));
static_assert(offsetof(CudaAccess, flags) == offsetof(CUmemAccessDesc, flags));

static_assert(sizeof(CudaPoolProperties) == sizeof(CUmemPoolProps));
static_assert(offsetof(CudaPoolProperties, type) == offsetof(CUmemPoolProps, allocType));
static_assert(offsetof(CudaPoolProperties, handle_types) == offsetof(CUmemPoolProps, handleTypes));
static_assert(offsetof(CudaPoolProperties, location) == offsetof(CUmemPoolProps, location));
static_assert(offsetof(CudaPoolProperties, security) ==
              offsetof(CUmemPoolProps, win32SecurityAttributes));
// What came later lies in what was reserved, and is zero in both.
#if CUDA_VERSION >= 12030
static_assert(offsetof(CudaPoolProperties, max_bytes) == offsetof(CUmemPoolProps, maxSize));
#endif
#if CUDA_VERSION >= 12040
static_assert(offsetof(CudaPoolProperties, usage) == offsetof(CUmemPoolProps, usage));
#endif

TEST(CudaHeaders, GiveEveryConstantTheSameValue) {
  const auto expect = [](auto ours, auto theirs) {
    EXPECT_EQ(static_cast<std::uint64_t>(ours), static_cast<std::uint64_t>(theirs));
  };
  expect(CudaAttribute::compute_capability_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  expect(CudaAttribute::compute_capability_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  expect(CudaAttribute::managed_memory, CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY);
  expect(CudaAttribute::concurrent_managed_access, CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS);
  expect(CudaAttribute::virtual_memory_management,
         CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
  expect(CudaAttribute::memory_pools, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED);
  expect(CudaLocationType::device, CU_MEM_LOCATION_TYPE_DEVICE);
  expect(CudaAllocationType::pinned, CU_MEM_ALLOCATION_TYPE_PINNED);
  expect(CudaAccessFlags::none, CU_MEM_ACCESS_FLAGS_PROT_NONE);
  expect(CudaAccessFlags::read, CU_MEM_ACCESS_FLAGS_PROT_READ);
  expect(CudaAccessFlags::read_write, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  expect(CudaGranularity::minimum, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
  expect(CudaGranularity::recommended, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
  expect(CudaPoolAttribute::release_threshold, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD);
  expect(CudaPoolAttribute::reserved_current, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
  expect(CudaPoolAttribute::used_current, CU_MEMPOOL_ATTR_USED_MEM_CURRENT);
  expect(CudaAdvice::set_preferred_location, CU_MEM_ADVISE_SET_PREFERRED_LOCATION);
  expect(CudaAdvice::unset_preferred_location, CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION);
  expect(CudaCaptureStatus::none, CU_STREAM_CAPTURE_STATUS_NONE);
  expect(CudaCaptureStatus::active, CU_STREAM_CAPTURE_STATUS_ACTIVE);
  expect(CudaCaptureStatus::invalidated, CU_STREAM_CAPTURE_STATUS_INVALIDATED);
  expect(CudaCaptureMode::global, CU_STREAM_CAPTURE_MODE_GLOBAL);
  expect(CudaCaptureMode::by_thread, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  expect(CudaCaptureMode::relaxed, CU_STREAM_CAPTURE_MODE_RELAXED);
#if CUDA_VERSION >= 12000
  expect(CudaSymbolStatus::found, CU_GET_PROC_ADDRESS_SUCCESS);
  expect(CudaSymbolStatus::not_found, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  expect(CudaSymbolStatus::version_too_low, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
#endif
  expect(cuda_attach_global, CU_MEM_ATTACH_GLOBAL);
  expect(cuda_host_portable, CU_MEMHOSTALLOC_PORTABLE);
  expect(cuda_event_without_timing, CU_EVENT_DISABLE_TIMING);
  expect(cuda_stream_non_blocking, CU_STREAM_NON_BLOCKING);
  expect(cuda_legacy_entry_points, CU_GET_PROC_ADDRESS_LEGACY_STREAM);
  EXPECT_EQ(cuda_legacy_stream, reinterpret_cast<std::uintptr_t>(CU_STREAM_LEGACY));
  EXPECT_EQ(cuda_per_thread_stream, reinterpret_cast<std::uintptr_t>(CU_STREAM_PER_THREAD));
}

TEST(CudaHeaders, GiveEveryErrorTheSameName) {
#define EXPECT_ERROR(name) EXPECT_STREQ(cuda_name(static_cast<CudaResult>(name)), #name)
  EXPECT_ERROR(CUDA_SUCCESS);
  EXPECT_ERROR(CUDA_ERROR_INVALID_VALUE);
  EXPECT_ERROR(CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_ERROR(CUDA_ERROR_NOT_INITIALIZED);
  EXPECT_ERROR(CUDA_ERROR_DEINITIALIZED);
  EXPECT_ERROR(CUDA_ERROR_STUB_LIBRARY);
  EXPECT_ERROR(CUDA_ERROR_NO_DEVICE);
  EXPECT_ERROR(CUDA_ERROR_INVALID_DEVICE);
  EXPECT_ERROR(CUDA_ERROR_DEVICE_NOT_LICENSED);
  EXPECT_ERROR(CUDA_ERROR_INVALID_CONTEXT);
  EXPECT_ERROR(CUDA_ERROR_MAP_FAILED);
  EXPECT_ERROR(CUDA_ERROR_UNMAP_FAILED);
  EXPECT_ERROR(CUDA_ERROR_ALREADY_MAPPED);
  EXPECT_ERROR(CUDA_ERROR_NOT_MAPPED);
  EXPECT_ERROR(CUDA_ERROR_ECC_UNCORRECTABLE);
  EXPECT_ERROR(CUDA_ERROR_NVLINK_UNCORRECTABLE);
  EXPECT_ERROR(CUDA_ERROR_OPERATING_SYSTEM);
  EXPECT_ERROR(CUDA_ERROR_INVALID_HANDLE);
  EXPECT_ERROR(CUDA_ERROR_ILLEGAL_STATE);
  EXPECT_ERROR(CUDA_ERROR_NOT_FOUND);
  EXPECT_ERROR(CUDA_ERROR_NOT_READY);
  EXPECT_ERROR(CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_ERROR(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
  EXPECT_ERROR(CUDA_ERROR_LAUNCH_TIMEOUT);
  EXPECT_ERROR(CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE);
  EXPECT_ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED);
  EXPECT_ERROR(CUDA_ERROR_ASSERT);
  EXPECT_ERROR(CUDA_ERROR_HARDWARE_STACK_ERROR);
  EXPECT_ERROR(CUDA_ERROR_ILLEGAL_INSTRUCTION);
  EXPECT_ERROR(CUDA_ERROR_MISALIGNED_ADDRESS);
  EXPECT_ERROR(CUDA_ERROR_INVALID_ADDRESS_SPACE);
  EXPECT_ERROR(CUDA_ERROR_INVALID_PC);
  EXPECT_ERROR(CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_ERROR(CUDA_ERROR_NOT_PERMITTED);
  EXPECT_ERROR(CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_ERROR(CUDA_ERROR_SYSTEM_NOT_READY);
  EXPECT_ERROR(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
  EXPECT_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT_ERROR(CUDA_ERROR_STREAM_CAPTURE_MERGE);
  EXPECT_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  EXPECT_ERROR(CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  EXPECT_ERROR(CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  EXPECT_ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  EXPECT_ERROR(CUDA_ERROR_CAPTURED_EVENT);
  EXPECT_ERROR(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
  EXPECT_ERROR(CUDA_ERROR_TIMEOUT);
  EXPECT_ERROR(CUDA_ERROR_UNKNOWN);
#undef EXPECT_ERROR
  EXPECT_FALSE(is_of_capture(static_cast<CudaResult>(CUDA_ERROR_TIMEOUT)));
  EXPECT_TRUE(is_of_capture(static_cast<CudaResult>(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD)));
  EXPECT_FALSE(is_sticky(static_cast<CudaResult>(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES)));
}

}  // namespace
}  // namespace cistern
