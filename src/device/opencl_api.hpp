// The entry points of OpenCL that are used, found when they are first needed: a program that was
// built with OpenCL runs where there is none. Being a table, it is also the place where a test
// makes calls fail.
#pragma once

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 300
#endif
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <string>

#include <CL/cl.h>

namespace cistern {

struct OpenClApi {
  decltype(&clGetPlatformIDs) get_platform_ids = nullptr;
  decltype(&clGetPlatformInfo) get_platform_info = nullptr;
  decltype(&clGetDeviceIDs) get_device_ids = nullptr;
  decltype(&clGetDeviceInfo) get_device_info = nullptr;
  decltype(&clCreateContext) create_context = nullptr;
  decltype(&clRetainContext) retain_context = nullptr;
  decltype(&clReleaseContext) release_context = nullptr;
  decltype(&clCreateCommandQueue) create_command_queue = nullptr;
  decltype(&clRetainCommandQueue) retain_command_queue = nullptr;
  decltype(&clReleaseCommandQueue) release_command_queue = nullptr;
  decltype(&clGetCommandQueueInfo) get_command_queue_info = nullptr;
  decltype(&clCreateBuffer) create_buffer = nullptr;
  decltype(&clCreateSubBuffer) create_sub_buffer = nullptr;
  decltype(&clRetainMemObject) retain_mem_object = nullptr;
  decltype(&clReleaseMemObject) release_mem_object = nullptr;
  decltype(&clEnqueueMapBuffer) enqueue_map_buffer = nullptr;
  decltype(&clEnqueueUnmapMemObject) enqueue_unmap_mem_object = nullptr;
  decltype(&clEnqueueMigrateMemObjects) enqueue_migrate_mem_objects = nullptr;
  decltype(&clEnqueueMarkerWithWaitList) enqueue_marker = nullptr;
  decltype(&clEnqueueBarrierWithWaitList) enqueue_barrier = nullptr;
  decltype(&clEnqueueReadBuffer) enqueue_read_buffer = nullptr;
  decltype(&clEnqueueWriteBuffer) enqueue_write_buffer = nullptr;
  decltype(&clEnqueueCopyBuffer) enqueue_copy_buffer = nullptr;
  decltype(&clEnqueueFillBuffer) enqueue_fill_buffer = nullptr;
  decltype(&clWaitForEvents) wait_for_events = nullptr;
  decltype(&clGetEventInfo) get_event_info = nullptr;
  decltype(&clReleaseEvent) release_event = nullptr;
  decltype(&clFlush) flush = nullptr;
  decltype(&clFinish) finish = nullptr;
  // Of OpenCL 2.0: null in an older loader.
  decltype(&clSVMAlloc) svm_alloc = nullptr;
  decltype(&clSVMFree) svm_free = nullptr;
  decltype(&clEnqueueSVMMemcpy) enqueue_svm_memcpy = nullptr;
  decltype(&clEnqueueSVMMemFill) enqueue_svm_mem_fill = nullptr;

  /// Those of the system's loader. Where there is none, null; and `why` says what was missing.
  static const OpenClApi* system(std::string& why);
};

/// Throws std::runtime_error, which names the call and the error, if `code` is one.
void check_opencl(cl_int code, const char* call);

/// What a queue says of itself. Throws as above.
template <class T>
T queue_value(const OpenClApi& api, cl_command_queue queue, cl_command_queue_info key) {
  T value{};
  constexpr std::size_t size = sizeof(T);  // NOLINT(bugprone-sizeof-expression): a handle's
  check_opencl(api.get_command_queue_info(queue, key, size, static_cast<void*>(&value), nullptr),
               "clGetCommandQueueInfo");
  return value;
}

/// "CL_OUT_OF_RESOURCES" for -5, and so on: a literal.
const char* opencl_name(cl_int code) noexcept;

}  // namespace cistern
