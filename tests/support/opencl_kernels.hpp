// Kernels that fill memory with a pattern and count where it is not what it should be: the look at
// memory that the device itself has. The entry points that only tests need are looked up here.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include <dlfcn.h>

#include "device/opencl_api.hpp"

namespace cistern::testing {

inline void check_kernel_call(cl_int code, const char* call) {
  if (code != CL_SUCCESS) throw std::runtime_error(std::string(call) + ": " + opencl_name(code));
}

/// What a program does with kernels and events, and the library does not.
struct OpenClProgramApi {
  decltype(&clCreateProgramWithSource) create_program = nullptr;
  decltype(&clBuildProgram) build_program = nullptr;
  decltype(&clReleaseProgram) release_program = nullptr;
  decltype(&clCreateKernel) create_kernel = nullptr;
  decltype(&clReleaseKernel) release_kernel = nullptr;
  decltype(&clSetKernelArg) set_kernel_arg = nullptr;
  decltype(&clSetKernelArgSVMPointer) set_kernel_arg_svm = nullptr;
  decltype(&clEnqueueNDRangeKernel) enqueue_kernel = nullptr;
  decltype(&clCreateUserEvent) create_user_event = nullptr;
  decltype(&clSetUserEventStatus) set_user_event_status = nullptr;

  static const OpenClProgramApi& system() {
    static const OpenClProgramApi api = [] {
      OpenClProgramApi found;
      void* const library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
      const auto find = [library](auto& function, const char* name) {
        function =
            reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      };
      find(found.create_program, "clCreateProgramWithSource");
      find(found.build_program, "clBuildProgram");
      find(found.release_program, "clReleaseProgram");
      find(found.create_kernel, "clCreateKernel");
      find(found.release_kernel, "clReleaseKernel");
      find(found.set_kernel_arg, "clSetKernelArg");
      find(found.set_kernel_arg_svm, "clSetKernelArgSVMPointer");
      find(found.enqueue_kernel, "clEnqueueNDRangeKernel");
      find(found.create_user_event, "clCreateUserEvent");
      find(found.set_user_event_status, "clSetUserEventStatus");
      return found;
    }();
    return api;
  }
};

/// Built once for a context; thread-safe.
class OpenClPatterns {
 public:
  OpenClPatterns(cl_context context, cl_device_id device) : context_(context) {
    const char* source = R"(
      uint word(uint seed, uint i) { return seed * 2654435761u ^ (i * 40503u + seed); }
      kernel void write(global uint* memory, uint seed, uint words) {
        for (uint i = get_global_id(0); i < words; i += get_global_size(0))
          memory[i] = word(seed, i);
      }
      kernel void check(global const uint* memory, uint seed, uint words, global uint* wrong) {
        for (uint i = get_global_id(0); i < words; i += get_global_size(0))
          if (memory[i] != word(seed, i)) atomic_inc(wrong);
      })";
    cl_int code = CL_SUCCESS;
    program_ = api().create_program(context, 1, &source, nullptr, &code);
    check_kernel_call(code, "clCreateProgramWithSource");
    check_kernel_call(api().build_program(program_, 1, &device, "", nullptr, nullptr),
                      "clBuildProgram");
  }
  OpenClPatterns(const OpenClPatterns&) = delete;
  OpenClPatterns& operator=(const OpenClPatterns&) = delete;
  OpenClPatterns(OpenClPatterns&&) = delete;
  OpenClPatterns& operator=(OpenClPatterns&&) = delete;
  ~OpenClPatterns() { api().release_program(program_); }

  [[nodiscard]] cl_context context() const { return context_; }
  [[nodiscard]] cl_kernel make(const char* name) const {
    cl_int code = CL_SUCCESS;
    const cl_kernel kernel = api().create_kernel(program_, name, &code);
    check_kernel_call(code, "clCreateKernel");
    return kernel;
  }
  static const OpenClProgramApi& api() { return OpenClProgramApi::system(); }

 private:
  const cl_context context_;
  cl_program program_ = nullptr;
};

