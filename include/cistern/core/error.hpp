// Why a request failed. Inside the library failure is a value, small and copied without allocating,
// because it is made when memory has run out; `OutOfMemory` (core/shortage.hpp) is the exception it
// becomes at the public edge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

namespace cistern {

class Resource;

enum class Errc : std::uint8_t {
  out_of_memory,  // the device has no more
  over_limit,     // a bound of the stack would be exceeded
  too_large,      // the size overflows when rounded, or is beyond what the device can ever give
  bad_alignment,  // not a power of two, or more than the device can give
  invalid_block,  // not a live block of this resource
  cannot_grow,    // the block cannot be made larger where it lies
  wrong_device,   // the memory is another device's
  unsupported,    // the device has no such capability
  wrong_thread,   // the pool is another thread's
  in_capture,     // the stream is captured into a graph, and the device would have to be asked
  device_failed,  // the device failed in another way
};

/// A word or two for `code`, as it stands in messages.
const char* name(Errc code) noexcept;

/// What went wrong, where, and by how much. Trivially copyable.
struct Error {
  Errc code = Errc::out_of_memory;
  const char* stage = "";           // the stage that refused, a literal: "limit", "host", ...
  std::size_t requested = 0;        // bytes asked of that stage
  std::size_t available = 0;        // bytes it could still have given, where it knows; else 0
  const Resource* bound = nullptr;  // whose limit it was; to be compared only, it may be gone
  std::uint64_t from_cycle = 0;     // of a block that a reset ended: the cycle it was granted in
  const char* detail = "";          // what the system called it, a literal: "CL_OUT_OF_RESOURCES"

  /// True where giving memory back may help: the device or a bound was exhausted.
  [[nodiscard]] bool is_exhaustion() const noexcept {
    return code == Errc::out_of_memory || code == Errc::over_limit;
  }

  friend bool operator==(const Error& a, const Error& b) noexcept {
    return a.code == b.code && std::string_view(a.stage) == b.stage && a.requested == b.requested &&
           a.available == b.available && a.bound == b.bound && a.from_cycle == b.from_cycle &&
           std::string_view(a.detail) == b.detail;
  }
};

/// One line for people: "limit refused 2000 bytes: over the limit (500 bytes available)".
std::string describe(const Error& error);

/// The same, written as by snprintf.
int print(char* out, std::size_t size, const Error& error) noexcept;

template <class T>
using Expected = tl::expected<T, Error>;

}  // namespace cistern
