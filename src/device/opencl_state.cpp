#include "device/opencl_state.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cctype>
#include <charconv>
#include <new>
#include <stdexcept>

namespace cistern {
namespace {

template <class Get>
std::string read_text(Get&& get) {
  std::size_t size = 0;
  if (get(0, nullptr, &size) != CL_SUCCESS || size == 0) return {};
  std::string text(size, '\0');
  if (get(size, text.data(), nullptr) != CL_SUCCESS) return {};
  text.resize(std::min(text.find('\0'), text.size()));
  return text;
}

std::string platform_text(const OpenClApi& api, cl_platform_id platform, cl_platform_info key) {
  return read_text([&](std::size_t size, void* out, std::size_t* needed) {
    return api.get_platform_info(platform, key, size, out, needed);
  });
}

std::string device_text(const OpenClApi& api, cl_device_id device, cl_device_info key) {
  return read_text([&](std::size_t size, void* out, std::size_t* needed) {
    return api.get_device_info(device, key, size, out, needed);
  });
}

template <class T>
T device_value(const OpenClApi& api, cl_device_id device, cl_device_info key) noexcept {
  T value{};
  return api.get_device_info(device, key, sizeof value, &value, nullptr) == CL_SUCCESS ? value
                                                                                       : T{};
}

std::vector<cl_platform_id> platforms_of(const OpenClApi& api) {
  cl_uint count = 0;
  if (api.get_platform_ids(0, nullptr, &count) != CL_SUCCESS || count == 0) return {};
  std::vector<cl_platform_id> platforms(count);
  check_opencl(api.get_platform_ids(count, platforms.data(), nullptr), "clGetPlatformIDs");
  return platforms;
}

std::vector<cl_device_id> devices_of(const OpenClApi& api, cl_platform_id platform) {
  cl_uint count = 0;
  const cl_int found = api.get_device_ids(platform, CL_DEVICE_TYPE_ALL, 0, nullptr, &count);
  if (found != CL_SUCCESS || count == 0) return {};
  std::vector<cl_device_id> devices(count);
  check_opencl(api.get_device_ids(platform, CL_DEVICE_TYPE_ALL, count, devices.data(), nullptr),
               "clGetDeviceIDs");
  return devices;
}

/// A device, where it was found.
struct Place {
  cl_platform_id platform = nullptr;
  std::size_t platform_number = 0;
  cl_device_id device = nullptr;
  std::size_t device_number = 0;  // of the platform
};

std::vector<Place> all_devices(const OpenClApi& api) {
  std::vector<Place> places;
  Place place;
  for (const cl_platform_id platform : platforms_of(api)) {
    place.platform = platform;
    place.device_number = 0;
    for (const cl_device_id device : devices_of(api, platform)) {
      place.device = device;
      places.push_back(place);
      ++place.device_number;
    }
    ++place.platform_number;
  }
  return places;
}

/// Of a machine without one.
std::string why_no_device(const OpenClApi& api) {
  cl_uint count = 0;
  if (const cl_int code = api.get_platform_ids(0, nullptr, &count); code != CL_SUCCESS)
    return std::string("no OpenCL platform is installed, ") + opencl_name(code);
  std::string names;
  for (const cl_platform_id platform : platforms_of(api))
    names += (names.empty() ? "" : ", ") + platform_text(api, platform, CL_PLATFORM_NAME);
  if (names.empty()) return "no OpenCL platform is installed";
  return "no OpenCL platform has a device; there is " + names;
}

/// By its number, or by a part of its name; anything where nothing is asked for.
bool is_meant(const std::string& asked, std::size_t number, const std::string& name) {
  std::size_t wanted = 0;
  const auto [end, error] = std::from_chars(asked.data(), asked.data() + asked.size(), wanted);
  if (error == std::errc{} && end == asked.data() + asked.size()) return wanted == number;
  const auto is_alike = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) ==
           std::tolower(static_cast<unsigned char>(b));
  };
  return std::search(name.begin(), name.end(), asked.begin(), asked.end(), is_alike) !=
             name.end() ||
         asked.empty();
}

