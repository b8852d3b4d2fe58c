#include "device/cuda_state.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "cistern/core/report.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"

namespace cistern {
namespace {

using namespace literals;

void* as_pointer(CudaAddress address) noexcept {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address));
}

std::string why_no_gpu(CudaResult code) {
  return code == CudaResult::no_device
             ? "the driver finds no GPU (CUDA_ERROR_NO_DEVICE)"
             : std::string("the driver cannot begin (") + cuda_name(code) + ")";
}

/// What is left to others of a GPU: a tenth and at least 1 GiB, but no more than half.
std::size_t automatic_ceiling_of(std::size_t total) noexcept {
  return total - std::min(std::max(1_GiB, total / 10), total / 2);
}

}  // namespace

// --- What stands around calls. ---

CudaScope::CudaScope(CudaDevice::State& state) noexcept : api_(state.api), result_(state.open()) {
  if (result_ != CudaResult::success) return;
  result_ = api_.push_context(state.context());
  // The error may be that of an earlier call; and what is to be given back has no other way.
  if (result_ != CudaResult::success) result_ = api_.push_context(state.context());
  if (result_ != CudaResult::success) return;
  is_pushed_ = true;
  result_ = api_.exchange_capture_mode(&mode_);
}

CudaScope::~CudaScope() {
  if (!is_pushed_) return;
  if (result_ == CudaResult::success) api_.exchange_capture_mode(&mode_);
  CUctx_st* popped = nullptr;
  api_.pop_context(&popped);
}

// --- The device, and its context. ---

CudaDevice::State::State(const CudaApi& entry_points, CUctx_st* users_context, const Options& asked)
    : api(entry_points), options(asked) {
  constexpr std::size_t step = 256;
  if (options.ceiling != 0 && options.ceiling < step)
    throw std::invalid_argument("cuda: a ceiling is at least 256 bytes, or 0 for none");
  find_device(users_context);
  read_device();
  const bool is_gpus = options.memory == Memory::device || options.memory == Memory::async;
  if (options.ceiling != automatic_ceiling) {
    if (options.ceiling != 0) total_memory = std::min(total_memory, options.ceiling & ~(step - 1));
  } else if (is_gpus) {
    total_memory = automatic_ceiling_of(total_memory) & ~(step - 1);
  }
  if (users_context != nullptr) streams_ = std::make_unique<CudaStreams>(api, users_context);
  context_.store(users_context, std::memory_order_release);
}

CudaDevice::State::~State() {
  close();
}

void CudaDevice::State::find_device(CUctx_st* users_context) {
  if (const CudaResult code = api.init(0); code != CudaResult::success)
    throw DeviceAbsent("cuda", why_no_gpu(code));
  if (users_context != nullptr) {
    check_cuda(api.push_context(users_context), "cuCtxPushCurrent");
    const CudaResult code = api.context_device(&id);
    CUctx_st* popped = nullptr;
    api.pop_context(&popped);
    return check_cuda(code, "cuCtxGetDevice");
  }
  int count = 0;
  const CudaResult code = api.device_count(&count);
  if (code == CudaResult::no_device || (code == CudaResult::success && count == 0))
    throw DeviceAbsent("cuda", why_no_gpu(CudaResult::no_device));
  check_cuda(code, "cuDeviceGetCount");
  if (options.device >= static_cast<unsigned>(count)) {
    throw DeviceAbsent("cuda", "no GPU has the number " + std::to_string(options.device) +
                                   "; there are " + std::to_string(count) + ", from 0 on");
  }
  check_cuda(api.device(&id, static_cast<int>(options.device)), "cuDeviceGet");
}

