#include "support/fake_cuda.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>

#include <sys/mman.h>

#include "cistern/core/size.hpp"
#include "support/failing_new.hpp"

// What stands behind the driver's handles. They are kept to the end, so that one that is used after
// it was destroyed is told.

struct CUctx_st {  // NOLINT(readability-identifier-naming)
  int gpu = 0;
  bool is_primary = false;
  int references = 0;
  cistern::CudaResult broken = cistern::CudaResult::success;
  CUstream_st* legacy = nullptr;
  std::map<std::uint64_t, CUstream_st*> of_threads;
};

struct CUstream_st {  // NOLINT(readability-identifier-naming)
  CUctx_st* context = nullptr;
  bool is_blocking = true;
  bool is_there = true;
  bool is_librarys = false;
  unsigned long long number = 0;
  cistern::Stream simulated;
  std::uint64_t capture = 0;  // 0 where it is not captured
};

struct CUevent_st {  // NOLINT(readability-identifier-naming)
  CUctx_st* context = nullptr;
  bool is_there = true;
  CUstream_st* recorded_on = nullptr;
  std::uint64_t capture = 0;
};

struct CUmemPoolHandle_st {  // NOLINT(readability-identifier-naming)
  struct Chunk {
    cistern::CudaAddress address = 0;
    std::size_t bytes = 0;
    std::size_t used = 0;             // 0 where it is idle
    CUstream_st* freed_on = nullptr;  // which has not come to that yet
  };
  int gpu = 0;
  bool is_there = true;
  std::uint64_t threshold = 0;
  std::vector<Chunk> chunks;
};

namespace cistern::testing {
namespace {

using Result = CudaResult;

std::byte* system_memory(std::size_t bytes, int protection) {
  void* const memory =
      mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory != MAP_FAILED ? static_cast<std::byte*>(memory) : nullptr;
}

std::byte* pointer_to(CudaAddress address) {
  return reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(address));
}

CudaAddress address_at(const void* memory) {
  return static_cast<CudaAddress>(reinterpret_cast<std::uintptr_t>(memory));
}

/// What is the thread's own, of one driver.
struct FakeThread {
  const FakeDriver* of = nullptr;
  std::uint64_t generation = 0;
  std::uint64_t number = 0;
  std::vector<CUctx_st*> contexts;
  CudaCaptureMode mode = CudaCaptureMode::global;
};

}  // namespace

class FakeDriver {
 public:
  explicit FakeDriver(const FakeCuda::Machine& machine) : machine_(machine) {
    static std::uint64_t generations = 0;
    generation_ = ++generations;
    primaries_.resize(static_cast<std::size_t>(machine.gpus));
    used_.resize(static_cast<std::size_t>(machine.gpus));
    slot() = this;
  }
  FakeDriver(const FakeDriver&) = delete;
  FakeDriver& operator=(const FakeDriver&) = delete;
  FakeDriver(FakeDriver&&) = delete;
  FakeDriver& operator=(FakeDriver&&) = delete;
  ~FakeDriver() {
    for (const auto& [address, allocation] : allocations_)
      if (allocation.kind != Kind::async) munmap(pointer_to(address), allocation.bytes);
    for (const CUmemPoolHandle_st& pool : pools_)
      for (const auto& chunk : pool.chunks)
        munmap(pointer_to(chunk.address), chunk.bytes);
    for (const auto& [address, range] : ranges_)
      munmap(pointer_to(address), range.bytes);
    slot() = nullptr;
  }

  static FakeDriver*& slot() {
    static FakeDriver* driver = nullptr;
    return driver;
  }

  /// How a call that fails on demand does it.
  enum class Fails { before, behind, never };

  using AnyEntry = void (*)();
  template <Fails how, class Call>
  Result run(AnyEntry entry, Call&& call) {
    const SparedNew own_heap;
    const std::lock_guard lock(mutex_);
    bool fails = false;
    if (how != Fails::never && ++calls_ == fail_at_) {
      fails = true;
      failed_call_ = entry;
    }
    if (fails && how == Fails::before) return fail_code_;
    const Result code = call();
    return fails ? fail_code_ : code;
  }

  // --- the entry points, in the order of CudaApi, under the lock ---

  Result init(unsigned flags) {
    if (flags != 0) return misuse("cuInit: flags", Result::invalid_value);
    if (machine_.gpus == 0) return Result::no_device;
    is_initialized_ = true;
    return Result::success;
  }
  Result driver_version(int* version) {
    *version = 12040;
    return Result::success;
  }
  Result device_count(int* count) {
    if (!is_initialized_) return Result::not_initialized;
    *count = machine_.gpus;
    return Result::success;
  }
  Result device(CudaOrdinal* device, int ordinal) {
    if (!has_gpu(ordinal)) return Result::invalid_device;
    *device = ordinal;
    return Result::success;
  }
  Result device_name(char* name, int size, CudaOrdinal device) {
    if (!has_gpu(device)) return Result::invalid_device;
    const std::string text = "Fake GPU " + std::to_string(device);
    std::strncpy(name, text.c_str(), static_cast<std::size_t>(size));
    return Result::success;
  }
  Result device_memory(std::size_t* bytes, CudaOrdinal device) {
    if (!has_gpu(device)) return Result::invalid_device;
    *bytes = machine_.memory;
    return Result::success;
  }
  Result device_attribute(int* value, CudaAttribute key, CudaOrdinal device) {
    if (!has_gpu(device)) return Result::invalid_device;
    switch (key) {
      case CudaAttribute::compute_capability_major:
        *value = 9;
        break;
      case CudaAttribute::compute_capability_minor:
        *value = 0;
        break;
      case CudaAttribute::managed_memory:
        *value = static_cast<int>(machine_.has_managed);
        break;
      case CudaAttribute::concurrent_managed_access:
        *value = static_cast<int>(machine_.has_concurrent_managed);
        break;
      case CudaAttribute::virtual_memory_management:
        *value = static_cast<int>(machine_.has_virtual_memory);
        break;
      case CudaAttribute::memory_pools:
        *value = static_cast<int>(machine_.has_pools);
        break;
    }
    return Result::success;
  }

