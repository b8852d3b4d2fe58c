#include "cistern/core/error.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

namespace cistern {

int print(char* out, std::size_t size, const Error& error) noexcept {
  if (error.from_cycle != 0) {
    return std::snprintf(out, size, "%s refused: a block of cycle %llu, which a reset has ended",
                         error.stage, static_cast<unsigned long long>(error.from_cycle));
  }
  const bool has_detail = *error.detail != '\0';
  const char* const opening = has_detail ? " (" : "";
  const char* const closing = has_detail ? ")" : "";
  const bool is_about_size = error.code != Errc::bad_alignment &&
                             error.code != Errc::invalid_block &&
                             error.code != Errc::wrong_device && error.code != Errc::unsupported;
  if (!is_about_size) {
    return std::snprintf(out, size, "%s refused: %s%s%s%s", error.stage, name(error.code), opening,
                         error.detail, closing);
  }
  if (error.available > 0) {
    return std::snprintf(out, size, "%s refused %zu bytes: %s (%zu bytes available)", error.stage,
                         error.requested, name(error.code), error.available);
  }
  return std::snprintf(out, size, "%s refused %zu bytes: %s%s%s%s", error.stage, error.requested,
                       name(error.code), opening, error.detail, closing);
}

const char* name(Errc code) noexcept {
  switch (code) {
    case Errc::out_of_memory:
      return "out of memory";
    case Errc::over_limit:
      return "over the limit";
    case Errc::too_large:
      return "larger than the device can ever give";
    case Errc::bad_alignment:
      return "the alignment is not a power of two that the device can give";
    case Errc::invalid_block:
      return "not a live block of this resource";
    case Errc::cannot_grow:
      return "the block cannot be made larger where it lies";
    case Errc::wrong_device:
      return "the memory is another device's";
    case Errc::unsupported:
      return "the device has no such capability";
    case Errc::wrong_thread:
      return "only its owner thread may ask it";
    case Errc::in_capture:
      return "the device cannot be asked while the stream is captured into a graph";
    case Errc::device_failed:
      return "the device failed";
  }
  return "unknown failure";
}

std::string describe(const Error& error) {
  std::array<char, 256> text{};
  const int length = print(text.data(), text.size(), error);
  return {text.data(), std::min(text.size() - 1, static_cast<std::size_t>(std::max(length, 0)))};
}

}  // namespace cistern
