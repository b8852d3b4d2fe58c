#include "support/fake_driver.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace cistern::testing {

CudaResult FakeDriver::init(unsigned flags) {
  if (flags != 0) return misuse("cuInit: flags", CudaResult::invalid_value);
  if (machine_.gpus == 0) return CudaResult::no_device;
  is_initialized_ = true;
  return CudaResult::success;
}

CudaResult FakeDriver::driver_version(int* version) {
  *version = 12040;
  return CudaResult::success;
}

// NOLINTNEXTLINE(readability-make-member-function-const): an entry point as the others
CudaResult FakeDriver::device_count(int* count) {
  if (!is_initialized_) return CudaResult::not_initialized;
  *count = machine_.gpus;
  return CudaResult::success;
}

CudaResult FakeDriver::device(CudaOrdinal* device, int ordinal) {
  if (!has_gpu(ordinal)) return CudaResult::invalid_device;
  *device = ordinal;
  return CudaResult::success;
}

CudaResult FakeDriver::device_name(char* name, int size, CudaOrdinal device) {
  if (!has_gpu(device)) return CudaResult::invalid_device;
  const std::string text = "Fake GPU " + std::to_string(device);
  std::strncpy(name, text.c_str(), static_cast<std::size_t>(size));
  return CudaResult::success;
}

CudaResult FakeDriver::device_memory(std::size_t* bytes, CudaOrdinal device) {
  if (!has_gpu(device)) return CudaResult::invalid_device;
  *bytes = machine_.memory;
  return CudaResult::success;
}

CudaResult FakeDriver::device_attribute(int* value, CudaAttribute key, CudaOrdinal device) {
  if (!has_gpu(device)) return CudaResult::invalid_device;
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
  return CudaResult::success;
}

CudaResult FakeDriver::retain_primary(CUctx_st** context, CudaOrdinal device) {
  if (!has_gpu(device)) return CudaResult::invalid_device;
  *context = primary(device);
  ++(*context)->references;
  return CudaResult::success;
}

CudaResult FakeDriver::release_primary(CudaOrdinal device) {
  CUctx_st* const context = has_gpu(device) ? primaries_[index(device)] : nullptr;
  if (context == nullptr || context->references == 0)
    return misuse("a primary context is released that was not retained",
                  CudaResult::invalid_context);
  --context->references;
  return CudaResult::success;
}

CudaResult FakeDriver::primary_state(CudaOrdinal device, unsigned* flags, int* is_active) {
  if (!has_gpu(device)) return CudaResult::invalid_device;
  *flags = 0;
  *is_active = static_cast<int>(primaries_[index(device)] != nullptr);
  return CudaResult::success;
}

CudaResult FakeDriver::current_context(CUctx_st** context) {
  if (!is_initialized_) return CudaResult::not_initialized;
  *context = current();
  return CudaResult::success;
}

CudaResult FakeDriver::push_context(CUctx_st* context) {
  if (!is_initialized_) return CudaResult::not_initialized;
  if (context == nullptr) return misuse("no context is pushed", CudaResult::invalid_context);
  thread().contexts.push_back(context);
  return CudaResult::success;
}

CudaResult FakeDriver::pop_context(CUctx_st** context) {
  if (thread().contexts.empty())
    return misuse("a context is popped where none is", CudaResult::invalid_context);
  *context = current();
  thread().contexts.pop_back();
  return CudaResult::success;
}

CudaResult FakeDriver::context_device(CudaOrdinal* device) {
  if (current() == nullptr) return CudaResult::invalid_context;
  *device = here().gpu;
  return CudaResult::success;
}

CudaResult FakeDriver::create_stream(CUstream_st** stream, unsigned flags) {
  if (const CudaResult code = enter(); code != CudaResult::success) return code;
  *stream = make_stream(current(), flags != cuda_stream_non_blocking);
  (*stream)->is_librarys = true;
  return CudaResult::success;
}

CudaResult FakeDriver::destroy_stream(CUstream_st* stream) {
  if (!stream->is_there) return misuse("a stream is destroyed twice", CudaResult::invalid_handle);
  stream->is_there = false;
  queues_.retire(stream->simulated);
  return CudaResult::success;
}