  Result retain_primary(CUctx_st** context, CudaOrdinal device) {
    if (!has_gpu(device)) return Result::invalid_device;
    *context = primary(device);
    ++(*context)->references;
    return Result::success;
  }
  Result release_primary(CudaOrdinal device) {
    CUctx_st* const context = has_gpu(device) ? primaries_[index(device)] : nullptr;
    if (context == nullptr || context->references == 0)
      return misuse("a primary context is released that was not retained", Result::invalid_context);
    --context->references;
    return Result::success;
  }
  Result primary_state(CudaOrdinal device, unsigned* flags, int* is_active) {
    if (!has_gpu(device)) return Result::invalid_device;
    *flags = 0;
    *is_active = static_cast<int>(primaries_[index(device)] != nullptr);
    return Result::success;
  }
  Result current_context(CUctx_st** context) {
    if (!is_initialized_) return Result::not_initialized;
    *context = current();
    return Result::success;
  }
  Result push_context(CUctx_st* context) {
    if (!is_initialized_) return Result::not_initialized;
    if (context == nullptr) return misuse("no context is pushed", Result::invalid_context);
    thread().contexts.push_back(context);
    return Result::success;
  }
  Result pop_context(CUctx_st** context) {
    if (thread().contexts.empty())
      return misuse("a context is popped where none is", Result::invalid_context);
    *context = current();
    thread().contexts.pop_back();
    return Result::success;
  }
  Result context_device(CudaOrdinal* device) {
    if (current() == nullptr) return Result::invalid_context;
    *device = current()->gpu;
    return Result::success;
  }

  Result memory_info(std::size_t* free, std::size_t* total) {
    if (const Result code = enter(); code != Result::success) return code;
    *total = machine_.memory;
    *free = machine_.memory - used_[index(current()->gpu)];
    return Result::success;
  }
  Result allocate(CudaAddress* memory, std::size_t bytes) {
    return obtain(Kind::device, memory, bytes);
  }
  Result free(CudaAddress memory) { return give_back(memory, Kind::device, Kind::managed); }
  Result allocate_managed(CudaAddress* memory, std::size_t bytes, unsigned flags) {
    if (flags != cuda_attach_global) return misuse("managed flags", Result::invalid_value);
    return obtain(Kind::managed, memory, bytes);
  }
  Result allocate_host(void** memory, std::size_t bytes, unsigned flags) {
    if (flags != cuda_host_portable) return misuse("pinned flags", Result::invalid_value);
    CudaAddress address = 0;
    const Result code = obtain(Kind::host, &address, bytes);
    *memory = pointer_to(address);
    return code;
  }
  Result free_host(void* memory) { return give_back(address_at(memory), Kind::host, Kind::host); }

  Result create_pool(CUmemPoolHandle_st** pool, const CudaPoolProperties* made) {
    const CudaPoolProperties wanted{
        .location = {.type = CudaLocationType::device, .id = made->location.id}};
    if (std::memcmp(made, &wanted, sizeof wanted) != 0 || !has_gpu(made->location.id))
      return misuse("the properties of a pool", Result::invalid_value);
    *pool = &pools_.emplace_back();
    (*pool)->gpu = made->location.id;
    return Result::success;
  }
  Result destroy_pool(CUmemPoolHandle_st* pool) {
    if (!pool->is_there) return misuse("a pool is destroyed twice", Result::invalid_value);
    for (const auto& chunk : pool->chunks) {
      if (chunk.used != 0) misuse("a pool is destroyed with memory out", Result::success);
    }
    trim(*pool, 0, true);
    pool->is_there = false;
    return Result::success;
  }
  Result trim_pool(CUmemPoolHandle_st* pool, std::size_t keep) {
    if (!pool->is_there) return misuse("a pool that is gone", Result::invalid_value);
    trim(*pool, keep, false);
    return Result::success;
  }
  Result set_pool(CUmemPoolHandle_st* pool, CudaPoolAttribute key, void* value) {
    if (key != CudaPoolAttribute::release_threshold || !pool->is_there)
      return misuse("what is set of a pool", Result::invalid_value);
    std::memcpy(&pool->threshold, value, sizeof pool->threshold);
    return Result::success;
  }
  Result get_pool(CUmemPoolHandle_st* pool, CudaPoolAttribute key, void* value) {
    if (!pool->is_there) return misuse("a pool that is gone", Result::invalid_value);
    std::uint64_t sum = 0;
    for (const auto& chunk : pool->chunks)
      sum += key == CudaPoolAttribute::reserved_current ? chunk.bytes : chunk.used;
    std::memcpy(value, &sum, sizeof sum);
    return Result::success;
  }
  Result allocate_async(CudaAddress* memory, std::size_t bytes, CUmemPoolHandle_st* pool,
                        CUstream_st* handle) {
    CUstream_st* stream = nullptr;
    if (const Result code = enqueue_on(handle, stream); code != Result::success) return code;
    if (stream->capture != 0)
      return misuse("memory of a pool is asked for in a capture", Result::invalid_value);
    if (bytes == 0 || !pool->is_there) return misuse("a pool's request", Result::invalid_value);
    auto best = pool->chunks.end();
    for (auto each = pool->chunks.begin(); each != pool->chunks.end(); ++each) {
      const bool is_better = best == pool->chunks.end() || each->bytes < best->bytes;
      if (each->used == 0 && each->bytes >= bytes && is_better) best = each;
    }
    if (best == pool->chunks.end()) {
      const std::size_t whole = round_up(bytes, machine_.page).value_or(unbounded);
      const Result code = take(pool->gpu, whole);
      if (code != Result::success) return code;
      std::byte* const made = system_memory(whole, PROT_READ | PROT_WRITE);
      pool->chunks.push_back({.address = address_at(made), .bytes = whole});
      best = std::prev(pool->chunks.end());
    }
    if (best->freed_on != nullptr) queues_.wait_as_program(stream->simulated, sim(best->freed_on));
    best->freed_on = nullptr;
    best->used = bytes;
    *memory = best->address;
    allocations_[best->address] = {
        .bytes = bytes, .kind = Kind::async, .context = current(), .pool = pool};
    ++figures_.allocations;
    return Result::success;
  }
  Result free_async(CudaAddress memory, CUstream_st* handle) {
    CUstream_st* stream = nullptr;
    if (const Result code = enqueue_on(handle, stream); code != Result::success) return code;
    if (stream->capture != 0)
      return misuse("memory that no graph has is freed in a capture", Result::invalid_value);
    const auto found = allocations_.find(memory);
    if (found == allocations_.end() || found->second.kind != Kind::async)
      return misuse("cuMemFreeAsync of what is none of a pool's", Result::invalid_value);
    launch_on(*stream, memory, found->second.bytes);
    for (auto& chunk : found->second.pool->chunks) {
      if (chunk.address != memory) continue;
      chunk.used = 0;
      chunk.freed_on = stream;
    }
    allocations_.erase(found);
    return Result::success;
  }

