#include "cistern/device/opencl.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "cistern/core/residency.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/stream_order.hpp"
#include "cistern/core/transfer.hpp"
#include "device/opencl_state.hpp"
#include "device/staging_slots.hpp"

namespace cistern {
namespace {

const OpenClApi& system_api() {
  std::string why;
  const OpenClApi* const api = OpenClApi::system(why);
  if (api == nullptr) throw DeviceAbsent("opencl", why);
  return *api;
}

}  // namespace

OpenClObject::~OpenClObject() {
  if (object_ != nullptr) api_->release_mem_object(object_);
}

// --- The order of streams. ---

class OpenClDevice::Order final : public StreamOrder {
 public:
  explicit Order(State& state) : state_(state) {}

 private:
  // The queue that is waited for is flushed: what waits for it might else wait for ever.
  Expected<void> do_wait(Stream waiter, Stream on) noexcept override {
    const OpenClApi& api = state_.api;
    const OpenClQueue behind = state_.queue_of(waiter);
    const OpenClQueue before = state_.queue_of(on);
    if (!before) return {};
    if (!behind) return State::answer(CL_INVALID_COMMAND_QUEUE);
    if (behind.get() == before.get())
      return State::answer(api.enqueue_barrier(behind.get(), 0, nullptr, nullptr));
    cl_event passed = nullptr;
    cl_int code = api.enqueue_marker(before.get(), 0, nullptr, &passed);
    if (code != CL_SUCCESS) return State::answer(code);
    code = api.flush(before.get());
    if (code == CL_SUCCESS) code = hold_back(waiter, behind.get(), passed);
    api.release_event(passed);
    return State::answer(code);
  }
  // In a queue out of order only a barrier for all that stands before it will do: with drivers at
  // hand a barrier for one event does not wait for the barriers before it, and what comes next
  // waits for the last barrier alone.
  cl_int hold_back(Stream waiter, cl_command_queue behind, cl_event passed) const noexcept {
    const OpenClApi& api = state_.api;
    if (!waiter.runs_out_of_order()) return api.enqueue_barrier(behind, 1, &passed, nullptr);
    const cl_int code = api.enqueue_marker(behind, 1, &passed, nullptr);
    return code == CL_SUCCESS ? api.enqueue_barrier(behind, 0, nullptr, nullptr) : code;
  }
  Expected<void> do_synchronize(Stream stream) noexcept override {
    const OpenClQueue queue = state_.queue_of(stream);
    return queue ? State::answer(state_.api.finish(queue.get())) : Expected<void>{};
  }
  void do_retire(Stream stream) noexcept override { state_.retire(stream); }

  State& state_;
};

// --- Residency. ---

class OpenClDevice::Migration final : public Residency {
 public:
  Migration(OpenClDevice& device, State& state) : Residency(device), state_(state) {}

 private:
  // One after the other: an array of objects would have to be allocated.
  Expected<void> do_make_resident(std::span<const Block> parts) noexcept override {
    std::size_t bytes = 0;
    for (const Block& part : parts) {
      bytes += part.bytes;
      const auto object = static_cast<cl_mem>(part.memory);
      cl_event command = nullptr;
      cl_int code = state_.api.enqueue_migrate_mem_objects(state_.own_queue, 1, &object, 0, 0,
                                                           nullptr, &command);
      if (code == CL_SUCCESS) code = state_.finish_own(command);
      if (code != CL_SUCCESS) return tl::unexpected(State::fail(code, bytes));
    }
    return {};
  }
  // OpenCL knows no end of it. A migration to the host would copy what nobody asked for.
  void do_end_residency(std::span<const Block> /*parts*/) noexcept override {}

  State& state_;
};

// --- Transfers. ---

class OpenClDevice::Copies final : public Transfer {
 public:
  explicit Copies(State& state) : state_(state), staging_(state.options.staging) {}
  ~Copies() {
    std::byte* const memory = staging_.close([this](Slot& slot) { await(slot); });
    if (memory != nullptr) state_.give_back_pinned(memory);
  }
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;
  Copies(Copies&&) = delete;
  Copies& operator=(Copies&&) = delete;

