#include "cistern/trace/encode.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "trace/crc32.hpp"
#include "trace/layout.hpp"

namespace cistern {
namespace {

using detail::Previous;
using detail::RecordKind;

using Bytes = std::vector<std::byte>;

// Keeps the 32-bit length of a record far from its end, and a damaged record from costing the
// reader much.
constexpr std::size_t items_per_record = 1U << 16;

template <std::size_t Width>
void append_little_endian(std::uint64_t value, Bytes& out) {
  for (std::size_t byte = 0; byte < Width; ++byte)
    out.push_back(static_cast<std::byte>(value >> (8 * byte)));
}

/// Gathers the few bytes of one item before they are appended at once.
class Scratch {
 public:
  void byte(std::uint8_t value) { bytes_[used_++] = std::byte{value}; }

  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7)
      byte(static_cast<std::uint8_t>(value | 0x80));
    byte(static_cast<std::uint8_t>(value));
  }

  void alignment(std::uint64_t value) { byte(static_cast<std::uint8_t>(std::bit_width(value))); }

  void append_to(Bytes& out) const {
    out.insert(out.end(), bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(used_));
  }

 private:
  std::array<std::byte, 64> bytes_{};
  std::size_t used_ = 0;
};

/// Appends one record around the payload that `append_payload` appends.
template <typename AppendPayload>
void append_record(RecordKind kind, Bytes& out, AppendPayload append_payload) {
  const std::size_t start = out.size();
  out.push_back(static_cast<std::byte>(kind));
  append_little_endian<4>(0, out);
  append_payload();
  const std::size_t payload = out.size() - start - detail::record_head_bytes;
  for (std::size_t byte = 0; byte < 4; ++byte)
    out[start + 1 + byte] = static_cast<std::byte>(payload >> (8 * byte));
  append_little_endian<4>(detail::crc32(std::span(out).subspan(start)), out);
}

void append_varint(std::uint64_t value, Bytes& out) {
  Scratch scratch;
  scratch.varint(value);
  scratch.append_to(out);
}

void append_event(const Event& event, Previous& previous, Bytes& out) {
  const auto operation = static_cast<std::uint8_t>((static_cast<unsigned>(event.operation) - 1U) &
                                                   detail::operation_mask);
  auto& alike = previous.of[operation];
  const auto flag = [](bool set, std::uint8_t bit) { return set ? bit : std::uint8_t{0}; };
  const auto tag = static_cast<std::uint8_t>(
      operation |                                                             //
      flag(event.sequence == previous.sequence + 1, detail::next_sequence) |  //
      flag(event.id == previous.allocated_id + 1, detail::next_id) |          //
      flag(event.bytes == alike.bytes, detail::same_bytes) |                  //
      flag(event.alignment == alike.alignment, detail::same_alignment) |      //
      flag(event.stream == alike.stream, detail::same_stream) |               //
      flag(event.thread == previous.thread, detail::same_thread));

  Scratch scratch;
  scratch.byte(tag);
  if ((tag & detail::next_sequence) == 0) scratch.varint(event.sequence - previous.sequence);
  scratch.varint(detail::zigzag(event.time_ns - previous.time_ns));
  if ((tag & detail::next_id) == 0)
    scratch.varint(detail::zigzag(event.id - previous.allocated_id));
  if ((tag & detail::same_bytes) == 0) scratch.varint(event.bytes);
  if ((tag & detail::same_alignment) == 0) scratch.alignment(event.alignment);
  if ((tag & detail::same_stream) == 0) scratch.varint(event.stream);
  if ((tag & detail::same_thread) == 0) scratch.varint(event.thread);
  scratch.append_to(out);

  previous.sequence = event.sequence;
  previous.time_ns = event.time_ns;
  previous.thread = event.thread;
  if (event.operation == Operation::allocate) previous.allocated_id = event.id;
  alike = {event.bytes, event.alignment, event.stream};
}

}  // namespace

void append_file_header(Bytes& out) {
  for (const char character : detail::magic)
    out.push_back(static_cast<std::byte>(character));
  append_little_endian<2>(detail::version, out);
}

void append_initial_blocks(std::span<const InitialBlock> blocks, Bytes& out) {
  for (; !blocks.empty(); blocks = blocks.subspan(std::min(blocks.size(), items_per_record))) {
    const auto run = blocks.first(std::min(blocks.size(), items_per_record));
    append_record(RecordKind::initial, out, [&] {
      append_varint(run.size(), out);
      std::uint64_t previous_id = 0;
      for (const InitialBlock& block : run) {
        Scratch scratch;
        scratch.varint(detail::zigzag(block.id - previous_id));
        scratch.varint(block.bytes);
        scratch.alignment(block.alignment);
        scratch.varint(block.stream);
        scratch.append_to(out);
        previous_id = block.id;
      }
    });
  }
}

void append_chunk(std::span<const Event> events, Bytes& out) {
  for (; !events.empty(); events = events.subspan(std::min(events.size(), items_per_record))) {
    const auto run = events.first(std::min(events.size(), items_per_record));
    append_record(RecordKind::events, out, [&] {
      append_varint(run.size(), out);
      Previous previous;
      for (const Event& event : run)
        append_event(event, previous, out);
    });
  }
}

void append_end(std::uint64_t total_events, Bytes& out) {
  append_record(RecordKind::end, out, [&] { append_varint(total_events, out); });
}

}  // namespace cistern