  Result granularity(std::size_t* bytes, const CudaAllocation* of, CudaGranularity which) {
    if (!is_meant(*of) || which != CudaGranularity::minimum)
      return misuse("the granularity of what", Result::invalid_value);
    *bytes = machine_.page;
    return Result::success;
  }
  Result reserve_addresses(CudaAddress* start, std::size_t bytes, std::size_t alignment,
                           CudaAddress wanted, unsigned long long flags) {
    if (wanted != 0 || flags != 0 || bytes == 0 || bytes % machine_.page != 0 ||
        (alignment & (alignment - 1)) != 0)
      return misuse("cuMemAddressReserve", Result::invalid_value);
    if (bytes > (std::size_t{1} << 46U)) return Result::out_of_memory;
    std::byte* const all = system_memory(bytes + alignment, PROT_NONE);
    if (all == nullptr) return Result::out_of_memory;
    const std::size_t before = (alignment - address_at(all) % alignment) % alignment;
    if (before > 0) munmap(all, before);
    munmap(all + before + bytes, alignment - before);
    *start = address_at(all + before);
    ranges_[*start] = {.bytes = bytes, .pages = {}};
    return Result::success;
  }
  Result free_addresses(CudaAddress start, std::size_t bytes) {
    const auto found = ranges_.find(start);
    if (found == ranges_.end() || found->second.bytes != bytes)
      return misuse("addresses are freed as they were reserved", Result::invalid_value);
    if (!found->second.pages.empty())
      return misuse("addresses are freed while memory is mapped there", Result::invalid_value);
    munmap(pointer_to(start), bytes);
    ranges_.erase(found);
    return Result::success;
  }
  Result create_physical(CudaPhysicalMemory* memory, std::size_t bytes, const CudaAllocation* made,
                         unsigned long long flags) {
    if (!is_meant(*made) || flags != 0 || bytes == 0 || bytes % machine_.page != 0)
      return misuse("cuMemCreate", Result::invalid_value);
    if (const Result code = forbid_unsafe(); code != Result::success) return code;
    if (const Result code = take(made->location.id, bytes); code != Result::success) return code;
    *memory = ++last_physical_;
    physical_[*memory] = {.bytes = bytes, .gpu = made->location.id, .is_held = true, .mapped = 0};
    return Result::success;
  }
  Result release_physical(CudaPhysicalMemory memory) {
    const auto found = physical_.find(memory);
    if (found == physical_.end() || !found->second.is_held)
      return misuse("physical memory is released once", Result::invalid_value);
    found->second.is_held = false;
    drop_physical(found);
    return Result::success;
  }
  Result map(CudaAddress start, std::size_t bytes, std::size_t offset, CudaPhysicalMemory memory,
             unsigned long long flags) {
    const auto range = range_of(start, bytes);
    const auto found = physical_.find(memory);
    if (range == ranges_.end() || found == physical_.end() || !found->second.is_held ||
        bytes != found->second.bytes || offset != 0 || flags != 0)
      return misuse("cuMemMap of what is not reserved or not there", Result::invalid_value);
    for (const auto& [at, page] : range->second.pages) {
      if (at < start + bytes && start < at + page.bytes)
        return misuse("memory is mapped where some is", Result::invalid_value);
    }
    range->second.pages[start] = {.bytes = bytes, .memory = memory, .has_access = false};
    ++found->second.mapped;
    return Result::success;
  }
  Result unmap(CudaAddress start, std::size_t bytes) {
    if (const Result code = forbid_unsafe(); code != Result::success) return code;
    const auto range = range_of(start, bytes);
    if (range == ranges_.end()) return misuse("cuMemUnmap", Result::invalid_value);
    const auto page = range->second.pages.find(start);
    if (page == range->second.pages.end() || page->second.bytes != bytes)
      return misuse("memory is unmapped as it was mapped", Result::invalid_value);
    use_up(start, bytes);
    mprotect(pointer_to(start), bytes, PROT_NONE);
    madvise(pointer_to(start), bytes, MADV_DONTNEED);
    const auto found = physical_.find(page->second.memory);
    --found->second.mapped;
    drop_physical(found);
    range->second.pages.erase(page);
    return Result::success;
  }
  Result set_access(CudaAddress start, std::size_t bytes, const CudaAccess* access,
                    std::size_t count) {
    const auto range = range_of(start, bytes);
    if (count != 1 || access->location.type != CudaLocationType::device ||
        access->flags != CudaAccessFlags::read_write || range == ranges_.end())
      return misuse("cuMemSetAccess", Result::invalid_value);
    for (CudaAddress at = start; at < start + bytes;) {
      const auto page = range->second.pages.find(at);
      if (page == range->second.pages.end())
        return misuse("access to where nothing is mapped", Result::invalid_value);
      page->second.has_access = true;
      at += page->second.bytes;
    }
    mprotect(pointer_to(start), bytes, PROT_READ | PROT_WRITE);
    return Result::success;
  }

  Result create_stream(CUstream_st** stream, unsigned flags) {
    if (const Result code = enter(); code != Result::success) return code;
    *stream = make_stream(current(), flags != cuda_stream_non_blocking);
    (*stream)->is_librarys = true;
    return Result::success;
  }
  Result destroy_stream(CUstream_st* stream) {
    if (!stream->is_there) return misuse("a stream is destroyed twice", Result::invalid_handle);
    stream->is_there = false;
    queues_.retire(stream->simulated);
    return Result::success;
  }
  Result synchronize_stream(CUstream_st* handle) {
    CUstream_st* stream = nullptr;
    if (const Result code = find(handle, stream); code != Result::success) return code;
    if (stream->capture != 0)
      return break_capture(stream->capture, "a captured stream is waited for");
    if (is_beside_capture(*stream))
      return break_captures_beside(*stream, "the legacy stream is waited for beside a capture");
    if (const Result code = forbid_unsafe(); code != Result::success) return code;
    finish(*stream);
    return Result::success;
  }
  Result stream_context(CUstream_st* handle, CUctx_st** context) {
    CUstream_st* stream = nullptr;
    if (const Result code = find_anywhere(handle, stream); code != Result::success) return code;
    *context = stream->context;
    return Result::success;
  }
  Result stream_id(CUstream_st* handle, unsigned long long* id) {
    CUstream_st* stream = nullptr;
    if (const Result code = find_anywhere(handle, stream); code != Result::success) return code;
    *id = stream->number;
    return Result::success;
  }
  Result wait_event(CUstream_st* handle, CUevent_st* event, unsigned flags) {
    CUstream_st* stream = nullptr;
    if (flags != 0) return misuse("cuStreamWaitEvent: flags", Result::invalid_value);
    if (const Result code = enqueue_on(handle, stream); code != Result::success) return code;
    if (!event->is_there) return misuse("an event that is gone", Result::invalid_handle);
    if (event->recorded_on == nullptr) return Result::success;
    if (event->capture != 0 && !captures_.contains(event->capture)) return Result::captured_event;
    if (event->capture != 0 && stream->capture == 0) {
      stream->capture = event->capture;  // it joins, whether it would or not
      misuse("a stream was drawn into a capture", Result::success);
    } else if (event->capture != stream->capture) {
      const bool has_both = event->capture != 0;
      break_capture(stream->capture, "a captured stream waits for what is not of the capture");
      return has_both ? Result::stream_capture_merge : Result::stream_capture_isolation;
    }
    ++figures_.waits;
    if (stream->capture == 0) wait_for(*stream, *event->recorded_on);
    return Result::success;
  }
  Result capture_info(CUstream_st* handle, CudaCaptureStatus* status, std::uint64_t* id) {
    CUstream_st* stream = nullptr;
    if (const Result code = find(handle, stream); code != Result::success) return code;
    if (is_beside_capture(*stream)) return Result::stream_capture_implicit;
    *id = stream->capture;
    *status = stream->capture == 0                      ? CudaCaptureStatus::none
              : captures_.at(stream->capture).is_broken ? CudaCaptureStatus::invalidated
                                                        : CudaCaptureStatus::active;
    return Result::success;
  }
  Result exchange_capture_mode(CudaCaptureMode* mode) {
    std::swap(*mode, thread().mode);
    return Result::success;
  }

