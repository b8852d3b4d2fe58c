// The constants and small codes of the binary trace format that its encoder and its reader must
// agree on.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cistern::detail {

// After PNG's signature: a byte that is no text, then line ends that a transfer in text mode would
// change.
inline constexpr std::string_view magic{
    "\x89"
    "CTR\r\n\x1a\n",
    8};
inline constexpr std::uint16_t version = 1;

enum class RecordKind : std::uint8_t { initial = 'I', events = 'E', end = 'Z' };

inline constexpr std::size_t record_head_bytes = 5;  // kind, payload length
inline constexpr std::size_t record_tail_bytes = 4;  // checksum

// The first byte of an event: two bits of operation, then what need not be written out.
inline constexpr std::uint8_t operation_mask = 0x03;  // Operation less one
inline constexpr std::uint8_t next_sequence = 0x04;   // one above the event before
inline constexpr std::uint8_t next_id = 0x08;         // one above the last allocation's
inline constexpr std::uint8_t same_bytes = 0x10;      // as the last event of the same operation
inline constexpr std::uint8_t same_alignment = 0x20;  // likewise
inline constexpr std::uint8_t same_stream = 0x40;     // likewise
inline constexpr std::uint8_t same_thread = 0x80;     // as the event before

/// What the next event of a chunk is told relative to. Starts afresh in every chunk, so that each
/// can be read alone.
struct Previous {
  struct OfOperation {
    std::uint64_t bytes = 0;
    std::uint64_t alignment = 0;
    std::uint64_t stream = 0;
  };

  std::uint64_t sequence = 0;
  std::uint64_t time_ns = 0;
  std::uint64_t allocated_id = 0;
  std::uint32_t thread = 0;
  std::array<OfOperation, 4> of;
};

/// Maps a difference, taken modulo 2^64, so that small ones of either sign become small numbers.
constexpr std::uint64_t zigzag(std::uint64_t difference) {
  return (difference << 1) ^ (0 - (difference >> 63));
}

constexpr std::uint64_t unzigzag(std::uint64_t code) {
  return (code >> 1) ^ (0 - (code & 1));
}

}  // namespace cistern::detail
