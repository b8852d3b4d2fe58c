#include "cistern/core/registration.hpp"

#include <new>

#include "cistern/core/residency.hpp"
#include "core/failure.hpp"

namespace cistern {

void Registration::reset() noexcept {
  if (!device_) return;
  device_->residency()->end_residency(parts_);
  parts_.clear();
  device_ = {};
}

std::size_t Registration::bytes() const noexcept {
  std::size_t bytes = 0;
  for (const Block& part : parts_)
    bytes += part.bytes;
  return bytes;
}

Expected<Registration> register_parts(Device& device, std::vector<Block> parts) noexcept {
  std::erase_if(parts, [](const Block& part) { return part.bytes == 0; });
  Registration registration;
  if (parts.empty()) return registration;
  Residency* const residency = device.residency();
  if (residency == nullptr)
    return tl::unexpected(failure(device.limits().kind, Errc::unsupported, 0));
  Ref<Device> shared = Ref<Device>::if_owned(&device);
  if (!shared)
    return tl::unexpected(failure(device.limits().kind, Errc::unsupported, 0));  // it is closed
  if (Expected<void> made = residency->make_resident(parts); !made)
    return tl::unexpected(made.error());
  registration.device_ = std::move(shared);
  registration.parts_ = std::move(parts);
  return registration;
}

Expected<Registration> register_existing(Device& device, const Buffer& buffer) noexcept {
  return register_existing(device, std::span(&buffer, 1));
}

// As many bytes of a buffer as were requested: what the device rounds is not the program's.
Expected<Registration> register_existing(Device& device, std::span<const Buffer> buffers) noexcept {
  try {
    std::vector<Block> parts;
    parts.reserve(buffers.size());
    for (const Buffer& buffer : buffers) {
      if (buffer.empty()) continue;
      if (&buffer.resource()->device() != &device)
        return tl::unexpected(failure(device.limits().kind, Errc::wrong_device, buffer.bytes()));
      parts.push_back({.memory = buffer.block().memory,
                       .offset = buffer.block().offset,
                       .bytes = buffer.bytes()});
    }
    return register_parts(device, std::move(parts));
  } catch (const std::bad_alloc&) {
    return tl::unexpected(failure(device.limits().kind, Errc::out_of_memory, 0));
  }
}

Expected<Registration> register_existing(Device& device, void* memory, std::size_t bytes) noexcept {
  try {
    return register_parts(device, {Block{.memory = memory, .bytes = bytes}});
  } catch (const std::bad_alloc&) {
    return tl::unexpected(failure(device.limits().kind, Errc::out_of_memory, 0));
  }
}

}  // namespace cistern
