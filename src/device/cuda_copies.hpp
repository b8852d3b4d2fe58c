// Copies and fills in the order of a stream of CUDA's. All memory, the host's too, has one space of
// addresses, so that one entry point copies whatever lies where.
#pragma once

#include <cstddef>
#include <span>

#include "cistern/core/transfer.hpp"
#include "device/cuda_state.hpp"
#include "device/staging_slots.hpp"

namespace cistern {

class CudaDevice::Copies final : public Transfer {
 public:
  explicit Copies(State& state) noexcept;
  ~Copies();
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;
  Copies(Copies&&) = delete;
  Copies& operator=(Copies&&) = delete;

  Expected<void> copy(const Block& to, std::size_t to_offset, const Block& from,
                      std::size_t from_offset, std::size_t bytes, Stream stream) noexcept override;
  Expected<void> fill(const Block& to, std::size_t offset, std::size_t bytes, std::byte value,
                      Stream stream) noexcept override;
  Expected<void> upload(const Block& to, std::size_t offset, std::span<const std::byte> from,
                        Stream stream) noexcept override;
  Expected<void> download(std::span<std::byte> to, const Block& from, std::size_t offset,
                          Stream stream) noexcept override;

 private:
  using Slot = StagingSlots<CUevent_st*>::Slot;

  template <class Call>
  Expected<void> enqueue(Stream stream, Call&& call) noexcept;
  CudaResult send(CudaAddress to, std::span<const std::byte> from, CUstream_st* queue,
                  Stream stream) noexcept;
  CudaResult send_and_wait(CudaAddress to, std::span<const std::byte> from,
                           CUstream_st* queue) noexcept;
  Slot* take_slot(Stream stream) noexcept;
  void await(Slot& slot) noexcept;

  State& state_;
  StagingSlots<CUevent_st*> staging_;
};

}  // namespace cistern