CudaResult FakeDriver::synchronize_stream(CUstream_st* handle) {
  CUstream_st* stream = nullptr;
  if (const CudaResult code = find(handle, stream); code != CudaResult::success) return code;
  if (stream->capture != 0)
    return break_capture(stream->capture, "a captured stream is waited for");
  if (is_beside_capture(*stream))
    return break_captures_beside(*stream, "the legacy stream is waited for beside a capture");
  if (const CudaResult code = forbid_unsafe(); code != CudaResult::success) return code;
  finish(*stream);
  return CudaResult::success;
}

CudaResult FakeDriver::stream_context(CUstream_st* handle, CUctx_st** context) {
  CUstream_st* stream = nullptr;
  if (const CudaResult code = ask_about(handle, stream); code != CudaResult::success) return code;
  *context = stream->context;
  return CudaResult::success;
}

CudaResult FakeDriver::stream_id(CUstream_st* handle, unsigned long long* id) {
  CUstream_st* stream = nullptr;
  if (const CudaResult code = ask_about(handle, stream); code != CudaResult::success) return code;
  *id = stream->number;
  return CudaResult::success;
}

CudaResult FakeDriver::wait_event(CUstream_st* handle, CUevent_st* event, unsigned flags) {
  CUstream_st* stream = nullptr;
  if (flags != 0) return misuse("cuStreamWaitEvent: flags", CudaResult::invalid_value);
  if (const CudaResult code = enqueue_on(handle, stream); code != CudaResult::success) return code;
  if (!event->is_there) return misuse("an event that is gone", CudaResult::invalid_handle);
  if (event->recorded_on == nullptr) return CudaResult::success;
  if (event->capture != 0 && !captures_.contains(event->capture)) return CudaResult::captured_event;
  if (event->capture != 0 && stream->capture == 0) {
    stream->capture = event->capture;  // it joins, whether it would or not
    misuse("a stream was drawn into a capture", CudaResult::success);
  } else if (event->capture != stream->capture) {
    const bool has_both = event->capture != 0;
    break_capture(stream->capture, "a captured stream waits for what is not of the capture");
    return has_both ? CudaResult::stream_capture_merge : CudaResult::stream_capture_isolation;
  }
  ++figures_.waits;
  if (stream->capture == 0) wait_for(*stream, *event->recorded_on);
  return CudaResult::success;
}

CudaResult FakeDriver::capture_info(CUstream_st* handle, CudaCaptureStatus* status,
                                    std::uint64_t* id) {
  CUstream_st* stream = nullptr;
  if (const CudaResult code = enter(); code != CudaResult::success) return code;
  if (const CudaResult code = find_anywhere(handle, stream); code != CudaResult::success)
    return code;
  if (is_beside_capture(*stream)) return CudaResult::stream_capture_implicit;
  *id = stream->capture;
  *status = stream->capture == 0                      ? CudaCaptureStatus::none
            : captures_.at(stream->capture).is_broken ? CudaCaptureStatus::invalidated
                                                      : CudaCaptureStatus::active;
  return CudaResult::success;
}

CudaResult FakeDriver::exchange_capture_mode(CudaCaptureMode* mode) {
  std::swap(*mode, thread().mode);
  return CudaResult::success;
}

CudaResult FakeDriver::create_event(CUevent_st** event, unsigned flags) {
  if (const CudaResult code = enter(); code != CudaResult::success) return code;
  if (flags != cuda_event_without_timing)
    return misuse("an event's flags", CudaResult::invalid_value);
  *event = &events_.emplace_back();
  (*event)->context = current();
  ++figures_.events_made;
  return CudaResult::success;
}

CudaResult FakeDriver::destroy_event(CUevent_st* event) {
  if (!event->is_there) return misuse("an event is destroyed twice", CudaResult::invalid_handle);
  event->is_there = false;
  return CudaResult::success;
}

CudaResult FakeDriver::record_event(CUevent_st* event, CUstream_st* handle) {
  CUstream_st* stream = nullptr;
  if (const CudaResult code = enqueue_on(handle, stream); code != CudaResult::success) return code;
  if (!event->is_there || event->context != stream->context)
    return misuse("an event is recorded where it is not of", CudaResult::invalid_handle);
  event->recorded_on = stream;
  event->capture = stream->capture;
  if (stream == stream->context->legacy) join_legacy(*stream->context);
  return CudaResult::success;
}

