// The entry points of the CUDA driver that are used, found when they are first needed: every build
// has them, and a program runs where there is no driver. Being a table, it is also the place where
// tests put a driver of their own.
#pragma once

#include <string>

#include "device/cuda_abi.hpp"

namespace cistern {

struct CudaApi {
  CudaResult (*init)(unsigned flags) = nullptr;
  CudaResult (*driver_version)(int* version) = nullptr;
  CudaResult (*device_count)(int* count) = nullptr;
  CudaResult (*device)(CudaOrdinal* device, int ordinal) = nullptr;
  CudaResult (*device_name)(char* name, int size, CudaOrdinal device) = nullptr;
  CudaResult (*device_memory)(std::size_t* bytes, CudaOrdinal device) = nullptr;
  CudaResult (*device_attribute)(int* value, CudaAttribute key, CudaOrdinal device) = nullptr;

  CudaResult (*retain_primary)(CUctx_st** context, CudaOrdinal device) = nullptr;
  CudaResult (*release_primary)(CudaOrdinal device) = nullptr;
  CudaResult (*primary_state)(CudaOrdinal device, unsigned* flags, int* is_active) = nullptr;
  CudaResult (*current_context)(CUctx_st** context) = nullptr;
  CudaResult (*push_context)(CUctx_st* context) = nullptr;
  CudaResult (*pop_context)(CUctx_st** context) = nullptr;
  CudaResult (*context_device)(CudaOrdinal* device) = nullptr;

  CudaResult (*memory_info)(std::size_t* free, std::size_t* total) = nullptr;
  CudaResult (*allocate)(CudaAddress* memory, std::size_t bytes) = nullptr;
  CudaResult (*free)(CudaAddress memory) = nullptr;
  CudaResult (*allocate_managed)(CudaAddress* memory, std::size_t bytes, unsigned flags) = nullptr;
  CudaResult (*allocate_host)(void** memory, std::size_t bytes, unsigned flags) = nullptr;
  CudaResult (*free_host)(void* memory) = nullptr;

  CudaResult (*create_pool)(CUmemPoolHandle_st** pool, const CudaPoolProperties* made) = nullptr;
  CudaResult (*destroy_pool)(CUmemPoolHandle_st* pool) = nullptr;
  CudaResult (*trim_pool)(CUmemPoolHandle_st* pool, std::size_t keep_bytes) = nullptr;
  CudaResult (*set_pool)(CUmemPoolHandle_st* pool, CudaPoolAttribute key, void* value) = nullptr;
  CudaResult (*get_pool)(CUmemPoolHandle_st* pool, CudaPoolAttribute key, void* value) = nullptr;
  CudaResult (*allocate_async)(CudaAddress* memory, std::size_t bytes, CUmemPoolHandle_st* pool,
                               CUstream_st* stream) = nullptr;
  CudaResult (*free_async)(CudaAddress memory, CUstream_st* stream) = nullptr;

  CudaResult (*granularity)(std::size_t* bytes, const CudaAllocation* of,
                            CudaGranularity which) = nullptr;
  CudaResult (*reserve_addresses)(CudaAddress* start, std::size_t bytes, std::size_t alignment,
                                  CudaAddress wanted, unsigned long long flags) = nullptr;
  CudaResult (*free_addresses)(CudaAddress start, std::size_t bytes) = nullptr;
  CudaResult (*create_physical)(CudaPhysicalMemory* memory, std::size_t bytes,
                                const CudaAllocation* made, unsigned long long flags) = nullptr;
  CudaResult (*release_physical)(CudaPhysicalMemory memory) = nullptr;
  CudaResult (*map)(CudaAddress start, std::size_t bytes, std::size_t offset,
                    CudaPhysicalMemory memory, unsigned long long flags) = nullptr;
  CudaResult (*unmap)(CudaAddress start, std::size_t bytes) = nullptr;
  CudaResult (*set_access)(CudaAddress start, std::size_t bytes, const CudaAccess* access,
                           std::size_t count) = nullptr;

  CudaResult (*create_stream)(CUstream_st** stream, unsigned flags) = nullptr;
  CudaResult (*destroy_stream)(CUstream_st* stream) = nullptr;
  CudaResult (*synchronize_stream)(CUstream_st* stream) = nullptr;
  CudaResult (*stream_context)(CUstream_st* stream, CUctx_st** context) = nullptr;
  CudaResult (*stream_id)(CUstream_st* stream, unsigned long long* id) = nullptr;  // null if old
  CudaResult (*wait_event)(CUstream_st* stream, CUevent_st* event, unsigned flags) = nullptr;
  CudaResult (*capture_info)(CUstream_st* stream, CudaCaptureStatus* status,
                             std::uint64_t* id) = nullptr;
  CudaResult (*exchange_capture_mode)(CudaCaptureMode* mode) = nullptr;

  CudaResult (*create_event)(CUevent_st** event, unsigned flags) = nullptr;
  CudaResult (*destroy_event)(CUevent_st* event) = nullptr;
  CudaResult (*record_event)(CUevent_st* event, CUstream_st* stream) = nullptr;
  CudaResult (*query_event)(CUevent_st* event) = nullptr;
  CudaResult (*synchronize_event)(CUevent_st* event) = nullptr;

  CudaResult (*copy)(CudaAddress to, CudaAddress from, std::size_t bytes,
                     CUstream_st* stream) = nullptr;
  CudaResult (*fill)(CudaAddress to, unsigned char value, std::size_t bytes,
                     CUstream_st* stream) = nullptr;
  CudaResult (*advise)(CudaAddress memory, std::size_t bytes, CudaAdvice advice,
                       CudaOrdinal device) = nullptr;
  CudaResult (*prefetch)(CudaAddress memory, std::size_t bytes, CudaOrdinal to,
                         CUstream_st* stream) = nullptr;