/// Never used again, nor by another device: a stream that strays is nobody's.
std::uint64_t next_stream_id() noexcept {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

OpenClDevice::State::State(const OpenClApi& entry_points, const Options& asked)
    : api(entry_points), options(asked) {
  find_device();
  read_device();
  try {
    cl_int code = CL_SUCCESS;
    context = api.create_context(nullptr, 1, &id, nullptr, nullptr, &code);
    check_opencl(code, "clCreateContext");
    make_queue(queue);
    make_queue(own_queue);
  } catch (...) {
    close();
    throw;
  }
}

OpenClDevice::State::State(const OpenClApi& entry_points, cl_context users_context,
                           cl_command_queue users_queue, const Options& asked)
    : api(entry_points), options(asked) {
  require_context(users_queue, users_context);
  if (runs_out_of_order(users_queue)) {
    throw std::invalid_argument(
        "opencl: the queue of a device runs in order; hand one that does not to stream()");
  }
  id = queue_value<cl_device_id>(api, users_queue, CL_QUEUE_DEVICE);
  read_device();
  try {
    check_opencl(api.retain_context(users_context), "clRetainContext");
    context = users_context;
    check_opencl(api.retain_command_queue(users_queue), "clRetainCommandQueue");
    queue = users_queue;
    make_queue(own_queue);
  } catch (...) {
    close();
    throw;
  }
}

OpenClDevice::State::~State() {
  close();
}

void OpenClDevice::State::close() noexcept {
  for (auto& [object, root] : roots_)
    drop_parts(root);
  for (const auto& [stream, its_queue] : streams_)
    api.release_command_queue(its_queue);
  if (own_queue != nullptr) api.release_command_queue(own_queue);
  if (queue != nullptr) api.release_command_queue(queue);
  if (context != nullptr) api.release_context(context);
}

void OpenClDevice::State::find_device() {
  std::string seen;
  for (const Place& place : all_devices(api)) {
    const std::string platform = platform_text(api, place.platform, CL_PLATFORM_NAME);
    const std::string name = device_text(api, place.device, CL_DEVICE_NAME);
    if (is_meant(options.platform, place.platform_number, platform) &&
        is_meant(options.device, place.device_number, name)) {
      id = place.device;
      return;
    }
    seen += (seen.empty() ? "" : ", ") + name + " of " + platform;
  }
  throw DeviceAbsent(
      "opencl", seen.empty() ? why_no_device(api) : "none is called like that; there is " + seen);
}

void OpenClDevice::State::read_device() {
  is_unified = device_value<cl_bool>(api, id, CL_DEVICE_HOST_UNIFIED_MEMORY) != CL_FALSE;
  const bool has_calls = api.svm_alloc != nullptr && api.svm_free != nullptr &&
                         api.enqueue_svm_memcpy != nullptr && api.enqueue_svm_mem_fill != nullptr;
  if (has_calls)
    svm = device_value<cl_device_svm_capabilities>(api, id, CL_DEVICE_SVM_CAPABILITIES);
  const bool is_hosts = options.memory == Memory::pinned && !is_unified;
  account_ = &device_account("opencl", reinterpret_cast<std::uintptr_t>(id),
                             is_hosts ? MemoryOwner::host : MemoryOwner::device);
  if (options.memory == Memory::svm && svm == 0) {
    throw DeviceAbsent("opencl", device_text(api, id, CL_DEVICE_NAME) +
                                     " has no shared virtual memory (memory=svm)");
  }
}

void OpenClDevice::State::make_queue(cl_command_queue& made) const {
  cl_int code = CL_SUCCESS;
  made = api.create_command_queue(context, id, 0, &code);
  check_opencl(code, "clCreateCommandQueue");
}

cl_mem_flags OpenClDevice::State::buffer_flags() const noexcept {
  const bool is_host_pointer = options.host_pointer == HostPointer::yes ||
                               (options.host_pointer == HostPointer::automatic && is_unified);
  return CL_MEM_READ_WRITE | (is_host_pointer ? CL_MEM_ALLOC_HOST_PTR : cl_mem_flags{0});
}

Error OpenClDevice::State::fail(cl_int code, std::size_t requested) noexcept {
  const bool is_exhaustion = code == CL_MEM_OBJECT_ALLOCATION_FAILURE ||
                             code == CL_OUT_OF_RESOURCES || code == CL_OUT_OF_HOST_MEMORY;
  return {.code = is_exhaustion                    ? Errc::out_of_memory
                  : code == CL_INVALID_BUFFER_SIZE ? Errc::too_large
                                                   : Errc::device_failed,
          .stage = "opencl",
          .requested = requested,
          .detail = opencl_name(code)};
}

Expected<void> OpenClDevice::State::answer(cl_int code) noexcept {
  if (code == CL_SUCCESS) return {};
  return tl::unexpected(
      Error{.code = Errc::device_failed, .stage = "opencl", .detail = opencl_name(code)});
}

cl_int OpenClDevice::State::finish_own(cl_event command) const noexcept {
  cl_int code = api.finish(own_queue);
  cl_int status = CL_COMPLETE;
  if (code == CL_SUCCESS)
    code = api.get_event_info(command, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status,
                              nullptr);
  api.release_event(command);
  return code != CL_SUCCESS ? code : status;  // an error is below CL_COMPLETE, which is 0
}

// --- Streams. ---

void OpenClDevice::State::require_context(cl_command_queue of, cl_context wanted) const {
  if (queue_value<cl_context>(api, of, CL_QUEUE_CONTEXT) != wanted)
    throw std::invalid_argument("opencl: the queue is of another context");
}

bool OpenClDevice::State::runs_out_of_order(cl_command_queue of) const {
  const auto properties = queue_value<cl_command_queue_properties>(api, of, CL_QUEUE_PROPERTIES);
  return (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) != 0;
}

Stream OpenClDevice::State::add_stream(cl_command_queue added) {
  require_context(added, context);
  const bool is_unordered = runs_out_of_order(added);
  if (added == queue) return {.handle = queue, .id = 0};
  const std::lock_guard lock(mutex_);
  for (const auto& [known, its_queue] : streams_) {
    if (its_queue == added) return {.handle = added, .id = known};
  }
  std::uint64_t stream = next_stream_id();
  if (is_unordered) stream |= Stream::out_of_order;
  const auto place = streams_.emplace(stream, added).first;
  if (const cl_int code = api.retain_command_queue(added); code != CL_SUCCESS) {
    streams_.erase(place);
    check_opencl(code, "clRetainCommandQueue");
  }
  return {.handle = added, .id = stream};
}

OpenClQueue OpenClDevice::State::queue_of(Stream stream) const noexcept {
  if (stream.id == 0) return {api, queue};
  const std::lock_guard lock(mutex_);
  const auto found = streams_.find(stream.id);
  return found != streams_.end() ? OpenClQueue(api, found->second) : OpenClQueue();
}

// It is known until its work is done: who looked for it meanwhile would not wait.
void OpenClDevice::State::retire(Stream stream) noexcept {
  const OpenClQueue gone = queue_of(stream);
  if (!gone) return;
  api.finish(gone.get());
  {
    const std::lock_guard lock(mutex_);
    if (streams_.erase(stream.id) == 0) return;  // the default stream, or another thread was here
  }
  api.release_command_queue(gone.get());
}

// --- Memory. ---

Expected<void> OpenClDevice::State::back(cl_mem object, std::size_t bytes) const noexcept {
  if (!options.force_backing) return {};
  cl_event command = nullptr;
  cl_int code = api.enqueue_migrate_mem_objects(
      own_queue, 1, &object, CL_MIGRATE_MEM_OBJECT_CONTENT_UNDEFINED, 0, nullptr, &command);
  if (code == CL_SUCCESS) code = finish_own(command);
  if (code == CL_SUCCESS) return {};
  return tl::unexpected(fail(code, bytes));
}

Expected<Device::Piece> OpenClDevice::State::obtain_buffer(std::size_t bytes,
                                                           cl_mem_flags flags) noexcept {
  cl_int code = CL_SUCCESS;
  cl_mem object = api.create_buffer(context, flags, bytes, nullptr, &code);
  if (code != CL_SUCCESS || object == nullptr) return tl::unexpected(fail(code, bytes));
  Expected<void> backed = back(object, bytes);
  if (backed) {
    try {
      const std::lock_guard lock(mutex_);
      roots_.emplace(object, Root{.bytes = bytes, .parts = {}});
      return Piece{.memory = object, .bytes = bytes, .alignment = 0};
    } catch (const std::bad_alloc&) {
      backed = tl::unexpected(fail(CL_OUT_OF_HOST_MEMORY, bytes));
    }
  }
  api.release_mem_object(object);
  return tl::unexpected(backed.error());
}

void OpenClDevice::State::drop_parts(Root& root) noexcept {
  for (const auto& [part, object] : root.parts)
    api.release_mem_object(object);
  sub_buffers_ -= root.parts.size();
  root.parts.clear();
}

// The driver keeps the memory until what stands in the queues is done with it.
void OpenClDevice::State::give_back_buffer(cl_mem object) noexcept {
  {
    const std::lock_guard lock(mutex_);
    const auto found = roots_.find(object);
    drop_parts(found->second);
    roots_.erase(found);
  }
  api.release_mem_object(object);
}

Expected<Device::Piece> OpenClDevice::State::obtain_svm(std::size_t bytes) const noexcept {
  const cl_svm_mem_flags flags =
      CL_MEM_READ_WRITE | (has_fine_svm() ? CL_MEM_SVM_FINE_GRAIN_BUFFER : cl_svm_mem_flags{0});
  void* const memory = api.svm_alloc(context, flags, bytes, 0);
  if (memory == nullptr) return tl::unexpected(fail(CL_MEM_OBJECT_ALLOCATION_FAILURE, bytes));
  cl_int code = CL_SUCCESS;
  if (options.force_backing) {
    const cl_uchar zero = 0;
    cl_event command = nullptr;
    code = api.enqueue_svm_mem_fill(own_queue, memory, &zero, sizeof zero, bytes, 0, nullptr,
                                    &command);
    if (code == CL_SUCCESS) code = finish_own(command);
  }
  if (code == CL_SUCCESS) return Piece{.memory = memory, .bytes = bytes, .alignment = 0};
  api.finish(own_queue);  // the fill may stand there all the same, and addresses go at once
  api.svm_free(context, memory);
  return tl::unexpected(fail(code, bytes));
}

Expected<Device::Piece> OpenClDevice::State::obtain_pinned(std::size_t bytes) noexcept {
  cl_int code = CL_SUCCESS;
  const cl_mem object =
      api.create_buffer(context, CL_MEM_READ_WRITE | CL_MEM_ALLOC_HOST_PTR, bytes, nullptr, &code);
  if (code != CL_SUCCESS || object == nullptr) return tl::unexpected(fail(code, bytes));
  void* const memory = api.enqueue_map_buffer(
      own_queue, object, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0, bytes, 0, nullptr, nullptr, &code);
  if (code == CL_SUCCESS && memory != nullptr) {
    try {
      const std::lock_guard lock(mutex_);
      pinned_.emplace(memory, object);
      return Piece{.memory = memory, .bytes = bytes, .alignment = 0};
    } catch (const std::bad_alloc&) {
      code = CL_OUT_OF_HOST_MEMORY;
      api.enqueue_unmap_mem_object(own_queue, object, memory, 0, nullptr, nullptr);
      api.finish(own_queue);
    }
  }
  api.release_mem_object(object);
  return tl::unexpected(fail(code, bytes));
}

void OpenClDevice::State::give_back_pinned(void* memory) noexcept {
  cl_mem object = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto found = pinned_.find(memory);
    object = found->second;
    pinned_.erase(found);
  }
  api.enqueue_unmap_mem_object(own_queue, object, memory, 0, nullptr, nullptr);
  api.finish(own_queue);
  api.release_mem_object(object);
}