  Result create_event(CUevent_st** event, unsigned flags) {
    if (const Result code = enter(); code != Result::success) return code;
    if (flags != cuda_event_without_timing)
      return misuse("an event's flags", Result::invalid_value);
    *event = &events_.emplace_back();
    (*event)->context = current();
    ++figures_.events_made;
    return Result::success;
  }
  Result destroy_event(CUevent_st* event) {
    if (!event->is_there) return misuse("an event is destroyed twice", Result::invalid_handle);
    event->is_there = false;
    return Result::success;
  }
  Result record_event(CUevent_st* event, CUstream_st* handle) {
    CUstream_st* stream = nullptr;
    if (const Result code = enqueue_on(handle, stream); code != Result::success) return code;
    if (!event->is_there || event->context != stream->context)
      return misuse("an event is recorded where it is not of", Result::invalid_handle);
    event->recorded_on = stream;
    event->capture = stream->capture;
    if (stream == stream->context->legacy) join_legacy(*stream->context);
    return Result::success;
  }
  Result query_event(CUevent_st* event) {
    if (const Result code = look_at(event); code != Result::success) return code;
    if (is_held_ && event->recorded_on != nullptr) return Result::not_ready;
    if (event->recorded_on != nullptr) finish(*event->recorded_on);
    return Result::success;
  }
  Result synchronize_event(CUevent_st* event) {
    if (const Result code = look_at(event); code != Result::success) return code;
    if (event->recorded_on != nullptr) finish(*event->recorded_on);
    return Result::success;
  }

  Result copy(CudaAddress to, CudaAddress from, std::size_t bytes, CUstream_st* handle) {
    CUstream_st* stream = nullptr;
    if (const Result code = enqueue_on(handle, stream); code != Result::success) return code;
    const Place target = place_of(to, bytes);
    const Place source = place_of(from, bytes);
    if (target == Place::wrong || source == Place::wrong)
      return misuse("a copy from or to memory that is not there", Result::invalid_value);
    if (stream->capture != 0) return Result::success;
    std::vector<SimulatedQueues::Use> uses;
    if (target == Place::known) uses.push_back(use(to, bytes, SimulatedQueues::Access::write));
    if (source == Place::known) uses.push_back(use(from, bytes, SimulatedQueues::Access::read));
    launch(*stream, uses);
    std::memcpy(pointer_to(to), pointer_to(from), bytes);
    return Result::success;
  }
  Result fill(CudaAddress to, unsigned char value, std::size_t bytes, CUstream_st* handle) {
    CUstream_st* stream = nullptr;
    if (const Result code = enqueue_on(handle, stream); code != Result::success) return code;
    if (place_of(to, bytes) != Place::known)
      return misuse("memory is filled that is not there", Result::invalid_value);
    if (stream->capture != 0) return Result::success;
    launch_on(*stream, to, bytes);
    std::memset(pointer_to(to), value, bytes);
    return Result::success;
  }
  Result advise(CudaAddress memory, std::size_t bytes, CudaAdvice advice, CudaOrdinal device) {
    if (const Result code = enter(); code != Result::success) return code;
    if (!is_managed(memory, bytes) || !has_gpu(device))
      return misuse("advice about memory that is not managed", Result::invalid_value);
    if (advice == CudaAdvice::set_preferred_location) {
      preferred_[memory] = bytes;
    } else {
      preferred_.erase(memory);
    }
    return Result::success;
  }
  Result prefetch(CudaAddress memory, std::size_t bytes, CudaOrdinal to, CUstream_st* handle) {
    CUstream_st* stream = nullptr;
    if (const Result code = enqueue_on(handle, stream); code != Result::success) return code;
    if (!is_managed(memory, bytes) || !has_gpu(to))
      return misuse("memory is prefetched that is not managed", Result::invalid_value);
    ++figures_.prefetches;
    return Result::success;
  }

  // --- what the program does, under the lock ---