void CudaDevice::State::read_device() {
  std::size_t gpus = 0;
  check_cuda(api.device_memory(&gpus, id), "cuDeviceTotalMem");
  const auto lacks = [&](CudaAttribute attribute, const char* what) {
    if (!has(attribute)) throw DeviceAbsent("cuda", name() + " has no " + what);
  };
  MemoryOwner owner = MemoryOwner::device;
  total_memory = gpus;
  switch (options.memory) {
    case Memory::device:
      if (has(CudaAttribute::virtual_memory_management)) {
        const CudaAllocation pages{.location = {.type = CudaLocationType::device, .id = id}};
        check_cuda(api.granularity(&page, &pages, CudaGranularity::minimum),
                   "cuMemGetAllocationGranularity");
        if (!std::has_single_bit(page)) page = 0;
      }
      break;
    case Memory::async:
      lacks(CudaAttribute::memory_pools, "memory pools of the driver's (memory=async)");
      break;
    case Memory::managed:
      lacks(CudaAttribute::managed_memory, "managed memory (memory=managed)");
      owner = MemoryOwner::both;
      // Elsewhere it cannot be paged out.
      if (has(CudaAttribute::concurrent_managed_access))
        total_memory = saturating_add(gpus, host_memory());
      break;
    case Memory::pinned:
      owner = MemoryOwner::host;
      total_memory = host_memory();
      break;
  }
  const bool is_hosts = owner == MemoryOwner::host;
  account_ = &device_account("cuda", is_hosts ? 0 : static_cast<std::uintptr_t>(id), owner);
}

bool CudaDevice::State::has(CudaAttribute attribute) const {
  int value = 0;
  check_cuda(api.device_attribute(&value, attribute, id), "cuDeviceGetAttribute");
  return value != 0;
}

bool CudaDevice::State::is_host_addressable() const {
  return options.memory == Memory::pinned ||
         (options.memory == Memory::managed && has(CudaAttribute::concurrent_managed_access));
}

std::string CudaDevice::State::name() const {
  std::array<char, 256> text{};
  if (api.device_name(text.data(), static_cast<int>(text.size() - 1), id) != CudaResult::success)
    return "a GPU without a name";
  return text.data();
}

CudaResult CudaDevice::State::open() noexcept {
  if (context() != nullptr) return CudaResult::success;
  const std::lock_guard lock(open_mutex_);
  if (context() != nullptr) return CudaResult::success;
  CUctx_st* chosen = nullptr;
  const CudaResult code = choose_context(chosen);
  if (code != CudaResult::success) return code;
  try {
    streams_ = std::make_unique<CudaStreams>(api, chosen);
  } catch (const std::bad_alloc&) {
    if (std::exchange(is_primary_, false)) api.release_primary(id);
    return CudaResult::out_of_memory;
  }
  context_.store(chosen, std::memory_order_release);
  return code;
}

// Under the lock. The primary context is not made only to be compared with the current one. One
// that is broken does not say whose it is, and is no better than none.
CudaResult CudaDevice::State::choose_context(CUctx_st*& chosen) noexcept {
  CUctx_st* current = nullptr;
  CudaResult code = api.current_context(&current);
  CudaOrdinal device = -1;
  if (code == CudaResult::success && current != nullptr) code = api.context_device(&device);
  if (is_sticky(code) || is_gone(code)) code = CudaResult::success;
  if (code != CudaResult::success) return code;
  const bool is_ours = current != nullptr && device == id;
  if (is_ours) {
    unsigned flags = 0;
    int has_primary = 0;
    code = api.primary_state(id, &flags, &has_primary);
    if (code != CudaResult::success) return code;
    if (has_primary == 0) {
      chosen = current;
      return code;
    }
  }
  code = api.retain_primary(&chosen, id);
  if (code != CudaResult::success) return code;
  is_primary_ = !is_ours || chosen == current;
  if (!is_primary_) {
    api.release_primary(id);
    chosen = current;
  }
  return code;
}

void CudaDevice::State::close() noexcept {
  if (context() == nullptr) return;
  {
    const CudaScope scope(*this);
    for (Waiting waiting; take_waiting(waiting);) {
      // There is no later. To free what is not of the driver's pool waits for the GPU.
      if (may_go(waiting.stream) || options.memory != Memory::async) {
        release(waiting.piece, waiting.stream);
      } else {
        report_left(waiting.piece.bytes);
      }
    }
    for (CUevent_st* const event : events_)
      api.destroy_event(event);
    // It goes with the last of its memory.
    if (CUmemPoolHandle_st* const pool = pool_.load(std::memory_order_acquire); pool != nullptr)
      api.destroy_pool(pool);
    if (own_stream_ != nullptr) api.destroy_stream(own_stream_);
  }
  streams_.reset();  // before the context may be gone, and another have its name
  if (is_primary_) api.release_primary(id);
}

