#include "cistern/device/cuda.hpp"

#include <algorithm>
#include <span>

#include "cistern/core/residency.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/device/host.hpp"
#include "device/cuda_copies.hpp"
#include "device/cuda_pages.hpp"
#include "device/cuda_state.hpp"

namespace cistern {
namespace {

const CudaApi& cuda_system() {
  std::string why;
  const CudaApi* const api = CudaApi::system(why);
  if (api == nullptr) throw DeviceAbsent("cuda", why);
  return *api;
}

}  // namespace

// --- The order of streams. ---

class CudaDevice::Order final : public StreamOrder {
 public:
  explicit Order(State& state) : state_(state) {}

 private:
  Expected<void> do_wait(Stream waiter, Stream on) noexcept override {
    return in_scope(waiter.id != 0 || on.id != 0, [&] { return state_.wait(waiter, on); });
  }
  Expected<void> do_synchronize(Stream stream) noexcept override {
    return in_scope(stream.id != 0, [&] { return state_.synchronize(stream); });
  }
  void do_retire(Stream stream) noexcept override {
    static_cast<void>(in_scope(stream.id != 0, [&] {
      state_.retire(stream);
      return CudaResult::success;
    }));
  }

  // Before there is a context nothing stands in the default stream; what another device has made
  // known is waited for all the same.
  template <class Call>
  Expected<void> in_scope(bool has_other_streams, Call&& call) noexcept {
    if (state_.context() == nullptr && !has_other_streams) return {};
    const CudaScope scope(state_);
    return state_.answer(scope.result() != CudaResult::success ? scope.result() : call());
  }

  State& state_;
};

// --- Residency. ---

class CudaDevice::Prefetch final : public Residency {
 public:
  Prefetch(CudaDevice& device, State& state) : Residency(device), state_(state) {}

 private:
  // On a stream of the device's own: the program's would wait for it.
  Expected<void> do_make_resident(std::span<const Block> parts) noexcept override {
    std::size_t bytes = 0;
    for (const Block& part : parts)
      bytes += part.bytes;
    const CudaScope scope(state_);
    if (scope.result() != CudaResult::success)
      return tl::unexpected(state_.fail(scope.result(), bytes));
    CUstream_st* const stream = state_.own_stream();
    CudaResult code = stream != nullptr ? CudaResult::success : CudaResult::out_of_memory;
    std::size_t advised = 0;
    for (; advised < parts.size() && code == CudaResult::success; ++advised)
      code = move(parts[advised], stream);
    const CudaResult waited = stream != nullptr ? state_.synchronize(stream) : code;
    if (code == CudaResult::success) code = waited;
    if (code == CudaResult::success) return {};
    for (const Block& part : parts.first(advised))
      advise(part, CudaAdvice::unset_preferred_location);
    return tl::unexpected(state_.fail(code, bytes));
  }
  void do_end_residency(std::span<const Block> parts) noexcept override {
    const CudaScope scope(state_);
    if (scope.result() != CudaResult::success) return;
    for (const Block& part : parts)
      advise(part, CudaAdvice::unset_preferred_location);
  }

  CudaResult move(const Block& part, CUstream_st* stream) const noexcept {
    const CudaResult code = advise(part, CudaAdvice::set_preferred_location);
    return code != CudaResult::success
               ? code
               : state_.api.prefetch(address(part), part.bytes, state_.id, stream);
  }
  CudaResult advise(const Block& part, CudaAdvice advice) const noexcept {
    return state_.api.advise(address(part), part.bytes, advice, state_.id);
  }
  static CudaAddress address(const Block& part) noexcept {
    return static_cast<CudaAddress>(reinterpret_cast<std::uintptr_t>(part.memory)) + part.offset;
  }

