#include "device/cuda_copies.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace cistern {
namespace {

bool lies_within(const Block& block, std::size_t offset, std::size_t bytes) noexcept {
  return offset <= block.bytes && bytes <= block.bytes - offset;
}

tl::unexpected<Error> lies_outside(std::size_t bytes) noexcept {
  return tl::unexpected(Error{.code = Errc::invalid_block, .stage = "cuda", .requested = bytes});
}

CudaAddress address_of(const void* memory, std::size_t offset = 0) noexcept {
  return static_cast<CudaAddress>(reinterpret_cast<std::uintptr_t>(memory)) + offset;
}

CudaAddress address_of(const Block& block, std::size_t offset) noexcept {
  return address_of(block.memory, block.offset + offset);
}

}  // namespace

CudaDevice::Copies::Copies(State& state) noexcept
    : state_(state), staging_(state.options.staging) {}

CudaDevice::Copies::~Copies() {
  if (state_.context() == nullptr) return;
  const CudaScope scope(state_);
  std::byte* const memory = staging_.close([this](Slot& slot) { await(slot); });
  if (memory != nullptr) state_.give_back_pinned(memory);
}

template <class Call>
Expected<void> CudaDevice::Copies::enqueue(Stream stream, Call&& call) noexcept {
  const CudaScope scope(state_);
  if (scope.result() != CudaResult::success) return state_.answer(scope.result());
  const CudaQueue queue = state_.streams().queue_of(stream);
  if (!queue) return state_.answer(CudaResult::invalid_handle);
  return state_.answer(call(queue.get()));
}

Expected<void> CudaDevice::Copies::copy(const Block& to, std::size_t to_offset, const Block& from,
                                        std::size_t from_offset, std::size_t bytes,
                                        Stream stream) noexcept {
  if (!lies_within(to, to_offset, bytes) || !lies_within(from, from_offset, bytes))
    return lies_outside(bytes);
  if (bytes == 0) return {};
  return enqueue(stream, [&](CUstream_st* queue) {
    return state_.api.copy(address_of(to, to_offset), address_of(from, from_offset), bytes, queue);
  });
}

Expected<void> CudaDevice::Copies::fill(const Block& to, std::size_t offset, std::size_t bytes,
                                        std::byte value, Stream stream) noexcept {
  if (!lies_within(to, offset, bytes)) return lies_outside(bytes);
  if (bytes == 0) return {};
  return enqueue(stream, [&](CUstream_st* queue) {
    return state_.api.fill(address_of(to, offset), std::to_integer<unsigned char>(value), bytes,
                           queue);
  });
}

// A graph would read the staging memory again whenever it is launched.
Expected<void> CudaDevice::Copies::upload(const Block& to, std::size_t offset,
                                          std::span<const std::byte> from, Stream stream) noexcept {
  if (!lies_within(to, offset, from.size())) return lies_outside(from.size());
  if (from.empty()) return {};
  return enqueue(stream, [&](CUstream_st* queue) {
    const CudaResult refusal = state_.capture_of(queue).refusal();
    return refusal != CudaResult::success ? refusal
                                          : send(address_of(to, offset), from, queue, stream);
  });
}

CudaResult CudaDevice::Copies::send(CudaAddress to, std::span<const std::byte> from,
                                    CUstream_st* queue, Stream stream) noexcept {
  CudaResult code = CudaResult::success;
  while (code == CudaResult::success && !from.empty()) {
    Slot* const slot = take_slot(stream);
    CUevent_st* sent = slot != nullptr ? state_.take_event() : nullptr;
    if (sent == nullptr) {
      if (slot != nullptr) staging_.put(*slot, nullptr, stream);
      return send_and_wait(to, from, queue);
    }
    const std::size_t bytes = std::min(staging_.slot_bytes(), from.size());
    std::memcpy(slot->memory, from.data(), bytes);
    code = state_.api.copy(to, address_of(slot->memory), bytes, queue);
    if (code == CudaResult::success) code = state_.api.record_event(sent, queue);
    if (code != CudaResult::success) {
      static_cast<void>(state_.synchronize(queue));  // the slot may be in use, and nothing says so
      state_.put_event(std::exchange(sent, nullptr));
    }
    staging_.put(*slot, sent, stream);
    to += bytes;
    from = from.subspan(bytes);
  }
  return code;
}

CudaResult CudaDevice::Copies::send_and_wait(CudaAddress to, std::span<const std::byte> from,
                                             CUstream_st* queue) noexcept {
  const CudaResult code = state_.api.copy(to, address_of(from.data()), from.size(), queue);
  const CudaResult waited = state_.synchronize(queue);
  return code != CudaResult::success ? code : waited;
}

Expected<void> CudaDevice::Copies::download(std::span<std::byte> to, const Block& from,
                                            std::size_t offset, Stream stream) noexcept {
  if (!lies_within(from, offset, to.size())) return lies_outside(to.size());
  if (to.empty()) return {};
  return enqueue(stream, [&](CUstream_st* queue) {
    const CudaResult refusal = state_.capture_of(queue).refusal();
    if (refusal != CudaResult::success) return refusal;
    const CudaResult code =
        state_.api.copy(address_of(to.data()), address_of(from, offset), to.size(), queue);
    const CudaResult waited = state_.synchronize(queue);
    return code != CudaResult::success ? code : waited;
  });
}

CudaDevice::Copies::Slot* CudaDevice::Copies::take_slot(Stream stream) noexcept {
  const auto obtain = [this] {
    return state_.obtain_pinned(state_.options.staging).value_or(nullptr);
  };
  const auto is_sent = [this](CUevent_st* event) {
    return state_.api.query_event(event) == CudaResult::success;
  };
  Slot* const slot = staging_.take(stream, obtain, is_sent);
  if (slot != nullptr) await(*slot);
  return slot;
}

void CudaDevice::Copies::await(Slot& slot) noexcept {
  if (slot.sent == nullptr) return;
  if (state_.api.synchronize_event(slot.sent) != CudaResult::success)
    static_cast<void>(state_.api.synchronize_event(slot.sent));
  state_.put_event(std::exchange(slot.sent, nullptr));
}

}  // namespace cistern
