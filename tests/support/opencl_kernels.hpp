// Two kernels for tests: one writes a pattern into a buffer, one counts what is not as it should
// be. Of one thread.
#pragma once

#include <cstddef>
#include <stdexcept>

#include <dlfcn.h>

#include "cistern/device/opencl.hpp"
#include "device/opencl_api.hpp"

namespace cistern::testing {

class OpenClKernels {
 public:
  OpenClKernels(cl_context context, cl_device_id device) {
    library_ = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    find(create_program_, "clCreateProgramWithSource");
    find(build_program_, "clBuildProgram");
    find(create_kernel_, "clCreateKernel");
    find(set_kernel_arg_, "clSetKernelArg");
    find(enqueue_kernel_, "clEnqueueNDRangeKernel");
    find(release_kernel_, "clReleaseKernel");
    find(release_program_, "clReleaseProgram");
    // Each writes twice, and looks twice, so that work which should not run beside it has the time
    // to.
    const char* source = R"(
      __kernel void put(__global uint* cells, uint size, uint value) {
        for (uint turn = 0; turn < 2; ++turn)
          for (uint i = get_global_id(0); i < size; i += get_global_size(0))
            cells[i] = value + i;
      }
      __kernel void look(__global const uint* cells, uint size, uint value, __global uint* wrong) {
        for (uint turn = 0; turn < 2; ++turn)
          for (uint i = get_global_id(0); i < size; i += get_global_size(0))
            if (cells[i] != value + i) atomic_inc(wrong);
      })";
    cl_int code = CL_SUCCESS;
    program_ = create_program_(context, 1, &source, nullptr, &code);
    if (code != CL_SUCCESS || build_program_(program_, 1, &device, "", nullptr, nullptr) != 0)
      throw std::runtime_error("the kernels of a test cannot be built");
    put_ = create_kernel_(program_, "put", &code);
    look_ = create_kernel_(program_, "look", &code);
  }
  OpenClKernels(const OpenClKernels&) = delete;
  OpenClKernels& operator=(const OpenClKernels&) = delete;
  OpenClKernels(OpenClKernels&&) = delete;
  OpenClKernels& operator=(OpenClKernels&&) = delete;
  ~OpenClKernels() {
    release_kernel_(put_);
    release_kernel_(look_);
    release_program_(program_);
  }

  /// Enqueued, not waited for. False if OpenCL refuses.
  bool put(cl_command_queue queue, cl_mem cells, cl_uint size, cl_uint value) {
    return set(put_, 0, cells) && set(put_, 1, size) && set(put_, 2, value) && run(queue, put_);
  }
  bool look(cl_command_queue queue, cl_mem cells, cl_uint size, cl_uint value, cl_mem wrong) {
    return set(look_, 0, cells) && set(look_, 1, size) && set(look_, 2, value) &&
           set(look_, 3, wrong) && run(queue, look_);
  }

 private:
  template <class Function>
  void find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    if (function == nullptr) throw std::runtime_error(name);
  }
  template <class T>
  bool set(cl_kernel kernel, cl_uint place, const T& value) {
    return set_kernel_arg_(kernel, place, sizeof value, static_cast<const void*>(&value)) ==
           CL_SUCCESS;
  }
  bool run(cl_command_queue queue, cl_kernel kernel) {
    const std::size_t items = 16;
    return enqueue_kernel_(queue, kernel, 1, nullptr, &items, nullptr, 0, nullptr, nullptr) ==
           CL_SUCCESS;
  }

  void* library_ = nullptr;
  decltype(&clCreateProgramWithSource) create_program_ = nullptr;
  decltype(&clBuildProgram) build_program_ = nullptr;
  decltype(&clCreateKernel) create_kernel_ = nullptr;
  decltype(&clSetKernelArg) set_kernel_arg_ = nullptr;
  decltype(&clEnqueueNDRangeKernel) enqueue_kernel_ = nullptr;
  decltype(&clReleaseKernel) release_kernel_ = nullptr;
  decltype(&clReleaseProgram) release_program_ = nullptr;
  cl_program program_ = nullptr;
  cl_kernel put_ = nullptr;
  cl_kernel look_ = nullptr;
};

}  // namespace cistern::testing