  State& state_;
};

// --- The device. ---

CudaDevice::CudaDevice(std::unique_ptr<State> state)
    : Device(limits_of(*state)),
      state_(std::move(state)),
      order_(std::make_unique<Order>(*state_)),
      pages_(state_->page != 0 ? std::make_unique<Pages>(*this, *state_) : nullptr),
      prefetch_(memory() == Memory::managed && limits().host_addressable
                    ? std::make_unique<Prefetch>(*this, *state_)
                    : nullptr),
      copies_(std::make_unique<Copies>(*state_)) {}

CudaDevice::CudaDevice(const CudaApi& api, CUctx_st* context, const Options& options)
    : CudaDevice(std::make_unique<State>(api, context, options)) {}

CudaDevice::CudaDevice(const CudaApi& api, const Options& options)
    : CudaDevice(api, nullptr, options) {}

CudaDevice::CudaDevice(const Options& options) : CudaDevice(cuda_system(), options) {}

CudaDevice::CudaDevice(CUctx_st* context, const Options& options)
    : CudaDevice(cuda_system(), context, options) {}

CudaDevice::~CudaDevice() = default;

DeviceLimits CudaDevice::limits_of(const State& state) {
  constexpr std::size_t alignment = 256;  // what the driver promises
  return {.kind = "cuda",
          .name = state.name(),
          .total_memory = state.total_memory,
          .max_allocation = state.total_memory,
          .alignment = alignment,
          .max_alignment = alignment,
          .granularity = alignment,
          .memory_is_address = true,
          .host_addressable = state.is_host_addressable(),
          .has_queues = true};
}

int CudaDevice::ordinal() const noexcept {
  return state_->id;
}

CudaDevice::Memory CudaDevice::memory() const noexcept {
  return state_->options.memory;
}

CUctx_st* CudaDevice::context() const noexcept {
  return state_->context();
}

Stream CudaDevice::stream(CUstream_st* handle) {
  if (CudaStreams::is_default(handle)) return {};
  const CudaScope scope(*state_);
  check_cuda(scope.result(), "cuCtxPushCurrent");
  return state_->streams().add(handle);
}

bool CudaDevice::is_captured(Stream stream) noexcept {
  if (stream.id == 0) return false;  // the legacy default stream cannot be
  const CudaScope scope(*state_);
  if (scope.result() != CudaResult::success) return false;
  const CudaQueue queue = state_->streams().queue_of(stream);
  return queue && is_of_capture(state_->capture_of(queue.get()).refusal());
}

bool CudaDevice::is_broken() const noexcept {
  return state_->is_broken();
}

PoolRegistry& CudaDevice::registry() noexcept {
  return state_->account().registry();
}

std::size_t CudaDevice::free_memory() const noexcept {
  const std::size_t left = saturating_subtract(limits().total_memory, state_->account().held());
  if (memory() == Memory::pinned) return std::min(left, free_host_memory());
  if (memory() == Memory::managed || state_->context() == nullptr) return left;
  const CudaScope scope(*state_);
  std::size_t free = 0;
  std::size_t total = 0;
  const bool is_known = scope.result() == CudaResult::success &&
                        state_->api.memory_info(&free, &total) == CudaResult::success;
  return is_known ? std::min(left, saturating_add(free, state_->pool_idle())) : 0;
}

VirtualMemory* CudaDevice::virtual_memory() noexcept {
  return pages_.get();
}

StreamOrder* CudaDevice::stream_order() noexcept {
  return order_.get();
}

Residency* CudaDevice::residency() noexcept {
  return prefetch_.get();
}

Transfer* CudaDevice::transfer() noexcept {
  return copies_.get();
}

Expected<Device::Piece> CudaDevice::obtain(std::size_t bytes, std::size_t alignment,
                                           Stream stream) noexcept {
  DeviceAccount& account = state_->account();
  if (!account.take(bytes, limits().total_memory)) {
    if (pages_ != nullptr) pages_->trim();
    state_->reclaim();
    if (!account.take(bytes, limits().total_memory))
      return tl::unexpected(fail(Errc::out_of_memory, bytes, free_memory()));
  }
  Expected<Piece> piece = state_->obtain(bytes, stream);
  if (piece) {
    piece->alignment = alignment;
  } else {
    account.put(bytes);
  }
  return piece;
}

void CudaDevice::give_back(Piece piece, Stream stream) noexcept {
  state_->give_back(piece, stream);
}

void CudaDevice::trim_to(std::size_t keep_bytes) noexcept {
  if (pages_ != nullptr) pages_->trim();
  state_->trim(keep_bytes);
}

// To ask the driver's pool outside a scope would end a capture, be it another thread's.
std::size_t CudaDevice::kept_idle() const noexcept {
  if (!state_->has_pool()) return 0;
  const CudaScope scope(*state_);
  return scope.result() == CudaResult::success ? state_->pool_idle() : 0;
}

std::string CudaDevice::validate() const {
  if (stats().live_granted.current + mapped_bytes() > state_->account().held())
    return "cuda: what is live and mapped is charged to the account of the GPU's memory";
  return Device::validate();
}

}  // namespace cistern