Expected<cl_mem> OpenClDevice::State::object_of(const Block& block) noexcept try {
  const auto root_object = static_cast<cl_mem>(block.memory);
  const std::lock_guard lock(mutex_);
  const auto found = roots_.find(root_object);
  const bool is_within = found != roots_.end() && block.offset <= found->second.bytes &&
                         block.bytes <= found->second.bytes - block.offset && block.bytes > 0;
  if (!is_within)
    return tl::unexpected(
        Error{.code = Errc::invalid_block, .stage = "opencl", .requested = block.bytes});
  Root& root = found->second;
  cl_mem object = root_object;
  if (block.bytes != root.bytes) {
    const Part part{block.offset, block.bytes};
    auto place = root.parts.find(part);
    if (place == root.parts.end()) {
      if (sub_buffers_ >= most_sub_buffers) {
        for (auto& [other, its_root] : roots_)
          drop_parts(its_root);
      }
      place = root.parts.emplace(part, nullptr).first;
      const cl_buffer_region region{block.offset, block.bytes};
      cl_int code = CL_SUCCESS;
      place->second =
          api.create_sub_buffer(root_object, 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &code);
      if (code != CL_SUCCESS || place->second == nullptr) {
        root.parts.erase(place);
        return tl::unexpected(fail(code, block.bytes));
      }
      ++sub_buffers_;
    }
    object = place->second;
  }
  if (const cl_int code = api.retain_mem_object(object); code != CL_SUCCESS)
    return tl::unexpected(fail(code, block.bytes));
  return object;
} catch (const std::bad_alloc&) {
  return tl::unexpected(fail(CL_OUT_OF_HOST_MEMORY, block.bytes));
}