// --- Errors. ---

void CudaDevice::State::note(CudaResult code) noexcept {
  if (is_sticky(code)) broken_.store(code, std::memory_order_relaxed);
}

Error CudaDevice::State::fail(CudaResult code, std::size_t requested) noexcept {
  note(code);
  return {.code = code == CudaResult::out_of_memory ? Errc::out_of_memory
                  : is_of_capture(code)             ? Errc::in_capture
                                                    : Errc::device_failed,
          .stage = "cuda",
          .requested = requested,
          .detail = cuda_name(code)};
}

Expected<void> CudaDevice::State::answer(CudaResult code, std::size_t requested) noexcept {
  if (code == CudaResult::success) return {};
  Error error = fail(code, requested);
  if (error.code == Errc::out_of_memory) error.code = Errc::device_failed;
  return tl::unexpected(error);
}

// The driver that the end of the process has taken down has freed everything, and that of a forked
// child has nothing.
void CudaDevice::State::expect_freed(CudaResult code, std::size_t bytes) noexcept {
  if (code == CudaResult::success || code == CudaResult::deinitialized ||
      code == CudaResult::not_initialized)
    return;
  note(code);
  if (!has_reported_.exchange(true))
    report("cuda could not give %zu bytes back: %s", bytes, cuda_name(code));
}

void CudaDevice::State::report_left(std::size_t bytes) noexcept {
  report("cuda leaves %zu bytes: a stream that used them cannot be waited for", bytes);
}

// --- Streams. ---

CudaDevice::State::Capture CudaDevice::State::capture_of(CUstream_st* handle) const noexcept {
  CudaCaptureStatus status = CudaCaptureStatus::none;
  std::uint64_t graph = 0;
  const CudaResult code = api.capture_info(handle, &status, &graph);
  if (code != CudaResult::success) return {.result = code};
  if (status == CudaCaptureStatus::invalidated)
    return {.result = CudaResult::stream_capture_invalidated};
  return {.graph = status == CudaCaptureStatus::active ? std::max<std::uint64_t>(graph, 1) : 0};
}

CudaResult CudaDevice::State::wait(Stream waiter, Stream on) noexcept {
  const CudaQueue before = streams().queue_of(on);
  if (!before) return CudaResult::success;
  const CudaQueue behind = streams().queue_of(waiter);
  if (!behind) return CudaResult::invalid_handle;
  if (waiter.id == on.id) return CudaResult::success;
  const Capture last = capture_of(before.get());
  const Capture next = capture_of(behind.get());
  if (last.result != CudaResult::success) return last.result;
  if (next.result != CudaResult::success) return next.result;
  if (last.graph != next.graph) return CudaResult::stream_capture_isolation;
  CUevent_st* const event = take_event();
  if (event == nullptr) return CudaResult::out_of_memory;
  CudaResult code = record(event, before.get(), last);
  if (code == CudaResult::success) code = api.wait_event(behind.get(), event, 0);
  put_event(event);  // what waits for it waits for what was recorded, whatever becomes of it
  return code;
}

// Another thread may begin a capture of the stream meanwhile. An event of the capture must be
// waited for by nobody outside, who would else be captured too.
CudaResult CudaDevice::State::record(CUevent_st* event, CUstream_st* handle,
                                     const Capture& before) const noexcept {
  const CudaResult code = api.record_event(event, handle);
  if (code != CudaResult::success) return code;
  const Capture after = capture_of(handle);
  if (after.result != CudaResult::success) return after.result;
  return after.graph == before.graph ? code : CudaResult::stream_capture_unsupported;
}

CudaResult CudaDevice::State::synchronize(CUstream_st* handle) const noexcept {
  const CudaResult refusal = capture_of(handle).refusal();
  return refusal != CudaResult::success ? refusal : api.synchronize_stream(handle);
}

