// A std::pmr::memory_resource as a device, so that a stack can stand on whatever allocator a
// program already has.
#pragma once

#include <memory_resource>

#include "cistern/core/device.hpp"

namespace cistern {

/// `memory` is borrowed: it must outlive the device and every block. It must be thread-safe if the
/// stack is used by several threads. Its exceptions become values.
class PmrDevice final : public Device {
 public:
  /// Throws std::invalid_argument if `memory` is null.
  explicit PmrDevice(std::pmr::memory_resource* memory);

 private:
  Expected<Piece> obtain(std::size_t bytes, std::size_t alignment, Stream stream) noexcept override;
  void give_back(Piece piece, Stream stream) noexcept override;

  std::pmr::memory_resource* memory_;
};

}  // namespace cistern