std::size_t OpenClDevice::State::kept_sub_buffers() const noexcept {
  const std::lock_guard lock(mutex_);
  return sub_buffers_;
}

// --- The device's figures, and what there is. ---

DeviceLimits OpenClDevice::limits_of(const State& state) {
  const OpenClApi& api = state.api;
  const std::size_t base_alignment = std::bit_ceil(
      std::size_t{device_value<cl_uint>(api, state.id, CL_DEVICE_MEM_BASE_ADDR_ALIGN)} / 8);
  const bool is_buffer = state.options.memory == Memory::buffer;
  constexpr std::size_t host_alignment = 64;  // what every mapping and shared address has
  const std::size_t alignment = is_buffer ? base_alignment : host_alignment;
  return {.kind = "opencl",
          .name = device_text(api, state.id, CL_DEVICE_NAME),
          .total_memory = device_value<cl_ulong>(api, state.id, CL_DEVICE_GLOBAL_MEM_SIZE),
          .max_allocation = device_value<cl_ulong>(api, state.id, CL_DEVICE_MAX_MEM_ALLOC_SIZE),
          .alignment = alignment,
          .max_alignment = alignment,
          .granularity = alignment,
          .memory_is_address = !is_buffer,
          .host_addressable = state.options.memory == Memory::pinned ||
                              (state.options.memory == Memory::svm && state.has_fine_svm()),
          .has_queues = true};
}