// By an event, because to wait for a stream breaks a capture that another thread has just begun;
// and because what stands in the legacy stream alone does not include what it would have to wait
// for.
CudaResult CudaDevice::State::synchronize(Stream stream) noexcept {
  const CudaQueue queue = streams().queue_of(stream);
  if (!queue) return CudaResult::success;
  const Capture capture = capture_of(queue.get());
  if (!capture.is_none()) return capture.refusal();
  CUevent_st* const event = take_event();
  if (event == nullptr) return synchronize(queue.get());
  CudaResult code = record(event, queue.get(), capture);
  if (code == CudaResult::success) code = api.synchronize_event(event);
  put_event(event);
  return code;
}

// The first error may be one of an earlier call.
bool CudaDevice::State::finish(Stream stream) noexcept {
  CudaResult code = synchronize(stream);
  if (code != CudaResult::success && !is_of_capture(code)) code = synchronize(stream);
  return code == CudaResult::success || is_sticky(code) || is_gone(code);
}

// It is known until its work is done: who looked for it meanwhile would not wait.
void CudaDevice::State::retire(Stream stream) noexcept {
  static_cast<void>(finish(stream));
  streams().forget(stream);
}

bool CudaDevice::State::synchronize_all() noexcept {
  bool are_done = !streams().uses_default() || finish(Stream{});
  std::optional<Stream> next = Stream{};
  while ((next = streams().next_after(*next))) {
    if (!finish(*next)) are_done = false;
  }
  return are_done;
}

CUevent_st* CudaDevice::State::take_event() noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!events_.empty()) {
      CUevent_st* const event = events_.back();
      events_.pop_back();
      return event;
    }
  }
  CUevent_st* made = nullptr;
  return api.create_event(&made, cuda_event_without_timing) == CudaResult::success ? made : nullptr;
}

void CudaDevice::State::put_event(CUevent_st* event) noexcept {
  try {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
  } catch (const std::bad_alloc&) {
    api.destroy_event(event);
  }
}

CUstream_st* CudaDevice::State::own_stream() noexcept {
  const std::lock_guard lock(open_mutex_);
  if (own_stream_ == nullptr) {
    CUstream_st* made = nullptr;
    const CudaResult code = api.create_stream(&made, cuda_stream_non_blocking);
    if (code == CudaResult::success) own_stream_ = made;
    note(code);
  }
  return own_stream_;
}

// --- Memory. ---

CudaResult CudaDevice::State::pool(CUmemPoolHandle_st*& made) noexcept {
  made = pool_.load(std::memory_order_acquire);
  if (made != nullptr) return CudaResult::success;
  const std::lock_guard lock(open_mutex_);
  made = pool_.load(std::memory_order_acquire);
  if (made != nullptr) return CudaResult::success;
  const CudaPoolProperties properties{.location = {.type = CudaLocationType::device, .id = id}};
  CudaResult code = api.create_pool(&made, &properties);
  if (code != CudaResult::success) return code;
  std::uint64_t threshold = std::numeric_limits<std::uint64_t>::max();  // kept until it is trimmed
  code = api.set_pool(made, CudaPoolAttribute::release_threshold, &threshold);
  if (code == CudaResult::success) {
    pool_.store(made, std::memory_order_release);
  } else {
    api.destroy_pool(made);
  }
  return code;
}

CudaResult CudaDevice::State::ask(std::size_t bytes, CUstream_st* stream, void*& memory) noexcept {
  CudaAddress address = 0;
  CudaResult code = CudaResult::success;
  switch (options.memory) {
    case Memory::device:
      code = api.allocate(&address, bytes);
      break;
    case Memory::managed:
      code = api.allocate_managed(&address, bytes, cuda_attach_global);
      break;
    case Memory::pinned:
      return api.allocate_host(&memory, bytes, cuda_host_portable);
    case Memory::async: {
      CUmemPoolHandle_st* from = nullptr;
      code = pool(from);
      if (code != CudaResult::success) break;
      code = api.allocate_async(&address, bytes, from, stream);
      if (code == CudaResult::out_of_memory && pool_idle() > 0) {
        trim_pool(from, 0);
        code = api.allocate_async(&address, bytes, from, stream);
      }
      if (code == CudaResult::success) bound_pool(from);
      break;
    }
  }
  memory = as_pointer(address);
  return code;
}