/// The kernels of one thread, and what they found wrong. `real` are the entry points themselves,
/// whatever stands between a device and them.
class OpenClKernels {
 public:
  OpenClKernels(const OpenClApi& real, const OpenClPatterns& patterns)
      : real_(real), write_(patterns.make("write")), check_(patterns.make("check")) {
    cl_int code = CL_SUCCESS;
    cl_uint none = 0;
    wrong_ = real_.create_buffer(patterns.context(), CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR,
                                 sizeof none, &none, &code);
    check_kernel_call(code, "clCreateBuffer");
  }
  OpenClKernels(const OpenClKernels&) = delete;
  OpenClKernels& operator=(const OpenClKernels&) = delete;
  OpenClKernels(OpenClKernels&&) = delete;
  OpenClKernels& operator=(OpenClKernels&&) = delete;
  ~OpenClKernels() {
    api().release_kernel(write_);
    api().release_kernel(check_);
    real_.release_mem_object(wrong_);
  }

  /// Enqueues the pattern of `seed` over so many bytes, or a check of it. `Memory` is what a kernel
  /// is given: an object, or a shared address.
  template <class Memory>
  void write(cl_command_queue queue, Memory memory, cl_uint seed, std::size_t bytes) {
    launch(queue, write_, memory, seed, bytes);
  }
  template <class Memory>
  void check(cl_command_queue queue, Memory memory, cl_uint seed, std::size_t bytes) {
    check_kernel_call(api().set_kernel_arg(check_, 3, sizeof(cl_mem), &wrong_), "clSetKernelArg");
    launch(queue, check_, memory, seed, bytes);
  }

  /// Words that were not what they should be; once all queues are done.
  [[nodiscard]] cl_uint wrong(cl_command_queue queue) const {
    cl_uint count = 0;
    check_kernel_call(real_.enqueue_read_buffer(queue, wrong_, CL_TRUE, 0, sizeof count, &count, 0,
                                                nullptr, nullptr),
                      "clEnqueueReadBuffer");
    return count;
  }

 private:
  static const OpenClProgramApi& api() { return OpenClProgramApi::system(); }

  void launch(cl_command_queue queue, cl_kernel kernel, cl_mem memory, cl_uint seed,
              std::size_t bytes) const {
    check_kernel_call(api().set_kernel_arg(kernel, 0, sizeof(cl_mem), &memory), "clSetKernelArg");
    run(queue, kernel, seed, bytes);
  }
  void launch(cl_command_queue queue, cl_kernel kernel, void* memory, cl_uint seed,
              std::size_t bytes) const {
    check_kernel_call(api().set_kernel_arg_svm(kernel, 0, memory), "clSetKernelArgSVMPointer");
    run(queue, kernel, seed, bytes);
  }
  static void run(cl_command_queue queue, cl_kernel kernel, cl_uint seed, std::size_t bytes) {
    const auto words = static_cast<cl_uint>(bytes / sizeof(cl_uint));
    check_kernel_call(api().set_kernel_arg(kernel, 1, sizeof seed, &seed), "clSetKernelArg");
    check_kernel_call(api().set_kernel_arg(kernel, 2, sizeof words, &words), "clSetKernelArg");
    const std::size_t items = 16;
    check_kernel_call(
        api().enqueue_kernel(queue, kernel, 1, nullptr, &items, nullptr, 0, nullptr, nullptr),
        "clEnqueueNDRangeKernel");
  }

  const OpenClApi& real_;
  const cl_kernel write_;
  const cl_kernel check_;
  cl_mem wrong_ = nullptr;
};

/// Holds a queue back: what is enqueued behind it begins once it was opened. A driver's queues may
/// be done before anyone could be too early; this one is not.
class OpenClGate {
 public:
  OpenClGate(const OpenClApi& real, cl_context context, cl_command_queue queue) : real_(real) {
    cl_int code = CL_SUCCESS;
    event_ = OpenClProgramApi::system().create_user_event(context, &code);
    check_kernel_call(code, "clCreateUserEvent");
    check_kernel_call(real_.enqueue_marker(queue, 1, &event_, nullptr),
                      "clEnqueueMarkerWithWaitList");
    check_kernel_call(real_.enqueue_barrier(queue, 0, nullptr, nullptr),
                      "clEnqueueBarrierWithWaitList");
  }
  OpenClGate(const OpenClGate&) = delete;
  OpenClGate& operator=(const OpenClGate&) = delete;
  OpenClGate(OpenClGate&&) = delete;
  OpenClGate& operator=(OpenClGate&&) = delete;
  ~OpenClGate() {
    OpenClProgramApi::system().set_user_event_status(event_, CL_COMPLETE);
    real_.release_event(event_);
  }

 private:
  const OpenClApi& real_;
  cl_event event_ = nullptr;
};

}  // namespace cistern::testing