CudaResult FakeDriver::query_event(CUevent_st* event) {
  if (const CudaResult code = look_at(event); code != CudaResult::success) return code;
  if (is_held_ && event->recorded_on != nullptr) return CudaResult::not_ready;
  if (event->recorded_on != nullptr) finish(*event->recorded_on);
  return CudaResult::success;
}

CudaResult FakeDriver::synchronize_event(CUevent_st* event) {
  if (const CudaResult code = look_at(event); code != CudaResult::success) return code;
  if (event->recorded_on != nullptr) finish(*event->recorded_on);
  return CudaResult::success;
}

CUctx_st* FakeDriver::primary(int gpu) {
  CUctx_st*& context = primaries_[index(gpu)];
  if (context == nullptr) {
    context = make_context(gpu);
    context->is_primary = true;
  }
  return context;
}

CUctx_st* FakeDriver::make_context(int gpu) {
  CUctx_st& made = contexts_.emplace_back();
  made.gpu = gpu;
  made.legacy = make_stream(&made, false);
  return &made;
}

CUstream_st* FakeDriver::make_stream(CUctx_st* context, bool is_blocking) {
  CUstream_st& made = streams_.emplace_back();
  made.context = context;
  made.is_blocking = is_blocking;
  made.number = streams_.size();
  made.simulated = queues_.make_stream();
  if (is_blocking && context->legacy != nullptr)
    queues_.wait_as_program(made.simulated, context->legacy->simulated);
  return &made;
}

void FakeDriver::begin_capture(CUstream_st* handle, CudaCaptureMode mode) {
  CUstream_st* stream = nullptr;
  find_anywhere(handle, stream);
  stream->capture = ++last_capture_;
  captures_[last_capture_] = {.mode = mode, .thread = thread().number, .is_broken = false};
}

