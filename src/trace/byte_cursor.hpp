// Walks through bytes that may end anywhere. A step beyond the end, or a number that is malformed,
// makes the cursor fail and stay failed, giving zeros: a reader takes a whole item and then asks
// once whether that went well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cistern::detail {

class ByteCursor {
 public:
  /// `origin` is the position of the first byte in the file, for positions in errors.
  explicit ByteCursor(std::string_view bytes, std::uint64_t origin = 0)
      : bytes_(bytes), origin_(origin) {}

  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] std::uint64_t position() const { return origin_ + used_; }
  [[nodiscard]] std::size_t remaining() const { return bytes_.size() - used_; }

  std::uint8_t byte() {
    if (remaining() == 0) {
      failed_ = true;
      return 0;
    }
    return static_cast<std::uint8_t>(bytes_[used_++]);
  }

  std::string_view take(std::uint64_t size) {
    if (size > remaining()) {
      failed_ = true;
      used_ = bytes_.size();
      return {};
    }
    const auto taken = bytes_.substr(used_, static_cast<std::size_t>(size));
    used_ += taken.size();
    return taken;
  }

  template <unsigned Width>
  std::uint64_t little_endian() {
    std::uint64_t value = 0;
    for (unsigned index = 0; index < Width; ++index)
      value |= std::uint64_t{byte()} << (8 * index);
    return value;
  }

  /// Seven bits a byte, the low ones first; fails if that makes more than 64 bits.
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const std::uint64_t next = byte();
      const std::uint64_t bits = next & 0x7F;
      if ((bits << shift) >> shift != bits) break;
      value |= bits << shift;
      if (next < 0x80) return value;
    }
    failed_ = true;
    return 0;
  }

 private:
  std::string_view bytes_;
  std::uint64_t origin_;
  std::size_t used_ = 0;
  bool failed_ = false;
};

}  // namespace cistern::detail
