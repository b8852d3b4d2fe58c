// The CRC-32 of gzip and PNG, written here because the encoder may use the standard library only.
// The table method and the polynomial are those of RFC 1952, section 8.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace cistern::detail {

inline constexpr auto crc32_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t index = 0; index < table.size(); ++index) {
    std::uint32_t value = index;
    for (int bit = 0; bit < 8; ++bit)
      value = (value >> 1) ^ ((value & 1) != 0 ? 0xEDB88320U : 0U);
    table[index] = value;
  }
  return table;
}();

constexpr std::uint32_t crc32(std::span<const std::byte> bytes) {
  std::uint32_t value = 0xFFFFFFFFU;
  for (const std::byte byte : bytes) {
    value = crc32_table[(value ^ std::to_integer<std::uint32_t>(byte)) & 0xFFU] ^ (value >> 8);
  }
  return ~value;
}

}  // namespace cistern::detail
