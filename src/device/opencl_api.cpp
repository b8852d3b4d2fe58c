#include "device/opencl_api.hpp"

#include <dlfcn.h>

namespace cistern {
namespace {

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

const char* opencl_name(cl_int code) noexcept {
  switch (code) {
    case CL_SUCCESS:
      return "CL_SUCCESS";
    case CL_DEVICE_NOT_FOUND:
      return "CL_DEVICE_NOT_FOUND";
    case CL_DEVICE_NOT_AVAILABLE:
      return "CL_DEVICE_NOT_AVAILABLE";
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
      return "CL_MEM_OBJECT_ALLOCATION_FAILURE";
    case CL_OUT_OF_RESOURCES:
      return "CL_OUT_OF_RESOURCES";
    case CL_OUT_OF_HOST_MEMORY:
      return "CL_OUT_OF_HOST_MEMORY";
    case CL_MEM_COPY_OVERLAP:
      return "CL_MEM_COPY_OVERLAP";
    case CL_MAP_FAILURE:
      return "CL_MAP_FAILURE";
    case CL_MISALIGNED_SUB_BUFFER_OFFSET:
      return "CL_MISALIGNED_SUB_BUFFER_OFFSET";
    case CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST:
      return "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST";
    case CL_INVALID_VALUE:
      return "CL_INVALID_VALUE";
    case CL_INVALID_PLATFORM:
      return "CL_INVALID_PLATFORM";
    case CL_INVALID_DEVICE:
      return "CL_INVALID_DEVICE";
    case CL_INVALID_CONTEXT:
      return "CL_INVALID_CONTEXT";
    case CL_INVALID_QUEUE_PROPERTIES:
      return "CL_INVALID_QUEUE_PROPERTIES";
    case CL_INVALID_COMMAND_QUEUE:
      return "CL_INVALID_COMMAND_QUEUE";
    case CL_INVALID_HOST_PTR:
      return "CL_INVALID_HOST_PTR";
    case CL_INVALID_MEM_OBJECT:
      return "CL_INVALID_MEM_OBJECT";
    case CL_INVALID_BUFFER_SIZE:
      return "CL_INVALID_BUFFER_SIZE";
    case CL_INVALID_EVENT_WAIT_LIST:
      return "CL_INVALID_EVENT_WAIT_LIST";
    case CL_INVALID_EVENT:
      return "CL_INVALID_EVENT";
    case CL_INVALID_OPERATION:
      return "CL_INVALID_OPERATION";
    default:
      return "an OpenCL error without a name";
  }
}

}  // namespace cistern