  CUctx_st* primary(int gpu) {
    CUctx_st*& context = primaries_[index(gpu)];
    if (context == nullptr) {
      context = make_context(gpu);
      context->is_primary = true;
    }
    return context;
  }
  CUctx_st* make_context(int gpu) {
    CUctx_st& made = contexts_.emplace_back();
    made.gpu = gpu;
    made.legacy = make_stream(&made, false);
    return &made;
  }
  CUstream_st* make_stream(CUctx_st* context, bool is_blocking) {
    CUstream_st& made = streams_.emplace_back();
    made.context = context;
    made.is_blocking = is_blocking;
    made.number = streams_.size();
    made.simulated = queues_.make_stream();
    if (is_blocking && context->legacy != nullptr)
      queues_.wait_as_program(made.simulated, context->legacy->simulated);
    return &made;
  }
  void begin_capture(CUstream_st* handle, CudaCaptureMode mode) {
    CUstream_st* stream = nullptr;
    find_anywhere(handle, stream);
    stream->capture = ++last_capture_;
    captures_[last_capture_] = {.mode = mode, .thread = thread().number, .is_broken = false};
  }
  bool end_capture(CUstream_st* handle) {
    CUstream_st* stream = nullptr;
    find_anywhere(handle, stream);
    const std::uint64_t capture = stream->capture;
    const bool is_whole = !captures_.at(capture).is_broken;
    captures_.erase(capture);
    for (CUstream_st& each : streams_) {
      if (each.capture == capture) each.capture = 0;
    }
    return is_whole;
  }
  void program_wait(CUstream_st* waiter, CUstream_st* on) {
    CUstream_st* behind = nullptr;
    CUstream_st* before = nullptr;
    find_anywhere(waiter, behind);
    find_anywhere(on, before);
    if (before == before->context->legacy) join_legacy(*before->context);
    wait_for(*behind, *before);
  }
  /// On a stream that is known to be there.
  void launch(CUstream_st& stream, std::span<const SimulatedQueues::Use> uses) {
    if (stream.capture != 0) return;
    const bool is_legacy = &stream == stream.context->legacy;
    if (is_legacy) join_legacy(*stream.context);
    queues_.launch(stream.simulated, uses);
    if (is_legacy) part_from_legacy(*stream.context);
  }
  Result find_anywhere(CUstream_st* handle, CUstream_st*& stream) {
    const auto value = reinterpret_cast<std::uintptr_t>(handle);
    if (value > cuda_per_thread_stream) {
      stream = handle;
      return stream->is_there ? Result::success
                              : misuse("a stream that was destroyed", Result::invalid_handle);
    }
    CUctx_st* const context = current() != nullptr ? current() : primary(0);
    stream = context->legacy;
    if (value != cuda_per_thread_stream) return Result::success;
    CUstream_st*& own = context->of_threads[thread().number];
    if (own == nullptr) own = make_stream(context, true);
    stream = own;
    return Result::success;
  }
  void finish(CUstream_st& stream) {
    if (&stream == stream.context->legacy) join_legacy(*stream.context);
    static_cast<void>(queues_.synchronize(stream.simulated));
    for (CUmemPoolHandle_st& pool : pools_) {
      for (auto& chunk : pool.chunks) {
        if (chunk.freed_on == &stream) chunk.freed_on = nullptr;
      }
    }
  }
  [[nodiscard]] CUctx_st* current() {
    const FakeThread& own = thread();
    return own.contexts.empty() ? nullptr : own.contexts.back();
  }
  [[nodiscard]] FakeThread& thread() {
    thread_local FakeThread own;
    if (own.of != this || own.generation != generation_) {
      own = {.of = this, .generation = generation_, .number = ++last_thread_, .contexts = {}};
    }
    return own;
  }

  std::mutex& mutex() { return mutex_; }
  SimulatedQueues& queues() { return queues_; }
  void fail_next(std::size_t n, Result code) {
    fail_at_ = n == 0 ? 0 : calls_ + n;
    fail_code_ = code;
    failed_call_ = nullptr;
  }
  [[nodiscard]] std::size_t calls() const { return calls_; }
  [[nodiscard]] AnyEntry failed_call() const { return failed_call_; }
  void hold_events(bool is_held) { is_held_ = is_held; }

  [[nodiscard]] FakeCuda::Figures figures() const {
    FakeCuda::Figures told = figures_;
    for (const std::size_t bytes : used_)
      told.used += bytes;
    for (const auto& [address, allocation] : allocations_) {
      if (allocation.kind == Kind::host) told.host += allocation.bytes;
      if (allocation.kind == Kind::managed) told.managed += allocation.bytes;
    }
    for (const auto& [address, range] : ranges_)
      told.reserved += range.bytes;
    for (const CUctx_st& context : contexts_)
      told.contexts += static_cast<std::size_t>(context.references);
    for (const CUevent_st& event : events_)
      told.events += event.is_there ? 1 : 0;
    for (const auto& [address, bytes] : preferred_)
      told.preferred += bytes;
    return told;
  }
  [[nodiscard]] std::string leaks() const {
    std::string text;
    const auto add = [&](std::size_t count, const char* what) {
      if (count > 0) text += std::to_string(count) + " " + what + "; ";
    };
    const FakeCuda::Figures told = figures();
    add(allocations_.size(), "allocations");
    add(ranges_.size(), "ranges of addresses");
    add(physical_.size(), "pieces of physical memory");
    add(static_cast<std::size_t>(std::ranges::count_if(
            pools_, [](const CUmemPoolHandle_st& pool) { return pool.is_there; })),
        "pools");
    add(static_cast<std::size_t>(std::ranges::count_if(
            streams_, [](const CUstream_st& each) { return each.is_librarys && each.is_there; })),
        "streams");
    add(told.events, "events");
    add(told.contexts, "primary contexts");
    add(told.used, "bytes of GPUs");
    return text;
  }
  [[nodiscard]] std::vector<std::string> misuses() const {
    std::vector<std::string> all = misuses_;
    for (const std::string& each : queues_.reports())
      all.push_back(each);
    return all;
  }

 private:
  enum class Kind { device, managed, host, async };
  struct Allocation {
    std::size_t bytes = 0;
    Kind kind = Kind::device;
    CUctx_st* context = nullptr;
    CUmemPoolHandle_st* pool = nullptr;
  };
  struct MappedPage {
    std::size_t bytes = 0;
    CudaPhysicalMemory memory = 0;
    bool has_access = false;
  };
  struct Range {
    std::size_t bytes = 0;
    std::map<CudaAddress, MappedPage> pages;
  };
  struct Physical {
    std::size_t bytes = 0;
    int gpu = 0;
    bool is_held = false;
    std::size_t mapped = 0;
  };
  struct CaptureOfGraph {
    CudaCaptureMode mode = CudaCaptureMode::global;
    std::uint64_t thread = 0;
    bool is_broken = false;
  };
  enum class Place { known, pageable, wrong };
  using Ranges = std::map<CudaAddress, Range>;

  Result misuse(const char* what, Result code) {
    misuses_.emplace_back(what);
    return code;
  }
  [[nodiscard]] bool has_gpu(int gpu) const {
    return is_initialized_ && gpu >= 0 && gpu < machine_.gpus;
  }
  static std::size_t index(int gpu) { return static_cast<std::size_t>(gpu); }
  [[nodiscard]] bool is_meant(const CudaAllocation& allocation) const {
    const CudaAllocation wanted{
        .location = {.type = CudaLocationType::device, .id = allocation.location.id}};
    return std::memcmp(&allocation, &wanted, sizeof wanted) == 0 && has_gpu(wanted.location.id);
  }