  Expected<void> copy(const Block& to, std::size_t to_offset, const Block& from,
                      std::size_t from_offset, std::size_t bytes, Stream stream) noexcept override {
    if (!is_within(to, to_offset, bytes) || !is_within(from, from_offset, bytes))
      return tl::unexpected(invalid(bytes));
    if (bytes == 0) return {};
    return enqueue(stream, [&](cl_command_queue queue) {
      switch (state_.options.memory) {
        case Memory::buffer:
          return state_.api.enqueue_copy_buffer(queue, object(from), object(to),
                                                from.offset + from_offset, to.offset + to_offset,
                                                bytes, 0, nullptr, nullptr);
        case Memory::svm:
          return state_.api.enqueue_svm_memcpy(queue, CL_FALSE, address(to, to_offset),
                                               address(from, from_offset), bytes, 0, nullptr,
                                               nullptr);
        case Memory::pinned:
          break;
      }
      return on_host(
          queue, [&] { std::memcpy(address(to, to_offset), address(from, from_offset), bytes); });
    });
  }

  Expected<void> fill(const Block& to, std::size_t offset, std::size_t bytes, std::byte value,
                      Stream stream) noexcept override {
    if (!is_within(to, offset, bytes)) return tl::unexpected(invalid(bytes));
    if (bytes == 0) return {};
    return enqueue(stream, [&](cl_command_queue queue) {
      switch (state_.options.memory) {
        case Memory::buffer:
          return state_.api.enqueue_fill_buffer(queue, object(to), &value, 1, to.offset + offset,
                                                bytes, 0, nullptr, nullptr);
        case Memory::svm:
          return state_.api.enqueue_svm_mem_fill(queue, address(to, offset), &value, 1, bytes, 0,
                                                 nullptr, nullptr);
        case Memory::pinned:
          break;
      }
      return on_host(queue,
                     [&] { std::memset(address(to, offset), std::to_integer<int>(value), bytes); });
    });
  }

  Expected<void> upload(const Block& to, std::size_t offset, std::span<const std::byte> from,
                        Stream stream) noexcept override {
    if (!is_within(to, offset, from.size())) return tl::unexpected(invalid(from.size()));
    if (from.empty()) return {};
    return enqueue(stream, [&](cl_command_queue queue) {
      if (state_.options.memory == Memory::pinned) {
        return on_host(queue, [&] { std::memcpy(address(to, offset), from.data(), from.size()); });
      }
      cl_int code = CL_SUCCESS;
      while (code == CL_SUCCESS && !from.empty()) {
        Slot* const slot = take_slot(stream);
        if (slot == nullptr)
          return write(queue, CL_TRUE, to, offset, from.data(), from.size(), nullptr);
        const std::size_t bytes = std::min(staging_.slot_bytes(), from.size());
        std::memcpy(slot->memory, from.data(), bytes);
        cl_event sent = nullptr;
        code = write(queue, CL_FALSE, to, offset, slot->memory, bytes, &sent);
        if (code == CL_SUCCESS) code = state_.api.flush(queue);
        staging_.put(*slot, sent, stream);
        offset += bytes;
        from = from.subspan(bytes);
      }
      return code;
    });
  }

  Expected<void> download(std::span<std::byte> to, const Block& from, std::size_t offset,
                          Stream stream) noexcept override {
    if (!is_within(from, offset, to.size())) return tl::unexpected(invalid(to.size()));
    if (to.empty()) return {};
    return enqueue(stream, [&](cl_command_queue queue) {
      switch (state_.options.memory) {
        case Memory::buffer:
          return state_.api.enqueue_read_buffer(queue, object(from), CL_TRUE, from.offset + offset,
                                                to.size(), to.data(), 0, nullptr, nullptr);
        case Memory::svm:
          return state_.api.enqueue_svm_memcpy(queue, CL_TRUE, to.data(), address(from, offset),
                                               to.size(), 0, nullptr, nullptr);
        case Memory::pinned:
          break;
      }
      return on_host(queue, [&] { std::memcpy(to.data(), address(from, offset), to.size()); });
    });
  }

