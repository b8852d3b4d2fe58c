// Reads what encode.hpp writes. Every record is checked against its checksum before it is looked
// into, so that damage is told apart from a trace that breaks a law.
#include <algorithm>
#include <limits>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "trace/byte_cursor.hpp"
#include "trace/crc32.hpp"
#include "trace/fail.hpp"
#include "trace/layout.hpp"
#include "trace/readers.hpp"

namespace cistern::detail {
namespace {

using Status = tl::expected<void, TraceError>;

class BinaryReader {
 public:
  BinaryReader(std::string_view bytes, const ReadOptions& options)
      : cursor_(bytes), bytes_(bytes), max_items_(options.max_bytes / sizeof(Event)) {}

  ReadResult read() {
    if (auto header = read_header(); !header) return tl::unexpected(std::move(header).error());
    while (!ended_) {
      if (auto record = read_record(); !record) return tl::unexpected(std::move(record).error());
    }
    if (cursor_.remaining() != 0) {
      return fail_at_byte(cursor_.position(),
                          fmt::format("{} bytes follow the end record, where the file should end",
                                      cursor_.remaining()));
    }
    merge_chunks();
    return if_lawful(std::move(trace_));
  }

 private:
  Status read_header() {
    const std::string_view found = bytes_.substr(0, magic.size());
    if (found != magic) {
      return fail_at_byte(
          0,
          fmt::format("begins with {} in place of {}: the file is damaged, perhaps by a transfer "
                      "as text",
                      in_quotes(found), in_quotes(magic)));
    }
    cursor_.take(magic.size());
    const std::uint64_t found_version = cursor_.little_endian<2>();
    if (cursor_.failed())
      return fail_at_byte(magic.size(), "ends within the header, which has 10 bytes");
    if (found_version != version) {
      return fail_at_byte(
          magic.size(),
          fmt::format("is of version {}; this reader knows version {}", found_version, version));
    }
    return {};
  }

  Status read_record() {
    const std::uint64_t start = cursor_.position();
    if (cursor_.remaining() == 0) {
      return fail_at_byte(
          start,
          "ends without an end record: the file was cut short, or its recording never closed");
    }
    const auto kind = static_cast<RecordKind>(cursor_.byte());
    const std::uint64_t length = cursor_.little_endian<4>();
    ByteCursor payload(cursor_.take(length), start + record_head_bytes);
    const std::uint64_t stated = cursor_.little_endian<4>();
    if (cursor_.failed()) {
      return fail_at_byte(
          start,
          fmt::format("a record of {} bytes begins here, but only {} bytes are left",
                      record_head_bytes + length + record_tail_bytes, bytes_.size() - start));
    }
    const auto checked =
        bytes_.substr(static_cast<std::size_t>(start), record_head_bytes + payload.remaining());
    const std::uint32_t computed = crc32(std::as_bytes(std::span(checked)));
    if (stated != computed) {
      return fail_at_byte(
          start,
          fmt::format("the record's checksum is {:08x}, but its contents give {:08x}: the file "
                      "is damaged here",
                      stated, computed));
    }
    switch (kind) {
      case RecordKind::initial:
        return read_initial_blocks(payload);
      case RecordKind::events:
        return read_events(payload);
      case RecordKind::end:
        return read_end(payload);
    }
    return fail_at_byte(
        start, fmt::format("record kind {} is none of those of version {}: 'I', 'E' and 'Z'",
                           static_cast<unsigned>(kind), version));
  }

  Status read_initial_blocks(ByteCursor payload) {
    const std::uint64_t count = payload.varint();
    std::uint64_t previous_id = 0;
    for (std::uint64_t index = 0; index < count && !payload.failed(); ++index) {
      InitialBlock block;
      block.id = previous_id + unzigzag(payload.varint());
      block.bytes = payload.varint();
      block.alignment = read_alignment(payload);
      block.stream = payload.varint();
      previous_id = block.id;
      if (auto added = add(trace_.initial_blocks, block, payload); !added) return added;
    }
    return finish(payload);
  }

