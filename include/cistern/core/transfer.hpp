// What a device can do whose memory the host cannot reach, or not fast: copy and fill it, in the
// order of a stream. Absent where `Device::transfer` answers null.
#pragma once

#include <cstddef>
#include <span>

#include "cistern/core/block.hpp"
#include "cistern/core/error.hpp"

namespace cistern {

/// Thread-safe. Every call is enqueued in `stream` and does not wait for it, but for the two that
/// say so. Bytes are counted from the start of a block, and lie within what was granted. Errors:
/// invalid_block, where they do not; device_failed.
class Transfer {
 public:
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  Transfer(Transfer&&) = delete;
  Transfer& operator=(Transfer&&) = delete;

  /// From one block to another, or within one where the two ranges do not overlap.
  virtual Expected<void> copy(const Block& to, std::size_t to_offset, const Block& from,
                              std::size_t from_offset, std::size_t bytes,
                              Stream stream) noexcept = 0;
  virtual Expected<void> fill(const Block& to, std::size_t offset, std::size_t bytes,
                              std::byte value, Stream stream) noexcept = 0;

  /// From the host's memory, which may be changed once the call returns: what is copied was taken
  /// into staging memory of bounded size, and where there is more, the call waits for room in it.
  virtual Expected<void> upload(const Block& to, std::size_t offset,
                                std::span<const std::byte> from, Stream stream) noexcept = 0;

  /// To the host's memory, after all that stands in `stream`: waits until it is there.
  virtual Expected<void> download(std::span<std::byte> to, const Block& from, std::size_t offset,
                                  Stream stream) noexcept = 0;

 protected:
  Transfer() = default;
  ~Transfer() = default;
};

}  // namespace cistern
