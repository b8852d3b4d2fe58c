// The entry points of the OpenCL that is installed, counted, and failing on demand; and a context
// with queues as a program would make them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cistern/device/opencl.hpp"
#include "device/opencl_api.hpp"

namespace cistern::testing {

/// One at a time: entry points are plain functions, so that what they count is global.
class OpenClCalls {
 public:
  OpenClCalls() {
    std::string why;
    real() = OpenClApi::system(why);
    count() = {};
    api_ = *real();
    api_.create_buffer = [](cl_context context, cl_mem_flags flags, std::size_t bytes, void* host,
                            cl_int* code) -> cl_mem {
      if (fails(code)) return nullptr;
      const cl_mem made = real()->create_buffer(context, flags, bytes, host, code);
      if (made != nullptr) ++count().live;
      return made;
    };
    api_.create_sub_buffer = [](cl_mem object, cl_mem_flags flags, cl_buffer_create_type type,
                                const void* region, cl_int* code) -> cl_mem {
      if (fails(code)) return nullptr;
      const cl_mem made = real()->create_sub_buffer(object, flags, type, region, code);
      if (made != nullptr) ++count().live;
      return made;
    };
    api_.retain_mem_object = [](cl_mem object) -> cl_int {
      if (cl_int code = 0; fails(&code)) return code;
      ++count().live;
      return real()->retain_mem_object(object);
    };
    api_.release_mem_object = [](cl_mem object) -> cl_int {
      --count().live;
      return real()->release_mem_object(object);
    };
    api_.svm_alloc = [](cl_context context, cl_svm_mem_flags flags, std::size_t bytes,
                        cl_uint alignment) -> void* {
      if (cl_int code = 0; fails(&code)) return nullptr;
      void* const made = real()->svm_alloc(context, flags, bytes, alignment);
      if (made != nullptr) ++count().live;
      return made;
    };
    api_.svm_free = [](cl_context context, void* memory) {
      --count().live;
      real()->svm_free(context, memory);
    };
    api_.retain_command_queue = [](cl_command_queue queue) -> cl_int {
      ++count().live;
      return real()->retain_command_queue(queue);
    };
    api_.create_command_queue = [](cl_context context, cl_device_id device,
                                   cl_command_queue_properties properties,
                                   cl_int* code) -> cl_command_queue {
      ++count().live;
      return real()->create_command_queue(context, device, properties, code);
    };
    api_.release_command_queue = [](cl_command_queue queue) -> cl_int {
      --count().live;
      return real()->release_command_queue(queue);
    };
    api_.enqueue_migrate_mem_objects = [](cl_command_queue queue, cl_uint size,
                                          const cl_mem* objects, cl_mem_migration_flags flags,
                                          cl_uint waits, const cl_event* list,
                                          cl_event* event) -> cl_int {
      if (cl_int code = 0; fails(&code)) return code;
      return real()->enqueue_migrate_mem_objects(queue, size, objects, flags, waits, list, event);
    };
    api_.enqueue_svm_mem_fill = [](cl_command_queue queue, void* to, const void* pattern,
                                   std::size_t pattern_size, std::size_t bytes, cl_uint waits,
                                   const cl_event* list, cl_event* event) -> cl_int {
      if (cl_int code = 0; fails(&code)) return code;
      return real()->enqueue_svm_mem_fill(queue, to, pattern, pattern_size, bytes, waits, list,
                                          event);
    };
    api_.enqueue_map_buffer = [](cl_command_queue queue, cl_mem object, cl_bool blocking,
                                 cl_map_flags flags, std::size_t offset, std::size_t bytes,
                                 cl_uint waits, const cl_event* list, cl_event* event,
                                 cl_int* code) -> void* {
      if (fails(code)) return nullptr;
      return real()->enqueue_map_buffer(queue, object, blocking, flags, offset, bytes, waits, list,
                                        event, code);
    };
    api_.enqueue_marker = [](cl_command_queue queue, cl_uint waits, const cl_event* list,
                             cl_event* event) -> cl_int {
      if (cl_int code = 0; fails(&code)) return code;
      ++count().markers;
      return real()->enqueue_marker(queue, waits, list, event);
    };
    api_.finish = [](cl_command_queue queue) -> cl_int {
      if (cl_int code = 0; fails(&code)) return code;
      return real()->finish(queue);
    };
  }

  [[nodiscard]] const OpenClApi& api() const noexcept { return api_; }

  /// The n-th call from now that can fail does, with this code; 0 for none.
  static void fail_next(std::size_t n, cl_int code) {
    count().fail_at = n == 0 ? 0 : count().made + n;
    count().code = code;
  }
  /// Objects, addresses and queues that were obtained or retained and not let go of.
  [[nodiscard]] static long live() { return count().live; }
  /// Calls that can fail.
  [[nodiscard]] static std::size_t made() { return count().made; }
  [[nodiscard]] static std::size_t markers() { return count().markers; }

 private:
  struct Count {
    long live = 0;
    std::size_t made = 0;
    std::size_t fail_at = 0;
    cl_int code = CL_SUCCESS;
    std::size_t markers = 0;
  };

  static const OpenClApi*& real() {
    static const OpenClApi* api = nullptr;
    return api;
  }
  static Count& count() {
    static Count counted;
    return counted;
  }
  static bool fails(cl_int* code) {
    if (++count().made != count().fail_at) return false;
    *code = count().code;
    return true;
  }

  OpenClApi api_;
};

/// A program's own context, with queues in and out of order.
class OpenClSetup {
 public:
  explicit OpenClSetup(const OpenClApi& api) : api_(api) {
    cl_platform_id platform = nullptr;
    api_.get_platform_ids(1, &platform, nullptr);
    cl_device_id device = nullptr;
    api_.get_device_ids(platform, CL_DEVICE_TYPE_ALL, 1, &device, nullptr);
    cl_int code = CL_SUCCESS;
    context_ = api_.create_context(nullptr, 1, &device, nullptr, nullptr, &code);
    default_ = api_.create_command_queue(context_, device, 0, &code);
    in_order_ = api_.create_command_queue(context_, device, 0, &code);
    out_of_order_ =
        api_.create_command_queue(context_, device, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, &code);
  }

  [[nodiscard]] cl_command_queue queue(bool out_of_order) const {
    return out_of_order ? out_of_order_ : in_order_;
  }
  [[nodiscard]] Ref<OpenClDevice> make_device() const { return make_device(default_); }
  [[nodiscard]] Ref<OpenClDevice> make_device(cl_command_queue queue) const {
    return make<OpenClDevice>(api_, context_, queue, OpenClDevice::Options{});
  }
  void release() {
    for (const cl_command_queue queue : {default_, in_order_, out_of_order_})
      api_.release_command_queue(queue);
    api_.release_context(context_);
  }

 private:
  const OpenClApi& api_;
  cl_context context_ = nullptr;
  cl_command_queue default_ = nullptr;
  cl_command_queue in_order_ = nullptr;
  cl_command_queue out_of_order_ = nullptr;
};

}  // namespace cistern::testing