std::vector<OpenClFound> find_opencl_devices(std::string& why_none) try {
  const OpenClApi* const api = OpenClApi::system(why_none);
  if (api == nullptr) return {};
  std::vector<OpenClFound> found;
  for (const Place& place : all_devices(*api)) {
    const cl_device_id device = place.device;
    const auto svm =
        device_value<cl_device_svm_capabilities>(*api, device, CL_DEVICE_SVM_CAPABILITIES);
    found.push_back({.platform = platform_text(*api, place.platform, CL_PLATFORM_NAME),
                     .name = device_text(*api, device, CL_DEVICE_NAME),
                     .version = device_text(*api, device, CL_DEVICE_VERSION),
                     .platform_number = place.platform_number,
                     .device_number = place.device_number,
                     .is_unified = device_value<cl_bool>(*api, device,
                                                         CL_DEVICE_HOST_UNIFIED_MEMORY) != CL_FALSE,
                     .has_coarse_svm = (svm & CL_DEVICE_SVM_COARSE_GRAIN_BUFFER) != 0,
                     .has_fine_svm = (svm & CL_DEVICE_SVM_FINE_GRAIN_BUFFER) != 0});
  }
  if (found.empty()) why_none = why_no_device(*api);
  return found;
} catch (const std::runtime_error& error) {
  why_none = error.what();
  return {};
}

}  // namespace cistern