// What the driver's pool keeps idle is under the ceiling too. What a stream has not come to yet
// goes with a later request. The pool keeps at least what it is told to, and may keep more.
void CudaDevice::State::bound_pool(CUmemPoolHandle_st* from) noexcept {
  const std::size_t left = saturating_subtract(total_memory, account().held());
  if (pool_idle() > left) trim_pool(from, left);
  if (pool_idle() > left) trim_pool(from, 0);
}

// What was freed is the pool's once the streams have come to that.
void CudaDevice::State::trim_pool(CUmemPoolHandle_st* from, std::size_t keep_bytes) noexcept {
  std::uint64_t used = 0;
  if (keep_bytes > 0) api.get_pool(from, CudaPoolAttribute::used_current, &used);
  note(api.trim_pool(from, keep_bytes == 0 ? 0 : saturating_add(used, keep_bytes)));
}

Expected<Device::Piece> CudaDevice::State::obtain(std::size_t bytes, Stream stream) noexcept {
  if (is_broken()) return tl::unexpected(fail(broken(), bytes));
  const CudaScope scope(*this);
  if (scope.result() != CudaResult::success) return tl::unexpected(fail(scope.result(), bytes));
  settle();
  const CudaQueue queue = streams().queue_or_default(stream);
  CudaResult code = capture_of(queue.get()).refusal();
  // Where another stream is captured, what enqueues nothing may go on.
  if (code == CudaResult::stream_capture_implicit && options.memory != Memory::async)
    code = CudaResult::success;
  if (code != CudaResult::success) return tl::unexpected(fail(code, bytes));
  if (!make_room_to_wait()) return tl::unexpected(fail(CudaResult::out_of_memory, bytes));
  void* memory = nullptr;
  code = ask(bytes, queue.get(), memory);
  if (code == CudaResult::success) return Piece{.memory = memory, .bytes = bytes, .alignment = 0};
  {
    const std::lock_guard lock(mutex_);
    --pieces_;
  }
  return tl::unexpected(fail(code, bytes));
}

// So that a free need not allocate.
bool CudaDevice::State::make_room_to_wait() noexcept try {
  const std::lock_guard lock(mutex_);
  constexpr std::size_t least = 64;
  if (waiting_.capacity() <= pieces_) waiting_.reserve(std::max(least, 2 * pieces_));
  ++pieces_;
  return true;
} catch (const std::bad_alloc&) {
  return false;
}

void CudaDevice::State::give_back(const Piece& piece, Stream stream) noexcept {
  const CudaScope scope(*this);
  if (may_go(stream)) {
    release(piece, stream);
    return settle();
  }
  const std::lock_guard lock(mutex_);
  waiting_.push_back({.piece = piece, .stream = stream});
  has_waiting_.store(true, std::memory_order_relaxed);
}

// Once what stands in the stream is done, or where the pool sees to that; not in a capture.
bool CudaDevice::State::may_go(Stream stream) noexcept {
  if (options.memory != Memory::async) return finish(stream);
  const CudaQueue queue = streams().queue_or_default(stream);
  return !is_of_capture(capture_of(queue.get()).refusal());
}

void CudaDevice::State::release(const Piece& piece, Stream stream) noexcept {
  const auto address = static_cast<CudaAddress>(reinterpret_cast<std::uintptr_t>(piece.memory));
  CudaResult code = CudaResult::success;
  if (options.memory == Memory::async) {
    code = api.free_async(address, streams().queue_or_default(stream).get());
  } else {
    code = options.memory == Memory::pinned ? api.free_host(piece.memory) : api.free(address);
  }
  expect_freed(code, piece.bytes);
  account().put(piece.bytes);
  const std::lock_guard lock(mutex_);
  --pieces_;
}

bool CudaDevice::State::take_waiting(Waiting& taken) noexcept {
  const std::lock_guard lock(mutex_);
  if (waiting_.empty()) return false;
  taken = waiting_.front();
  waiting_.erase(waiting_.begin());
  return true;
}

void CudaDevice::State::reclaim() noexcept {
  if (!has_waiting_.load(std::memory_order_relaxed)) return;
  const CudaScope scope(*this);
  settle();
}

