#include "support/fake_cuda.hpp"

#include "support/fake_driver.hpp"

namespace cistern::testing {
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