  /// A context is current and not broken.
  Result enter() {
    if (!is_initialized_) return Result::not_initialized;
    if (current() == nullptr) return misuse("a call without a context", Result::invalid_context);
    return current()->broken;
  }
  Result find(CUstream_st* handle, CUstream_st*& stream) {
    if (const Result code = enter(); code != Result::success) return code;
    if (handle == nullptr)
      return misuse("the null stream, which is another one by how a program is compiled",
                    Result::invalid_handle);
    if (const Result code = find_anywhere(handle, stream); code != Result::success) return code;
    return stream->context == current()
               ? Result::success
               : misuse("a stream of another context", Result::invalid_handle);
  }
  /// The same, where something is then put into it.
  Result enqueue_on(CUstream_st* handle, CUstream_st*& stream) {
    if (const Result code = find(handle, stream); code != Result::success) return code;
    if (is_beside_capture(*stream))
      return break_captures_beside(*stream, "the legacy stream is used beside a capture");
    const bool is_broken = stream->capture != 0 && captures_.at(stream->capture).is_broken;
    return is_broken ? Result::stream_capture_invalidated : Result::success;
  }

  // --- captures ---

  [[nodiscard]] bool is_beside_capture(const CUstream_st& stream) const {
    if (&stream != stream.context->legacy) return false;
    return std::ranges::any_of(streams_, [&](const CUstream_st& each) {
      return each.context == stream.context && each.is_blocking && each.capture != 0;
    });
  }
  Result break_captures_beside(const CUstream_st& legacy, const char* what) {
    for (const CUstream_st& each : streams_) {
      if (each.context == legacy.context && each.is_blocking && each.capture != 0)
        captures_.at(each.capture).is_broken = true;
    }
    return misuse(what, Result::stream_capture_implicit);
  }
  Result break_capture(std::uint64_t capture, const char* what) {
    captures_.at(capture).is_broken = true;
    return misuse(what, Result::stream_capture_unsupported);
  }
  /// A call that a capture does not allow, here or elsewhere, as the thread's mode says.
  Result forbid_unsafe() {
    const FakeThread& own = thread();
    for (auto& [number, capture] : captures_) {
      const bool is_own = capture.thread == own.number && capture.mode != CudaCaptureMode::relaxed;
      const bool is_others =
          own.mode == CudaCaptureMode::global && capture.mode == CudaCaptureMode::global;
      if (own.mode != CudaCaptureMode::relaxed && (is_own || is_others))
        return break_capture(number, "a call that a capture does not allow");
    }
    return Result::success;
  }
  Result look_at(const CUevent_st* event) {
    if (const Result code = enter(); code != Result::success) return code;
    if (!event->is_there) return misuse("an event that is gone", Result::invalid_handle);
    if (event->capture != 0) return misuse("a captured event is asked", Result::captured_event);
    return forbid_unsafe();
  }

  // --- queues ---

  static Stream sim(const CUstream_st* stream) { return stream->simulated; }
  void join_legacy(CUctx_st& context) {
    for (const CUstream_st& each : streams_) {
      if (each.context == &context && each.is_blocking && each.is_there)
        queues_.wait_as_program(context.legacy->simulated, each.simulated);
    }
  }
  void part_from_legacy(CUctx_st& context) {
    for (const CUstream_st& each : streams_) {
      if (each.context == &context && each.is_blocking && each.is_there)
        queues_.wait_as_program(each.simulated, context.legacy->simulated);
    }
  }
  /// An event is waited for at once or not at all in this library, so that what stands in a stream
  /// then is what was recorded.
  void wait_for(CUstream_st& waiter, CUstream_st& on) {
    const bool is_legacy = &waiter == waiter.context->legacy;
    if (is_legacy) join_legacy(*waiter.context);
    queues_.wait_as_program(waiter.simulated, on.simulated);
    if (is_legacy) part_from_legacy(*waiter.context);
  }
  static SimulatedQueues::Use use(CudaAddress memory, std::size_t bytes,
                                  SimulatedQueues::Access access) {
    return {.block = {.memory = pointer_to(memory), .bytes = bytes}, .access = access};
  }
  void launch_on(CUstream_st& stream, CudaAddress memory, std::size_t bytes) {
    const SimulatedQueues::Use all = use(memory, bytes, SimulatedQueues::Access::write);
    launch(stream, std::span(&all, 1));
  }
  /// Memory goes back: only what the host has waited for may have used it.
  void use_up(CudaAddress memory, std::size_t bytes) {
    const Stream end = queues_.make_stream();
    const SimulatedQueues::Use all = use(memory, bytes, SimulatedQueues::Access::write);
    queues_.launch(end, std::span(&all, 1));
    queues_.retire(end);
  }

  // --- memory ---

  Result take(int gpu, std::size_t bytes) {
    std::size_t& used = used_[index(gpu)];
    if (bytes > machine_.memory - used) return Result::out_of_memory;
    used += bytes;
    return Result::success;
  }
  Result obtain(Kind kind, CudaAddress* memory, std::size_t bytes) {
    if (const Result code = enter(); code != Result::success) return code;
    if (bytes == 0) return misuse("nothing is asked for", Result::invalid_value);
    if (const Result code = forbid_unsafe(); code != Result::success) return code;
    if (kind == Kind::device) {
      if (const Result code = take(current()->gpu, bytes); code != Result::success) return code;
    }
    std::byte* const made = system_memory(bytes, PROT_READ | PROT_WRITE);
    if (made == nullptr) {
      if (kind == Kind::device) used_[index(current()->gpu)] -= bytes;
      return Result::out_of_memory;
    }
    *memory = address_at(made);
    allocations_[*memory] = {.bytes = bytes, .kind = kind, .context = current()};
    ++figures_.allocations;
    return Result::success;
  }
  Result give_back(CudaAddress memory, Kind one, Kind other) {
    if (const Result code = enter(); code != Result::success) return code;
    if (const Result code = forbid_unsafe(); code != Result::success) return code;
    const auto found = allocations_.find(memory);
    if (found == allocations_.end() || (found->second.kind != one && found->second.kind != other))
      return misuse("what is freed was not obtained, or was freed before", Result::invalid_value);
    const Allocation allocation = found->second;
    if (allocation.context != current())
      return misuse("memory is freed in another context", Result::invalid_context);
    if (preferred_.contains(memory))
      static_cast<void>(misuse("memory goes back while it is resident", Result::success));
    use_up(memory, allocation.bytes);
    if (allocation.kind == Kind::device) used_[index(allocation.context->gpu)] -= allocation.bytes;
    munmap(pointer_to(memory), allocation.bytes);
    allocations_.erase(found);
    return Result::success;
  }
  void trim(CUmemPoolHandle_st& pool, std::size_t keep, bool is_over) {
    std::size_t reserved = 0;
    for (const auto& chunk : pool.chunks)
      reserved += chunk.bytes;
    std::erase_if(pool.chunks, [&](const CUmemPoolHandle_st::Chunk& chunk) {
      const bool is_idle = chunk.used == 0 && (chunk.freed_on == nullptr || is_over);
      if (!is_idle || reserved - chunk.bytes < keep) return false;
      reserved -= chunk.bytes;
      used_[index(pool.gpu)] -= chunk.bytes;
      munmap(pointer_to(chunk.address), chunk.bytes);
      return true;
    });
  }
  Ranges::iterator range_of(CudaAddress start, std::size_t bytes) {
    auto after = ranges_.upper_bound(start);
    if (after == ranges_.begin()) return ranges_.end();
    --after;
    const bool is_within = start + bytes <= after->first + after->second.bytes;
    return is_within ? after : ranges_.end();
  }
  void drop_physical(std::map<CudaPhysicalMemory, Physical>::iterator memory) {
    if (memory->second.is_held || memory->second.mapped > 0) return;
    used_[index(memory->second.gpu)] -= memory->second.bytes;
    physical_.erase(memory);
  }
  Place place_of(CudaAddress memory, std::size_t bytes) {
    const auto after = allocations_.upper_bound(memory);
    if (after != allocations_.begin()) {
      const auto& [start, allocation] = *std::prev(after);
      if (memory < start + allocation.bytes)
        return memory + bytes <= start + allocation.bytes ? Place::known : Place::wrong;
    }
    const auto range = range_of(memory, 1);
    if (range == ranges_.end()) return Place::pageable;
    for (CudaAddress at = memory; at < memory + bytes;) {
      const auto next = range->second.pages.upper_bound(at);
      if (next == range->second.pages.begin()) return Place::wrong;
      const auto& [start, page] = *std::prev(next);
      if (at >= start + page.bytes || !page.has_access) return Place::wrong;
      at = start + page.bytes;
    }
    return Place::known;
  }
  [[nodiscard]] bool is_managed(CudaAddress memory, std::size_t bytes) {
    const auto after = allocations_.upper_bound(memory);
    if (after == allocations_.begin()) return false;
    const auto& [start, allocation] = *std::prev(after);
    return allocation.kind == Kind::managed && memory + bytes <= start + allocation.bytes;
  }