 private:
  using Slot = StagingSlots<cl_event>::Slot;

  static bool is_within(const Block& block, std::size_t offset, std::size_t bytes) noexcept {
    return offset <= block.bytes && bytes <= block.bytes - offset;
  }
  static Error invalid(std::size_t bytes) noexcept {
    return {.code = Errc::invalid_block, .stage = "opencl", .requested = bytes};
  }
  static cl_mem object(const Block& block) noexcept { return static_cast<cl_mem>(block.memory); }
  static std::byte* address(const Block& block, std::size_t offset) noexcept {
    return static_cast<std::byte*>(block.memory) + offset;
  }

  /// A queue that runs out of order gets a barrier on either side.
  template <class Call>
  Expected<void> enqueue(Stream stream, Call&& call) noexcept {
    const OpenClQueue queue = state_.queue_of(stream);
    if (!queue) return State::answer(CL_INVALID_COMMAND_QUEUE);
    cl_int code = stand_apart(queue.get(), stream);
    if (code == CL_SUCCESS) code = call(queue.get());
    if (code == CL_SUCCESS) code = stand_apart(queue.get(), stream);
    return State::answer(code);
  }
  /// Of memory that the host can address: once the queue is done, by itself.
  template <class Work>
  cl_int on_host(cl_command_queue queue, Work&& work) const noexcept {
    const cl_int code = state_.api.finish(queue);
    if (code == CL_SUCCESS) work();
    return code;
  }
  cl_int stand_apart(cl_command_queue queue, Stream stream) const noexcept {
    if (!stream.runs_out_of_order()) return CL_SUCCESS;
    return state_.api.enqueue_barrier(queue, 0, nullptr, nullptr);
  }

  cl_int write(cl_command_queue queue, cl_bool waits, const Block& to, std::size_t offset,
               const std::byte* from, std::size_t bytes, cl_event* event) const noexcept {
    if (state_.options.memory == Memory::svm)
      return state_.api.enqueue_svm_memcpy(queue, waits, address(to, offset), from, bytes, 0,
                                           nullptr, event);
    return state_.api.enqueue_write_buffer(queue, object(to), waits, to.offset + offset, bytes,
                                           from, 0, nullptr, event);
  }

  Slot* take_slot(Stream stream) noexcept {
    const auto obtain = [this] {
      const Expected<Piece> made = state_.obtain_pinned(state_.options.staging);
      return made ? static_cast<std::byte*>(made->memory) : nullptr;
    };
    Slot* const slot =
        staging_.take(stream, obtain, [this](cl_event event) { return is_sent(event); });
    if (slot != nullptr) await(*slot);
    return slot;
  }
  [[nodiscard]] bool is_sent(cl_event event) const noexcept {
    cl_int status = CL_QUEUED;
    const cl_int code = state_.api.get_event_info(event, CL_EVENT_COMMAND_EXECUTION_STATUS,
                                                  sizeof status, &status, nullptr);
    return code == CL_SUCCESS && status <= CL_COMPLETE;
  }
  void await(Slot& slot) const noexcept {
    if (slot.sent == nullptr) return;
    state_.api.wait_for_events(1, &slot.sent);
    state_.api.release_event(std::exchange(slot.sent, nullptr));
  }

