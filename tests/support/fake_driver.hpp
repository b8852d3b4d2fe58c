// The driver that `FakeCuda` shows to tests, with the rules that the real one has. Every entry
// point is a method of the same name, called under the lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include <sys/mman.h>

#include "support/failing_new.hpp"
#include "support/fake_cuda.hpp"

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

inline std::byte* pointer_to(CudaAddress address) {
  return reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(address));
}

inline CudaAddress address_at(const void* memory) {
  return static_cast<CudaAddress>(reinterpret_cast<std::uintptr_t>(memory));
}

/// What is a thread's own, of one driver.
struct FakeThread {
  const FakeDriver* of = nullptr;
  std::uint64_t generation = 0;
  std::uint64_t number = 0;
  std::vector<CUctx_st*> contexts;
  CudaCaptureMode mode = CudaCaptureMode::global;
};

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
  CudaResult run(AnyEntry entry, Call&& call) {
    const SparedNew own_heap;
    const std::lock_guard lock(mutex_);
    bool fails = false;
    if (how != Fails::never && ++calls_ == fail_at_) {
      fails = true;
      failed_call_ = entry;
    }
    if (fails && how == Fails::before) return fail_code_;
    const CudaResult code = call();
    return fails ? fail_code_ : code;
  }

  // --- the entry points, in the order of CudaApi, under the lock ---

  CudaResult init(unsigned flags);
  CudaResult driver_version(int* version);
  CudaResult device_count(int* count);
  CudaResult device(CudaOrdinal* device, int ordinal);
  CudaResult device_name(char* name, int size, CudaOrdinal device);
  CudaResult device_memory(std::size_t* bytes, CudaOrdinal device);
  CudaResult device_attribute(int* value, CudaAttribute key, CudaOrdinal device);

  CudaResult retain_primary(CUctx_st** context, CudaOrdinal device);
  CudaResult release_primary(CudaOrdinal device);
  CudaResult primary_state(CudaOrdinal device, unsigned* flags, int* is_active);
  CudaResult current_context(CUctx_st** context);
  CudaResult push_context(CUctx_st* context);
  CudaResult pop_context(CUctx_st** context);
  CudaResult context_device(CudaOrdinal* device);

  CudaResult memory_info(std::size_t* free, std::size_t* total);
  CudaResult allocate(CudaAddress* memory, std::size_t bytes);
  CudaResult free(CudaAddress memory);
  CudaResult allocate_managed(CudaAddress* memory, std::size_t bytes, unsigned flags);
  CudaResult allocate_host(void** memory, std::size_t bytes, unsigned flags);
  CudaResult free_host(void* memory);

  CudaResult create_pool(CUmemPoolHandle_st** pool, const CudaPoolProperties* made);
  CudaResult destroy_pool(CUmemPoolHandle_st* pool);
  CudaResult trim_pool(CUmemPoolHandle_st* pool, std::size_t keep);
  CudaResult set_pool(CUmemPoolHandle_st* pool, CudaPoolAttribute key, void* value);
  CudaResult get_pool(CUmemPoolHandle_st* pool, CudaPoolAttribute key, void* value);
  CudaResult allocate_async(CudaAddress* memory, std::size_t bytes, CUmemPoolHandle_st* pool,
                            CUstream_st* handle);
  CudaResult free_async(CudaAddress memory, CUstream_st* handle);

  CudaResult granularity(std::size_t* bytes, const CudaAllocation* of, CudaGranularity which);
  CudaResult reserve_addresses(CudaAddress* start, std::size_t bytes, std::size_t alignment,
                               CudaAddress wanted, unsigned long long flags);
  CudaResult free_addresses(CudaAddress start, std::size_t bytes);
  CudaResult create_physical(CudaPhysicalMemory* memory, std::size_t bytes,
                             const CudaAllocation* made, unsigned long long flags);
  CudaResult release_physical(CudaPhysicalMemory memory);
  CudaResult map(CudaAddress start, std::size_t bytes, std::size_t offset,
                 CudaPhysicalMemory memory, unsigned long long flags);
  CudaResult unmap(CudaAddress start, std::size_t bytes);
  CudaResult set_access(CudaAddress start, std::size_t bytes, const CudaAccess* access,
                        std::size_t count);

  CudaResult create_stream(CUstream_st** stream, unsigned flags);
  CudaResult destroy_stream(CUstream_st* stream);
  CudaResult synchronize_stream(CUstream_st* handle);
  CudaResult stream_context(CUstream_st* handle, CUctx_st** context);
  CudaResult stream_id(CUstream_st* handle, unsigned long long* id);
  CudaResult wait_event(CUstream_st* handle, CUevent_st* event, unsigned flags);
  CudaResult capture_info(CUstream_st* handle, CudaCaptureStatus* status, std::uint64_t* id);
  CudaResult exchange_capture_mode(CudaCaptureMode* mode);

  CudaResult create_event(CUevent_st** event, unsigned flags);
  CudaResult destroy_event(CUevent_st* event);
  CudaResult record_event(CUevent_st* event, CUstream_st* handle);
  CudaResult query_event(CUevent_st* event);
  CudaResult synchronize_event(CUevent_st* event);

  CudaResult copy(CudaAddress to, CudaAddress from, std::size_t bytes, CUstream_st* handle);
  CudaResult fill(CudaAddress to, unsigned char value, std::size_t bytes, CUstream_st* handle);
  CudaResult advise(CudaAddress memory, std::size_t bytes, CudaAdvice advice, CudaOrdinal device);
  CudaResult prefetch(CudaAddress memory, std::size_t bytes, CudaOrdinal to, CUstream_st* handle);

  // --- what the program does, under the lock ---

  CUctx_st* primary(int gpu);
  CUctx_st* make_context(int gpu);
  CUstream_st* make_stream(CUctx_st* context, bool is_blocking);
  void begin_capture(CUstream_st* handle, CudaCaptureMode mode);
  bool end_capture(CUstream_st* handle);
  void program_wait(CUstream_st* waiter, CUstream_st* on);
  /// On a stream that is known to be there.
  void launch(CUstream_st& stream, std::span<const SimulatedQueues::Use> uses);
  CudaResult find_anywhere(CUstream_st* handle, CUstream_st*& stream);
  void finish(CUstream_st& stream);
  [[nodiscard]] CUctx_st* current();
  /// Where one is.
  [[nodiscard]] CUctx_st& here() { return *thread().contexts.back(); }
  [[nodiscard]] FakeThread& thread();

  std::mutex& mutex() { return mutex_; }
  SimulatedQueues& queues() { return queues_; }
  void fail_next(std::size_t n, CudaResult code) {
    fail_at_ = n == 0 ? 0 : calls_ + n;
    fail_code_ = code;
    failed_call_ = nullptr;
  }
  [[nodiscard]] std::size_t calls() const { return calls_; }
  [[nodiscard]] AnyEntry failed_call() const { return failed_call_; }
  void hold_events(bool is_held) { is_held_ = is_held; }

  [[nodiscard]] FakeCuda::Figures figures() const;
  [[nodiscard]] std::string leaks() const;
  [[nodiscard]] std::vector<std::string> misuses() const;

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

  CudaResult misuse(const char* what, CudaResult code);
  [[nodiscard]] bool has_gpu(int gpu) const {
    return is_initialized_ && gpu >= 0 && gpu < machine_.gpus;
  }
  static std::size_t index(int gpu) { return static_cast<std::size_t>(gpu); }
  [[nodiscard]] bool is_meant(const CudaAllocation& allocation) const;

  /// A context is current and not broken.
  CudaResult enter();
  CudaResult find(CUstream_st* handle, CUstream_st*& stream);
  /// The same, where something is then put into it.
  CudaResult ask_about(CUstream_st* handle, CUstream_st*& stream);
  CudaResult enqueue_on(CUstream_st* handle, CUstream_st*& stream);

  // --- captures ---

  [[nodiscard]] bool is_beside_capture(const CUstream_st& stream) const;
  CudaResult break_captures_beside(const CUstream_st& legacy, const char* what);
  CudaResult break_capture(std::uint64_t capture, const char* what);
  /// A call that a capture does not allow, here or elsewhere, as the thread's mode says.
  CudaResult forbid_unsafe();
  CudaResult look_at(const CUevent_st* event);

  // --- queues ---

  static Stream sim(const CUstream_st* stream) { return stream->simulated; }
  void join_legacy(CUctx_st& context);
  void part_from_legacy(CUctx_st& context);
  /// An event is waited for at once or not at all in this library, so that what stands in a stream
  /// then is what was recorded.
  void wait_for(CUstream_st& waiter, CUstream_st& on);
  static SimulatedQueues::Use use(CudaAddress memory, std::size_t bytes,
                                  SimulatedQueues::Access access) {
    return {.block = {.memory = pointer_to(memory), .bytes = bytes}, .access = access};
  }
  void launch_on(CUstream_st& stream, CudaAddress memory, std::size_t bytes);
  /// Memory goes back: only what the host has waited for may have used it.
  void use_up(CudaAddress memory, std::size_t bytes);

  // --- memory ---

  CudaResult take(int gpu, std::size_t bytes);
  CudaResult obtain(Kind kind, CudaAddress* memory, std::size_t bytes);
  CudaResult give_back(CudaAddress memory, Kind one, Kind other);
  void trim(CUmemPoolHandle_st& pool, std::size_t keep, bool is_over);
  Ranges::iterator range_of(CudaAddress start, std::size_t bytes);
  void drop_physical(std::map<CudaPhysicalMemory, Physical>::iterator memory);
  Place place_of(CudaAddress memory, std::size_t bytes);
  [[nodiscard]] bool is_managed(CudaAddress memory, std::size_t bytes);

  const FakeCuda::Machine machine_;
  std::uint64_t generation_ = 0;
  SimulatedQueues queues_;
  std::mutex mutex_;  // guards all below
  bool is_initialized_ = false;
  bool is_held_ = false;
  std::size_t calls_ = 0;
  std::size_t fail_at_ = 0;
  CudaResult fail_code_ = CudaResult::success;
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

}  // namespace cistern::testing
