#include "device/opencl_api.hpp"

#include <stdexcept>

#include <dlfcn.h>

namespace cistern {
namespace {

struct NamedCode {
  cl_int code;
  const char* name;
};

constexpr NamedCode named_codes[] = {
    {.code = CL_SUCCESS, .name = "CL_SUCCESS"},
    {.code = -1001, .name = "CL_PLATFORM_NOT_FOUND_KHR"},  // of cl_khr_icd
    {.code = CL_DEVICE_NOT_FOUND, .name = "CL_DEVICE_NOT_FOUND"},
    {.code = CL_DEVICE_NOT_AVAILABLE, .name = "CL_DEVICE_NOT_AVAILABLE"},
    {.code = CL_COMPILER_NOT_AVAILABLE, .name = "CL_COMPILER_NOT_AVAILABLE"},
    {.code = CL_MEM_OBJECT_ALLOCATION_FAILURE, .name = "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
    {.code = CL_OUT_OF_RESOURCES, .name = "CL_OUT_OF_RESOURCES"},
    {.code = CL_OUT_OF_HOST_MEMORY, .name = "CL_OUT_OF_HOST_MEMORY"},
    {.code = CL_PROFILING_INFO_NOT_AVAILABLE, .name = "CL_PROFILING_INFO_NOT_AVAILABLE"},
    {.code = CL_MEM_COPY_OVERLAP, .name = "CL_MEM_COPY_OVERLAP"},
    {.code = CL_IMAGE_FORMAT_MISMATCH, .name = "CL_IMAGE_FORMAT_MISMATCH"},
    {.code = CL_IMAGE_FORMAT_NOT_SUPPORTED, .name = "CL_IMAGE_FORMAT_NOT_SUPPORTED"},
    {.code = CL_MAP_FAILURE, .name = "CL_MAP_FAILURE"},
    {.code = CL_MISALIGNED_SUB_BUFFER_OFFSET, .name = "CL_MISALIGNED_SUB_BUFFER_OFFSET"},
    {.code = CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST,
     .name = "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST"},
    {.code = CL_COMPILE_PROGRAM_FAILURE, .name = "CL_COMPILE_PROGRAM_FAILURE"},
    {.code = CL_LINKER_NOT_AVAILABLE, .name = "CL_LINKER_NOT_AVAILABLE"},
    {.code = CL_LINK_PROGRAM_FAILURE, .name = "CL_LINK_PROGRAM_FAILURE"},
    {.code = CL_DEVICE_PARTITION_FAILED, .name = "CL_DEVICE_PARTITION_FAILED"},
    {.code = CL_KERNEL_ARG_INFO_NOT_AVAILABLE, .name = "CL_KERNEL_ARG_INFO_NOT_AVAILABLE"},
    {.code = CL_INVALID_VALUE, .name = "CL_INVALID_VALUE"},
    {.code = CL_INVALID_DEVICE_TYPE, .name = "CL_INVALID_DEVICE_TYPE"},
    {.code = CL_INVALID_PLATFORM, .name = "CL_INVALID_PLATFORM"},
    {.code = CL_INVALID_DEVICE, .name = "CL_INVALID_DEVICE"},
    {.code = CL_INVALID_CONTEXT, .name = "CL_INVALID_CONTEXT"},
    {.code = CL_INVALID_QUEUE_PROPERTIES, .name = "CL_INVALID_QUEUE_PROPERTIES"},
    {.code = CL_INVALID_COMMAND_QUEUE, .name = "CL_INVALID_COMMAND_QUEUE"},
    {.code = CL_INVALID_HOST_PTR, .name = "CL_INVALID_HOST_PTR"},
    {.code = CL_INVALID_MEM_OBJECT, .name = "CL_INVALID_MEM_OBJECT"},
    {.code = CL_INVALID_IMAGE_FORMAT_DESCRIPTOR, .name = "CL_INVALID_IMAGE_FORMAT_DESCRIPTOR"},
    {.code = CL_INVALID_IMAGE_SIZE, .name = "CL_INVALID_IMAGE_SIZE"},
    {.code = CL_INVALID_SAMPLER, .name = "CL_INVALID_SAMPLER"},
    {.code = CL_INVALID_BINARY, .name = "CL_INVALID_BINARY"},
    {.code = CL_INVALID_BUILD_OPTIONS, .name = "CL_INVALID_BUILD_OPTIONS"},
    {.code = CL_INVALID_PROGRAM, .name = "CL_INVALID_PROGRAM"},
    {.code = CL_INVALID_PROGRAM_EXECUTABLE, .name = "CL_INVALID_PROGRAM_EXECUTABLE"},
    {.code = CL_INVALID_KERNEL_NAME, .name = "CL_INVALID_KERNEL_NAME"},
    {.code = CL_INVALID_KERNEL_DEFINITION, .name = "CL_INVALID_KERNEL_DEFINITION"},
    {.code = CL_INVALID_KERNEL, .name = "CL_INVALID_KERNEL"},
    {.code = CL_INVALID_ARG_INDEX, .name = "CL_INVALID_ARG_INDEX"},
    {.code = CL_INVALID_ARG_VALUE, .name = "CL_INVALID_ARG_VALUE"},
    {.code = CL_INVALID_ARG_SIZE, .name = "CL_INVALID_ARG_SIZE"},
    {.code = CL_INVALID_KERNEL_ARGS, .name = "CL_INVALID_KERNEL_ARGS"},
    {.code = CL_INVALID_WORK_DIMENSION, .name = "CL_INVALID_WORK_DIMENSION"},
    {.code = CL_INVALID_WORK_GROUP_SIZE, .name = "CL_INVALID_WORK_GROUP_SIZE"},
    {.code = CL_INVALID_WORK_ITEM_SIZE, .name = "CL_INVALID_WORK_ITEM_SIZE"},
    {.code = CL_INVALID_GLOBAL_OFFSET, .name = "CL_INVALID_GLOBAL_OFFSET"},
    {.code = CL_INVALID_EVENT_WAIT_LIST, .name = "CL_INVALID_EVENT_WAIT_LIST"},
    {.code = CL_INVALID_EVENT, .name = "CL_INVALID_EVENT"},
    {.code = CL_INVALID_OPERATION, .name = "CL_INVALID_OPERATION"},
    {.code = CL_INVALID_GL_OBJECT, .name = "CL_INVALID_GL_OBJECT"},
    {.code = CL_INVALID_BUFFER_SIZE, .name = "CL_INVALID_BUFFER_SIZE"},
    {.code = CL_INVALID_MIP_LEVEL, .name = "CL_INVALID_MIP_LEVEL"},
    {.code = CL_INVALID_GLOBAL_WORK_SIZE, .name = "CL_INVALID_GLOBAL_WORK_SIZE"},
    {.code = CL_INVALID_PROPERTY, .name = "CL_INVALID_PROPERTY"},
    {.code = CL_INVALID_IMAGE_DESCRIPTOR, .name = "CL_INVALID_IMAGE_DESCRIPTOR"},
    {.code = CL_INVALID_COMPILER_OPTIONS, .name = "CL_INVALID_COMPILER_OPTIONS"},
    {.code = CL_INVALID_LINKER_OPTIONS, .name = "CL_INVALID_LINKER_OPTIONS"},
    {.code = CL_INVALID_DEVICE_PARTITION_COUNT, .name = "CL_INVALID_DEVICE_PARTITION_COUNT"},
    {.code = CL_INVALID_PIPE_SIZE, .name = "CL_INVALID_PIPE_SIZE"},
    {.code = CL_INVALID_DEVICE_QUEUE, .name = "CL_INVALID_DEVICE_QUEUE"},
    {.code = CL_INVALID_SPEC_ID, .name = "CL_INVALID_SPEC_ID"},
    {.code = CL_MAX_SIZE_RESTRICTION_EXCEEDED, .name = "CL_MAX_SIZE_RESTRICTION_EXCEEDED"},
};

/// Looks entry points up in one library, and notes the first that is missing.
class EntryPoints {
 public:
  explicit EntryPoints(void* library) : library_(library) {}

  template <class Function>
  void find(Function& function, const char* name) {
    find_optional(function, name);
    if (function == nullptr && missing_.empty()) missing_ = name;
  }
  template <class Function>
  void find_optional(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
  }
  [[nodiscard]] const std::string& missing() const noexcept { return missing_; }

 private:
  void* library_;
  std::string missing_;
};

struct Loaded {
  OpenClApi api;
  std::string why_not;
};

// The library stays loaded: drivers leave threads behind.
Loaded load() {
  void* const library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return {.api = {}, .why_not = "no OpenCL loader is installed (libOpenCL.so.1)"};
  Loaded loaded;
  OpenClApi& api = loaded.api;
  EntryPoints points(library);
  points.find(api.get_platform_ids, "clGetPlatformIDs");
  points.find(api.get_platform_info, "clGetPlatformInfo");
  points.find(api.get_device_ids, "clGetDeviceIDs");
  points.find(api.get_device_info, "clGetDeviceInfo");
  points.find(api.create_context, "clCreateContext");
  points.find(api.retain_context, "clRetainContext");
  points.find(api.release_context, "clReleaseContext");
  points.find(api.create_command_queue, "clCreateCommandQueue");
  points.find(api.retain_command_queue, "clRetainCommandQueue");
  points.find(api.release_command_queue, "clReleaseCommandQueue");
  points.find(api.get_command_queue_info, "clGetCommandQueueInfo");
  points.find(api.create_buffer, "clCreateBuffer");
  points.find(api.create_sub_buffer, "clCreateSubBuffer");
  points.find(api.retain_mem_object, "clRetainMemObject");
  points.find(api.release_mem_object, "clReleaseMemObject");
  points.find(api.enqueue_map_buffer, "clEnqueueMapBuffer");
  points.find(api.enqueue_unmap_mem_object, "clEnqueueUnmapMemObject");
  points.find(api.enqueue_migrate_mem_objects, "clEnqueueMigrateMemObjects");
  points.find(api.enqueue_marker, "clEnqueueMarkerWithWaitList");
  points.find(api.enqueue_barrier, "clEnqueueBarrierWithWaitList");
  points.find(api.enqueue_read_buffer, "clEnqueueReadBuffer");
  points.find(api.enqueue_write_buffer, "clEnqueueWriteBuffer");
  points.find(api.enqueue_copy_buffer, "clEnqueueCopyBuffer");
  points.find(api.enqueue_fill_buffer, "clEnqueueFillBuffer");
  points.find(api.wait_for_events, "clWaitForEvents");
  points.find(api.get_event_info, "clGetEventInfo");
  points.find(api.release_event, "clReleaseEvent");
  points.find(api.flush, "clFlush");
  points.find(api.finish, "clFinish");
  points.find_optional(api.svm_alloc, "clSVMAlloc");
  points.find_optional(api.svm_free, "clSVMFree");
  points.find_optional(api.enqueue_svm_memcpy, "clEnqueueSVMMemcpy");
  points.find_optional(api.enqueue_svm_mem_fill, "clEnqueueSVMMemFill");
  if (!points.missing().empty())
    loaded.why_not = "the OpenCL loader is older than version 1.2: it has no " + points.missing();
  return loaded;
}

}  // namespace

const OpenClApi* OpenClApi::system(std::string& why) {
  static const Loaded loaded = load();
  if (loaded.why_not.empty()) return &loaded.api;
  why = loaded.why_not;
  return nullptr;
}

void check_opencl(cl_int code, const char* call) {
  if (code != CL_SUCCESS)
    throw std::runtime_error(std::string("opencl: ") + call + " failed: " + opencl_name(code));
}

const char* opencl_name(cl_int code) noexcept {
  for (const NamedCode& each : named_codes) {
    if (each.code == code) return each.name;
  }
  return "an OpenCL error without a name";
}

}  // namespace cistern