bool FakeDriver::end_capture(CUstream_st* handle) {
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

void FakeDriver::program_wait(CUstream_st* waiter, CUstream_st* on) {
  CUstream_st* behind = nullptr;
  CUstream_st* before = nullptr;
  find_anywhere(waiter, behind);
  find_anywhere(on, before);
  if (before == before->context->legacy) join_legacy(*before->context);
  wait_for(*behind, *before);
}

void FakeDriver::launch(CUstream_st& stream, std::span<const SimulatedQueues::Use> uses) {
  if (stream.capture != 0) return;
  const bool is_legacy = &stream == stream.context->legacy;
  if (is_legacy) join_legacy(*stream.context);
  queues_.launch(stream.simulated, uses);
  if (is_legacy) part_from_legacy(*stream.context);
}

CudaResult FakeDriver::find_anywhere(CUstream_st* handle, CUstream_st*& stream) {
  const auto value = reinterpret_cast<std::uintptr_t>(handle);
  if (value > cuda_per_thread_stream) {
    stream = handle;
    return stream->is_there ? CudaResult::success
                            : misuse("a stream that was destroyed", CudaResult::invalid_handle);
  }
  CUctx_st* const context = thread().contexts.empty() ? primary(0) : &here();
  stream = context->legacy;
  if (value != cuda_per_thread_stream) return CudaResult::success;
  CUstream_st*& own = context->of_threads[thread().number];
  if (own == nullptr) own = make_stream(context, true);
  stream = own;
  return CudaResult::success;
}

void FakeDriver::finish(CUstream_st& stream) {
  if (&stream == stream.context->legacy) join_legacy(*stream.context);
  static_cast<void>(queues_.synchronize(stream.simulated));
  for (CUmemPoolHandle_st& pool : pools_) {
    for (auto& chunk : pool.chunks) {
      if (chunk.freed_on == &stream) chunk.freed_on = nullptr;
    }
  }
}

CUctx_st* FakeDriver::current() {
  const FakeThread& own = thread();
  return own.contexts.empty() ? nullptr : own.contexts.back();
}

FakeThread& FakeDriver::thread() {
  thread_local FakeThread own;
  if (own.of != this || own.generation != generation_) {
    own = {.of = this, .generation = generation_, .number = ++last_thread_, .contexts = {}};
  }
  return own;
}

FakeCuda::Figures FakeDriver::figures() const {
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

std::string FakeDriver::leaks() const {
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

std::vector<std::string> FakeDriver::misuses() const {
  std::vector<std::string> all = misuses_;
  for (const std::string& each : queues_.reports())
    all.push_back(each);
  return all;
}

CudaResult FakeDriver::misuse(const char* what, CudaResult code) {
  misuses_.emplace_back(what);
  return code;
}

CudaResult FakeDriver::enter() {
  if (!is_initialized_) return CudaResult::not_initialized;
  if (current() == nullptr) return misuse("a call without a context", CudaResult::invalid_context);
  return here().broken;
}

CudaResult FakeDriver::find(CUstream_st* handle, CUstream_st*& stream) {
  if (const CudaResult code = enter(); code != CudaResult::success) return code;
  if (handle == nullptr)
    return misuse("the null stream, which is another one by how a program is compiled",
                  CudaResult::invalid_handle);
  if (const CudaResult code = find_anywhere(handle, stream); code != CudaResult::success)
    return code;
  return stream->context == current()
             ? CudaResult::success
             : misuse("a stream of another context", CudaResult::invalid_handle);
}

CudaResult FakeDriver::ask_about(CUstream_st* handle, CUstream_st*& stream) {
  if (const CudaResult code = find_anywhere(handle, stream); code != CudaResult::success)
    return code;
  if (stream->capture != 0) return break_capture(stream->capture, "a captured stream is asked");
  return forbid_unsafe();
}

CudaResult FakeDriver::enqueue_on(CUstream_st* handle, CUstream_st*& stream) {
  if (const CudaResult code = find(handle, stream); code != CudaResult::success) return code;
  if (is_beside_capture(*stream))
    return break_captures_beside(*stream, "the legacy stream is used beside a capture");
  const bool is_broken = stream->capture != 0 && captures_.at(stream->capture).is_broken;
  return is_broken ? CudaResult::stream_capture_invalidated : CudaResult::success;
}

bool FakeDriver::is_beside_capture(const CUstream_st& stream) const {
  if (&stream != stream.context->legacy) return false;
  return std::ranges::any_of(streams_, [&](const CUstream_st& each) {
    return each.context == stream.context && each.is_blocking && each.capture != 0;
  });
}

CudaResult FakeDriver::break_captures_beside(const CUstream_st& legacy, const char* what) {
  for (const CUstream_st& each : streams_) {
    if (each.context == legacy.context && each.is_blocking && each.capture != 0)
      captures_.at(each.capture).is_broken = true;
  }
  return misuse(what, CudaResult::stream_capture_implicit);
}

CudaResult FakeDriver::break_capture(std::uint64_t capture, const char* what) {
  captures_.at(capture).is_broken = true;
  return misuse(what, CudaResult::stream_capture_unsupported);
}

CudaResult FakeDriver::forbid_unsafe() {
  const FakeThread& own = thread();
  for (auto& [number, capture] : captures_) {
    const bool is_own = capture.thread == own.number && capture.mode != CudaCaptureMode::relaxed;
    const bool is_others =
        own.mode == CudaCaptureMode::global && capture.mode == CudaCaptureMode::global;
    if (own.mode != CudaCaptureMode::relaxed && (is_own || is_others))
      return break_capture(number, "a call that a capture does not allow");
  }
  return CudaResult::success;
}

CudaResult FakeDriver::look_at(const CUevent_st* event) {
  if (const CudaResult code = enter(); code != CudaResult::success) return code;
  if (!event->is_there) return misuse("an event that is gone", CudaResult::invalid_handle);
  if (event->capture != 0) return misuse("a captured event is asked", CudaResult::captured_event);
  return forbid_unsafe();
}

void FakeDriver::join_legacy(CUctx_st& context) {
  for (const CUstream_st& each : streams_) {
    if (each.context == &context && each.is_blocking && each.is_there)
      queues_.wait_as_program(context.legacy->simulated, each.simulated);
  }
}

void FakeDriver::part_from_legacy(CUctx_st& context) {
  for (const CUstream_st& each : streams_) {
    if (each.context == &context && each.is_blocking && each.is_there)
      queues_.wait_as_program(each.simulated, context.legacy->simulated);
  }
}

void FakeDriver::wait_for(CUstream_st& waiter, CUstream_st& on) {
  const bool is_legacy = &waiter == waiter.context->legacy;
  if (is_legacy) join_legacy(*waiter.context);
  queues_.wait_as_program(waiter.simulated, on.simulated);
  if (is_legacy) part_from_legacy(*waiter.context);
}

}  // namespace cistern::testing