  const FakeCuda::Machine machine_;
  std::uint64_t generation_ = 0;
  SimulatedQueues queues_;
  std::mutex mutex_;  // guards all below
  bool is_initialized_ = false;
  bool is_held_ = false;
  std::size_t calls_ = 0;
  std::size_t fail_at_ = 0;
  Result fail_code_ = Result::success;
  AnyEntry failed_call_ = nullptr;
  std::uint64_t last_thread_ = 0;
  std::uint64_t last_capture_ = 0;
  CudaPhysicalMemory last_physical_ = 0;
  std::deque<CUctx_st> contexts_;
  std::deque<CUstream_st> streams_;
  std::deque<CUevent_st> events_;
  std::deque<CUmemPoolHandle_st> pools_;
  std::vector<CUctx_st*> primaries_;
  std::vector<std::size_t> used_;
  std::map<CudaAddress, Allocation> allocations_;
  std::map<CudaAddress, std::size_t> preferred_;
  Ranges ranges_;
  std::map<CudaPhysicalMemory, Physical> physical_;
  std::map<std::uint64_t, CaptureOfGraph> captures_;
  FakeCuda::Figures figures_;
  std::vector<std::string> misuses_;
};

namespace {

template <auto method, FakeDriver::Fails how>
struct FakeEntry;
template <class... Arguments, CudaResult (FakeDriver::*method)(Arguments...), FakeDriver::Fails how>
struct FakeEntry<method, how> {
  static CudaResult call(Arguments... arguments) {
    FakeDriver& driver = *FakeDriver::slot();
    return driver.run<how>(reinterpret_cast<FakeDriver::AnyEntry>(&call),
                           [&] { return (driver.*method)(arguments...); });
  }
};

CudaApi fake_cuda_api() {
  CudaApi api;
  using Fails = FakeDriver::Fails;
  constexpr Fails before = Fails::before;
  constexpr Fails behind = Fails::behind;
  constexpr Fails never = Fails::never;
  api.init = FakeEntry<&FakeDriver::init, before>::call;
  api.driver_version = FakeEntry<&FakeDriver::driver_version, before>::call;
  api.device_count = FakeEntry<&FakeDriver::device_count, before>::call;
  api.device = FakeEntry<&FakeDriver::device, before>::call;
  api.device_name = FakeEntry<&FakeDriver::device_name, before>::call;
  api.device_memory = FakeEntry<&FakeDriver::device_memory, before>::call;
  api.device_attribute = FakeEntry<&FakeDriver::device_attribute, before>::call;
  api.retain_primary = FakeEntry<&FakeDriver::retain_primary, before>::call;
  api.release_primary = FakeEntry<&FakeDriver::release_primary, behind>::call;
  api.primary_state = FakeEntry<&FakeDriver::primary_state, before>::call;
  api.current_context = FakeEntry<&FakeDriver::current_context, before>::call;
  api.push_context = FakeEntry<&FakeDriver::push_context, before>::call;
  api.pop_context = FakeEntry<&FakeDriver::pop_context, never>::call;
  api.context_device = FakeEntry<&FakeDriver::context_device, before>::call;
  api.memory_info = FakeEntry<&FakeDriver::memory_info, before>::call;
  api.allocate = FakeEntry<&FakeDriver::allocate, before>::call;
  api.free = FakeEntry<&FakeDriver::free, behind>::call;
  api.allocate_managed = FakeEntry<&FakeDriver::allocate_managed, before>::call;
  api.allocate_host = FakeEntry<&FakeDriver::allocate_host, before>::call;
  api.free_host = FakeEntry<&FakeDriver::free_host, behind>::call;
  api.create_pool = FakeEntry<&FakeDriver::create_pool, before>::call;
  api.destroy_pool = FakeEntry<&FakeDriver::destroy_pool, behind>::call;
  api.trim_pool = FakeEntry<&FakeDriver::trim_pool, behind>::call;
  api.set_pool = FakeEntry<&FakeDriver::set_pool, before>::call;
  api.get_pool = FakeEntry<&FakeDriver::get_pool, before>::call;
  api.allocate_async = FakeEntry<&FakeDriver::allocate_async, before>::call;
  api.free_async = FakeEntry<&FakeDriver::free_async, behind>::call;
  api.granularity = FakeEntry<&FakeDriver::granularity, before>::call;
  api.reserve_addresses = FakeEntry<&FakeDriver::reserve_addresses, before>::call;
  api.free_addresses = FakeEntry<&FakeDriver::free_addresses, behind>::call;
  api.create_physical = FakeEntry<&FakeDriver::create_physical, before>::call;
  api.release_physical = FakeEntry<&FakeDriver::release_physical, behind>::call;
  api.map = FakeEntry<&FakeDriver::map, before>::call;
  api.unmap = FakeEntry<&FakeDriver::unmap, behind>::call;
  api.set_access = FakeEntry<&FakeDriver::set_access, before>::call;
  api.create_stream = FakeEntry<&FakeDriver::create_stream, before>::call;
  api.destroy_stream = FakeEntry<&FakeDriver::destroy_stream, behind>::call;
  api.synchronize_stream = FakeEntry<&FakeDriver::synchronize_stream, before>::call;
  api.stream_context = FakeEntry<&FakeDriver::stream_context, before>::call;
  api.stream_id = FakeEntry<&FakeDriver::stream_id, before>::call;
  api.wait_event = FakeEntry<&FakeDriver::wait_event, before>::call;
  api.capture_info = FakeEntry<&FakeDriver::capture_info, before>::call;
  api.exchange_capture_mode = FakeEntry<&FakeDriver::exchange_capture_mode, never>::call;
  api.create_event = FakeEntry<&FakeDriver::create_event, before>::call;
  api.destroy_event = FakeEntry<&FakeDriver::destroy_event, behind>::call;
  api.record_event = FakeEntry<&FakeDriver::record_event, before>::call;
  api.query_event = FakeEntry<&FakeDriver::query_event, before>::call;
  api.synchronize_event = FakeEntry<&FakeDriver::synchronize_event, before>::call;
  api.copy = FakeEntry<&FakeDriver::copy, before>::call;
  api.fill = FakeEntry<&FakeDriver::fill, before>::call;
  api.advise = FakeEntry<&FakeDriver::advise, behind>::call;
  api.prefetch = FakeEntry<&FakeDriver::prefetch, before>::call;
  return api;
}

}  // namespace

