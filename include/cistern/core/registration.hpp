// Residency for memory that exists: the weights of a model, loaded before any pool. It is neither
// owned nor rounded nor recycled, only kept resident as long as it is registered.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "cistern/core/buffer.hpp"
#include "cistern/core/device.hpp"
#include "cistern/core/ref.hpp"

namespace cistern {

/// Keeps memory resident until it is destroyed or reset, which must be before the memory goes.
/// Move-only; not thread-safe by itself. It may outlive every stack: it shares in the device.
class Registration {
 public:
  Registration() noexcept = default;
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;
  Registration(Registration&& other) noexcept
      : device_(std::move(other.device_)), parts_(std::exchange(other.parts_, {})) {}
  Registration& operator=(Registration&& other) noexcept {
    if (this != &other) {
      reset();
      device_ = std::move(other.device_);
      parts_ = std::exchange(other.parts_, {});
    }
    return *this;
  }
  ~Registration() { reset(); }

  /// Ends it now. Where the same memory was registered several times, it stays resident until the
  /// last of them ends.
  void reset() noexcept;

  /// Bytes that are registered by this.
  [[nodiscard]] std::size_t bytes() const noexcept;
  [[nodiscard]] bool empty() const noexcept { return parts_.empty(); }

 private:
  friend Expected<Registration> register_parts(Device& device, std::vector<Block> parts) noexcept;

  Ref<Device> device_;
  std::vector<Block> parts_;
};

/// Keeps what was requested of a buffer resident, wherever in the device's stacks it came from. An
/// empty buffer is registered at once, for nothing. Errors: wrong_device, where the buffer is
/// another device's; unsupported, where the device has no residency; and why the device did not
/// take the hint, with nothing registered.
[[nodiscard]] Expected<Registration> register_existing(Device& device,
                                                       const Buffer& buffer) noexcept;

/// The same for all of several buffers, in one commit, or for none.
[[nodiscard]] Expected<Registration> register_existing(Device& device,
                                                       std::span<const Buffer> buffers) noexcept;

/// The same for memory of the program's own: an address, or an object of the device.
[[nodiscard]] Expected<Registration> register_existing(Device& device, void* memory,
                                                       std::size_t bytes) noexcept;

}  // namespace cistern