  /// Those of the system's driver. Where there is none, null; and `why` says what was missing.
  static const CudaApi* system(std::string& why);

  /// For tests: what `system` answers from now on, until null is given. It outlives its use.
  static void stand_in_for_system(const CudaApi* api) noexcept;
};

/// Calls `visit(entry, name, version)` for each entry point: the version is that of CUDA in which
/// it came to be as it is declared here.
template <class Api, class Visit>
void each_cuda_entry_point(Api& api, Visit&& visit) {
  visit(api.init, "cuInit", 2000);
  visit(api.driver_version, "cuDriverGetVersion", 2020);
  visit(api.device_count, "cuDeviceGetCount", 2000);
  visit(api.device, "cuDeviceGet", 2000);
  visit(api.device_name, "cuDeviceGetName", 2000);
  visit(api.device_memory, "cuDeviceTotalMem", 3020);
  visit(api.device_attribute, "cuDeviceGetAttribute", 2000);
  visit(api.retain_primary, "cuDevicePrimaryCtxRetain", 7000);
  visit(api.release_primary, "cuDevicePrimaryCtxRelease", 11000);
  visit(api.primary_state, "cuDevicePrimaryCtxGetState", 7000);
  visit(api.current_context, "cuCtxGetCurrent", 4000);
  visit(api.push_context, "cuCtxPushCurrent", 4000);
  visit(api.pop_context, "cuCtxPopCurrent", 4000);
  visit(api.context_device, "cuCtxGetDevice", 2000);
  visit(api.memory_info, "cuMemGetInfo", 3020);
  visit(api.allocate, "cuMemAlloc", 3020);
  visit(api.free, "cuMemFree", 3020);
  visit(api.allocate_managed, "cuMemAllocManaged", 6000);
  visit(api.allocate_host, "cuMemHostAlloc", 2020);
  visit(api.free_host, "cuMemFreeHost", 2000);
  visit(api.create_pool, "cuMemPoolCreate", 11020);
  visit(api.destroy_pool, "cuMemPoolDestroy", 11020);
  visit(api.trim_pool, "cuMemPoolTrimTo", 11020);
  visit(api.set_pool, "cuMemPoolSetAttribute", 11020);
  visit(api.get_pool, "cuMemPoolGetAttribute", 11020);
  visit(api.allocate_async, "cuMemAllocFromPoolAsync", 11020);
  visit(api.free_async, "cuMemFreeAsync", 11020);
  visit(api.granularity, "cuMemGetAllocationGranularity", 10020);
  visit(api.reserve_addresses, "cuMemAddressReserve", 10020);
  visit(api.free_addresses, "cuMemAddressFree", 10020);
  visit(api.create_physical, "cuMemCreate", 10020);
  visit(api.release_physical, "cuMemRelease", 10020);
  visit(api.map, "cuMemMap", 10020);
  visit(api.unmap, "cuMemUnmap", 10020);
  visit(api.set_access, "cuMemSetAccess", 10020);
  visit(api.create_stream, "cuStreamCreate", 2000);
  visit(api.destroy_stream, "cuStreamDestroy", 4000);
  visit(api.synchronize_stream, "cuStreamSynchronize", 2000);
  visit(api.stream_context, "cuStreamGetCtx", 9020);
  visit(api.stream_id, "cuStreamGetId", 12000);
  visit(api.wait_event, "cuStreamWaitEvent", 3020);
  visit(api.capture_info, "cuStreamGetCaptureInfo", 10010);
  visit(api.exchange_capture_mode, "cuThreadExchangeStreamCaptureMode", 10010);
  visit(api.create_event, "cuEventCreate", 2000);
  visit(api.destroy_event, "cuEventDestroy", 4000);
  visit(api.record_event, "cuEventRecord", 2000);
  visit(api.query_event, "cuEventQuery", 2000);
  visit(api.synchronize_event, "cuEventSynchronize", 2000);
  visit(api.copy, "cuMemcpyAsync", 4000);
  visit(api.fill, "cuMemsetD8Async", 3020);
  visit(api.advise, "cuMemAdvise", 8000);
  visit(api.prefetch, "cuMemPrefetchAsync", 8000);
}

/// What later drivers added: a driver without it will do.
inline bool is_optional_cuda_entry_point(int version) noexcept {
  return version > 11030;
}

/// Looks every entry point up by `find(name, version)`, which answers null for what there is not.
/// Returns the first that is missing and needed, or null.
template <class Find>
const char* fill_cuda_api(CudaApi& api, Find&& find) {
  const char* missing = nullptr;
  each_cuda_entry_point(api, [&](auto& entry, const char* name, int version) {
    entry = reinterpret_cast<std::remove_reference_t<decltype(entry)>>(find(name, version));
    if (entry == nullptr && missing == nullptr && !is_optional_cuda_entry_point(version))
      missing = name;
  });
  return missing;
}

/// Throws std::runtime_error, which names the call and the error, if `code` is one.
void check_cuda(CudaResult code, const char* call);

/// "CUDA_ERROR_OUT_OF_MEMORY" for 2, and so on: a literal.
const char* cuda_name(CudaResult code) noexcept;

/// True if the context that answered this can do nothing more, whatever it is asked: a kernel read
/// where it may not, memory was found broken, and so on. It stays so until the process ends.
bool is_sticky(CudaResult code) noexcept;

/// True if what was asked about is no more, so that it cannot be waited for: the context or the
/// stream was destroyed, or the driver taken down.
bool is_gone(CudaResult code) noexcept;

/// True if a stream that is being captured into a graph, or one beside it, stood in the way.
bool is_of_capture(CudaResult code) noexcept;

}  // namespace cistern