  Status read_events(ByteCursor payload) {
    const std::uint64_t count = payload.varint();
    Previous previous;
    for (std::uint64_t index = 0; index < count && !payload.failed(); ++index) {
      const std::uint64_t before = previous.sequence;
      const Event event = read_event(payload, previous);
      if (index > 0 && event.sequence <= before && !payload.failed()) {
        return fail_at_byte(payload.position(),
                            fmt::format("sequence {} does not rise above {}, that of the event "
                                        "before in its chunk",
                                        event.sequence, before));
      }
      if (auto added = add(trace_.events, event, payload); !added) return added;
    }
    return finish(payload);
  }

  Status read_end(ByteCursor payload) {
    const std::uint64_t position = payload.position();
    const std::uint64_t total = payload.varint();
    ended_ = true;
    if (!payload.failed() && total != trace_.events.size()) {
      return fail_at_byte(
          position, fmt::format("the end record counts {} events, but the file holds {}", total,
                                trace_.events.size()));
    }
    return finish(payload);
  }

  Event read_event(ByteCursor& payload, Previous& previous) {
    const std::uint8_t tag = payload.byte();
    const std::uint8_t operation = tag & operation_mask;
    auto& alike = previous.of[operation];
    const auto has = [tag](std::uint8_t bit) { return (tag & bit) != 0; };
    Event event;
    event.operation = static_cast<Operation>(operation + 1);
    event.sequence = previous.sequence + (has(next_sequence) ? 1 : payload.varint());
    event.time_ns = previous.time_ns + unzigzag(payload.varint());
    event.id = previous.allocated_id + (has(next_id) ? 1 : unzigzag(payload.varint()));
    event.bytes = has(same_bytes) ? alike.bytes : payload.varint();
    event.alignment = has(same_alignment) ? alike.alignment : read_alignment(payload);
    event.stream = has(same_stream) ? alike.stream : payload.varint();
    event.thread = has(same_thread) ? previous.thread : read_thread(payload);

    previous.sequence = event.sequence;
    previous.time_ns = event.time_ns;
    previous.thread = event.thread;
    if (event.operation == Operation::allocate) previous.allocated_id = event.id;
    alike = {event.bytes, event.alignment, event.stream};
    return event;
  }

  std::uint64_t read_alignment(ByteCursor& payload) {
    const std::uint8_t width = payload.byte();
    malformed_ |= width > 64;
    return width == 0 || width > 64 ? 0 : std::uint64_t{1} << (width - 1);
  }

  std::uint32_t read_thread(ByteCursor& payload) {
    const std::uint64_t thread = payload.varint();
    malformed_ |= thread > std::numeric_limits<std::uint32_t>::max();
    return static_cast<std::uint32_t>(thread);
  }

  template <typename Item>
  Status add(std::vector<Item>& items, const Item& item, const ByteCursor& payload) {
    if (payload.failed() || malformed_) return finish(payload);
    if (items.size() >= max_items_) {
      return fail_at_byte(payload.position(),
                          "the trace would take more than max_bytes in memory; a higher one would "
                          "admit it");
    }
    items.push_back(item);
    return {};
  }

  /// A record whose checksum is right but whose contents do not decode was not written by a sound
  /// encoder.
  [[nodiscard]] Status finish(const ByteCursor& payload) const {
    if (payload.failed()) {
      return fail_at_byte(payload.position(),
                          "the record ends within an item, or a number in it exceeds 64 bits");
    }
    if (malformed_)
      return fail_at_byte(payload.position(), "an alignment exceeds 64 bits, or a thread 32 bits");
    if (payload.remaining() != 0) {
      return fail_at_byte(
          payload.position(),
          fmt::format("the record holds {} bytes more than its items need", payload.remaining()));
    }
    return {};
  }

  /// Chunks of several threads come in the order in which they were filled; each is in order
  /// itself.
  void merge_chunks() {
    const auto in_order = [](const Event& left, const Event& right) {
      return left.sequence < right.sequence;
    };
    if (!std::is_sorted(trace_.events.begin(), trace_.events.end(), in_order)) {
      std::stable_sort(trace_.events.begin(), trace_.events.end(), in_order);
    }
    trace_.source = "cistern";
  }

  ByteCursor cursor_;
  std::string_view bytes_;
  std::uint64_t max_items_;
  Trace trace_;
  bool ended_ = false;
  bool malformed_ = false;
};

}  // namespace

ReadResult read_binary(std::string_view bytes, const ReadOptions& options) {
  return BinaryReader(bytes, options).read();
}

}  // namespace cistern::detail