FakeCuda::FakeCuda(const Machine& machine)
    : api_(fake_cuda_api()), driver_(std::make_unique<FakeDriver>(machine)) {
  CudaApi::stand_in_for_system(&api_);
}

FakeCuda::~FakeCuda() {
  CudaApi::stand_in_for_system(nullptr);
}

void FakeCuda::fail_next(std::size_t n, CudaResult code) {
  const std::lock_guard lock(driver_->mutex());
  driver_->fail_next(n, code);
}
std::size_t FakeCuda::calls() const {
  const std::lock_guard lock(driver_->mutex());
  return driver_->calls();
}
std::string FakeCuda::failed_call() const {
  const std::lock_guard lock(driver_->mutex());
  std::string found;
  each_cuda_entry_point(api_, [&](const auto& entry, const char* name, int /*version*/) {
    if (reinterpret_cast<FakeDriver::AnyEntry>(entry) == driver_->failed_call()) found = name;
  });
  return found;
}
void FakeCuda::break_context(CudaResult code, int gpu) {
  const std::lock_guard lock(driver_->mutex());
  driver_->primary(gpu)->broken = code;
}
CUctx_st* FakeCuda::make_context(int gpu) {
  const std::lock_guard lock(driver_->mutex());
  driver_->init(0);
  return driver_->make_context(gpu);
}
CUctx_st* FakeCuda::primary_context(int gpu) {
  const std::lock_guard lock(driver_->mutex());
  driver_->init(0);
  return driver_->primary(gpu);
}
void FakeCuda::push(CUctx_st* context) {
  const std::lock_guard lock(driver_->mutex());
  driver_->thread().contexts.push_back(context);
}
void FakeCuda::pop() {
  const std::lock_guard lock(driver_->mutex());
  driver_->thread().contexts.pop_back();
}
CUctx_st* FakeCuda::current() const {
  const std::lock_guard lock(driver_->mutex());
  return driver_->current();
}
CUstream_st* FakeCuda::make_stream(bool is_blocking) {
  const std::lock_guard lock(driver_->mutex());
  CUctx_st* const context =
      driver_->current() != nullptr ? driver_->current() : driver_->primary(0);
  return driver_->make_stream(context, is_blocking);
}
void FakeCuda::destroy_stream(CUstream_st* stream) {
  const std::lock_guard lock(driver_->mutex());
  driver_->destroy_stream(stream);
}
void FakeCuda::reuse_handle(CUstream_st* stream) {
  const std::lock_guard lock(driver_->mutex());
  driver_->destroy_stream(stream);
  CUstream_st& other = *driver_->make_stream(stream->context, stream->is_blocking);
  stream->is_there = true;
  stream->simulated = other.simulated;
  stream->number = other.number;
}
void FakeCuda::begin_capture(CUstream_st* stream, CudaCaptureMode mode) {
  const std::lock_guard lock(driver_->mutex());
  driver_->begin_capture(stream, mode);
}
void FakeCuda::join_capture(CUstream_st* stream, CUstream_st* captured) {
  const std::lock_guard lock(driver_->mutex());
  stream->capture = captured->capture;
}
bool FakeCuda::end_capture(CUstream_st* stream) {
  const std::lock_guard lock(driver_->mutex());
  return driver_->end_capture(stream);
}
bool FakeCuda::is_captured(CUstream_st* stream) const {
  const std::lock_guard lock(driver_->mutex());
  return stream->capture != 0;
}
void FakeCuda::wait(CUstream_st* waiter, CUstream_st* on) {
  const std::lock_guard lock(driver_->mutex());
  driver_->program_wait(waiter, on);
}
void FakeCuda::synchronize(CUstream_st* stream) {
  const std::lock_guard lock(driver_->mutex());
  CUstream_st* found = nullptr;
  driver_->find_anywhere(stream, found);
  driver_->finish(*found);
}
void FakeCuda::launch(CUstream_st* stream, std::span<const SimulatedQueues::Use> uses) {
  const std::lock_guard lock(driver_->mutex());
  CUstream_st* found = nullptr;
  driver_->find_anywhere(stream, found);
  driver_->launch(*found, uses);
}
SimulatedQueues& FakeCuda::queues() const {
  return driver_->queues();
}
void FakeCuda::hold_events(bool is_held) {
  const std::lock_guard lock(driver_->mutex());
  driver_->hold_events(is_held);
}
FakeCuda::Figures FakeCuda::figures() const {
  const std::lock_guard lock(driver_->mutex());
  return driver_->figures();
}
std::string FakeCuda::leaks() const {
  const std::lock_guard lock(driver_->mutex());
  return driver_->leaks();
}
std::vector<std::string> FakeCuda::misuses() const {
  const std::lock_guard lock(driver_->mutex());
  return driver_->misuses();
}

}  // namespace cistern::testing