  State& state_;
  StagingSlots<cl_event> staging_;
};

// --- The device. ---

OpenClDevice::OpenClDevice(std::unique_ptr<State> state)
    : Device(limits_of(*state)),
      state_(std::move(state)),
      order_(std::make_unique<Order>(*state_)),
      migration_(std::make_unique<Migration>(*this, *state_)),
      copies_(std::make_unique<Copies>(*state_)) {}

OpenClDevice::OpenClDevice(const OpenClApi& api, const Options& options)
    : OpenClDevice(std::make_unique<State>(api, options)) {}

OpenClDevice::OpenClDevice(const Options& options) : OpenClDevice(system_api(), options) {}

OpenClDevice::OpenClDevice(_cl_context* context, _cl_command_queue* queue, const Options& options)
    : OpenClDevice(system_api(), context, queue, options) {}

OpenClDevice::OpenClDevice(const OpenClApi& api, _cl_context* context, _cl_command_queue* queue,
                           const Options& options)
    : OpenClDevice(std::make_unique<State>(api, context, queue, options)) {}

OpenClDevice::~OpenClDevice() = default;

_cl_context* OpenClDevice::context_of(_cl_command_queue* queue) {
  return queue_value<cl_context>(system_api(), queue, CL_QUEUE_CONTEXT);
}

_cl_context* OpenClDevice::context() const noexcept {
  return state_->context;
}

_cl_device_id* OpenClDevice::id() const noexcept {
  return state_->id;
}

_cl_command_queue* OpenClDevice::queue() const noexcept {
  return state_->queue;
}

Stream OpenClDevice::stream(_cl_command_queue* queue) {
  return state_->add_stream(queue);
}

bool OpenClDevice::uses_host_pointer() const noexcept {
  return (state_->buffer_flags() & CL_MEM_ALLOC_HOST_PTR) != 0;
}

PoolRegistry& OpenClDevice::registry() noexcept {
  return state_->account().registry();
}

std::size_t OpenClDevice::free_memory() const noexcept {
  return saturating_subtract(limits().total_memory, state_->account().held());
}

StreamOrder* OpenClDevice::stream_order() noexcept {
  return order_.get();
}

Residency* OpenClDevice::residency() noexcept {
  return state_->options.memory == Memory::buffer ? migration_.get() : nullptr;
}

Transfer* OpenClDevice::transfer() noexcept {
  return copies_.get();
}

Expected<OpenClObject> OpenClDevice::object(const Block& block) noexcept {
  if (state_->options.memory != Memory::buffer)
    return tl::unexpected(fail(Errc::unsupported, block.bytes));
  return state_->object_of(block).map(
      [&](cl_mem object) { return OpenClObject(state_->api, object); });
}

Expected<Device::Piece> OpenClDevice::obtain(std::size_t bytes, std::size_t alignment,
                                             Stream /*stream*/) noexcept {
  DeviceAccount& account = state_->account();
  if (!account.take(bytes, limits().total_memory))
    return tl::unexpected(fail(Errc::out_of_memory, bytes, free_memory()));
  Expected<Piece> piece = state_->options.memory == Memory::buffer
                              ? state_->obtain_buffer(bytes, state_->buffer_flags())
                          : state_->options.memory == Memory::svm ? state_->obtain_svm(bytes)
                                                                  : state_->obtain_pinned(bytes);
  if (piece) {
    piece->alignment = alignment;
  } else {
    account.put(bytes);
  }
  return piece;
}

// A buffer is kept by the driver until the queues are done with it; addresses are not.
void OpenClDevice::give_back(Piece piece, Stream stream) noexcept {
  if (state_->options.memory == Memory::buffer) {
    state_->give_back_buffer(static_cast<cl_mem>(piece.memory));
  } else {
    if (!order_->synchronize(stream)) static_cast<void>(order_->synchronize(stream));
    if (state_->options.memory == Memory::pinned) {
      state_->give_back_pinned(piece.memory);
    } else {
      state_->api.svm_free(state_->context, piece.memory);
    }
  }
  state_->account().put(piece.bytes);
}

std::string OpenClDevice::validate() const {
  if (state_->kept_sub_buffers() > State::most_sub_buffers)
    return "opencl: the sub-buffers that are kept are bounded";
  return Device::validate();
}

}  // namespace cistern