// Those that still cannot go are taken out and put behind the others: they are few.
void CudaDevice::State::settle() noexcept {
  if (!has_waiting_.load(std::memory_order_relaxed)) return;
  std::size_t left = 0;
  {
    const std::lock_guard lock(mutex_);
    left = waiting_.size();
  }
  bool is_empty = true;
  for (Waiting waiting; left > 0 && take_waiting(waiting); --left) {
    if (may_go(waiting.stream)) {
      release(waiting.piece, waiting.stream);
      continue;
    }
    is_empty = false;
    const std::lock_guard lock(mutex_);
    waiting_.push_back(waiting);
    has_waiting_.store(true, std::memory_order_relaxed);  // another may have found none
  }
  if (!is_empty) return;
  const std::lock_guard lock(mutex_);
  has_waiting_.store(!waiting_.empty(), std::memory_order_relaxed);
}

Expected<std::byte*> CudaDevice::State::obtain_pinned(std::size_t bytes) noexcept {
  void* memory = nullptr;
  const CudaResult code = api.allocate_host(&memory, bytes, cuda_host_portable);
  if (code != CudaResult::success) return tl::unexpected(fail(code, bytes));
  return static_cast<std::byte*>(memory);
}

void CudaDevice::State::give_back_pinned(void* memory) noexcept {
  expect_freed(api.free_host(memory), options.staging);
}

std::size_t CudaDevice::State::pool_idle() const noexcept {
  CUmemPoolHandle_st* const from = pool_.load(std::memory_order_acquire);
  if (from == nullptr) return 0;
  std::uint64_t reserved = 0;
  std::uint64_t used = 0;
  const bool is_known =
      api.get_pool(from, CudaPoolAttribute::reserved_current, &reserved) == CudaResult::success &&
      api.get_pool(from, CudaPoolAttribute::used_current, &used) == CudaResult::success;
  return is_known ? saturating_subtract(reserved, used) : 0;
}

void CudaDevice::State::trim(std::size_t keep_bytes) noexcept {
  CUmemPoolHandle_st* const from = pool_.load(std::memory_order_acquire);
  if (from == nullptr && !has_waiting_.load(std::memory_order_relaxed)) return;
  const CudaScope scope(*this);
  if (scope.result() != CudaResult::success) return;
  settle();
  if (from == nullptr) return;
  static_cast<void>(synchronize_all());
  trim_pool(from, keep_bytes);
}

std::vector<CudaFound> find_cuda_devices(std::string& why_none) try {
  const CudaApi* const api = CudaApi::system(why_none);
  if (api == nullptr) return {};
  int count = 0;
  CudaResult code = api->init(0);
  if (code == CudaResult::success) code = api->device_count(&count);
  if (code != CudaResult::success || count == 0) {
    why_none = why_no_gpu(code == CudaResult::success ? CudaResult::no_device : code);
    return {};
  }
  int version = 0;
  check_cuda(api->driver_version(&version), "cuDriverGetVersion");
  std::vector<CudaFound> found;
  for (int number = 0; number < count; ++number) {
    CudaOrdinal device = 0;
    check_cuda(api->device(&device, number), "cuDeviceGet");
    const auto value = [&](CudaAttribute attribute) {
      int read = 0;
      return api->device_attribute(&read, attribute, device) == CudaResult::success ? read : 0;
    };
    std::array<char, 256> name{};
    check_cuda(api->device_name(name.data(), static_cast<int>(name.size() - 1), device),
               "cuDeviceGetName");
    std::size_t total = 0;
    check_cuda(api->device_memory(&total, device), "cuDeviceTotalMem");
    found.push_back({.name = name.data(),
                     .number = number,
                     .driver_version = version,
                     .compute_capability = 10 * value(CudaAttribute::compute_capability_major) +
                                           value(CudaAttribute::compute_capability_minor),
                     .total_memory = total,
                     .has_managed = value(CudaAttribute::managed_memory) != 0,
                     .has_concurrent_managed = value(CudaAttribute::concurrent_managed_access) != 0,
                     .has_virtual_memory = value(CudaAttribute::virtual_memory_management) != 0,
                     .has_async = value(CudaAttribute::memory_pools) != 0});
  }
  return found;
} catch (const std::runtime_error& error) {
  why_none = error.what();
  return {};
}

}  // namespace cistern
