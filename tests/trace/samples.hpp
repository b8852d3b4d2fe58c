// What the tests of the trace formats share: traces to try things on, and pickles built by hand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/trace/encode.hpp"
#include "cistern/trace/event.hpp"
#include "cistern/trace/read.hpp"
#include "support/seed.hpp"

namespace cistern::samples {

using testing::Random;

inline std::uint64_t any_bits(Random& random) {
  constexpr std::uint64_t half = std::uint64_t{1} << 32;
  return random.below(half) * half + random.below(half);
}

/// A number of any width, so that short and long codes are equally likely.
inline std::uint64_t any_width(Random& random) {
  return any_bits(random) >> random.below(64);
}

inline std::uint64_t any_alignment(Random& random) {
  return random.below(2) == 0 ? 0 : std::uint64_t{1} << random.below(64);
}

/// A lawful trace with values of all widths in every field, resets and cycles among them.
inline Trace random_trace(Random& random, std::size_t events) {
  struct Live {
    std::uint64_t id;
    std::uint64_t bytes;
  };
  Trace trace;
  std::vector<Live> live;
  std::uint64_t live_bytes = 0;
  std::uint64_t id = any_bits(random) / 2;
  const auto new_block = [&] {
    const std::uint64_t room = std::numeric_limits<std::uint64_t>::max() - live_bytes;
    live.push_back({id += random.below(10) == 0 ? 1000U : 1U, std::min(any_width(random), room)});
    live_bytes += live.back().bytes;
    return live.back();
  };
  for (std::uint64_t count = random.below(5); count > 0; --count) {
    const Live block = new_block();
    trace.initial_blocks.push_back(
        {block.id, block.bytes, any_alignment(random), any_width(random)});
  }
  Event event;
  event.sequence = any_width(random) / 2;
  while (trace.events.size() < events) {
    event.time_ns =
        random.below(21) == 0 ? any_bits(random) : event.time_ns + any_width(random) / 4;
    event.stream = random.below(4) == 0 ? any_width(random) : event.stream;
    event.thread =
        random.below(4) == 0 ? static_cast<std::uint32_t>(any_width(random)) : event.thread;
    event.alignment = random.below(4) == 0 ? any_alignment(random) : event.alignment;
    const std::uint64_t choice = random.below(100);
    if (choice == 0) {
      event.operation = Operation::reset;
      live.clear();
      live_bytes = 0;
    } else if (choice == 1) {
      event.operation = Operation::cycle;
      event.id = any_width(random);
    } else if (choice < 50 && !live.empty()) {
      event.operation = Operation::free;
      std::swap(live[random.below(live.size())], live.back());
      event.id = live.back().id;
      event.bytes = live.back().bytes;
      live_bytes -= event.bytes;
      live.pop_back();
    } else {
      event.operation = Operation::allocate;
      const Live block = new_block();
      event.id = block.id;
      event.bytes = block.bytes;
    }
    trace.events.push_back(event);
    event.sequence += random.below(10) == 0 ? 1 + any_width(random) / 1024 / events : 1;
  }
  return trace;
}

/// A small trace with one of everything.
inline Trace small_trace() {
  Trace trace;
  trace.initial_blocks = {{7, 4096, 256, 0}, {9, 100, 0, 3}};
  trace.events = {
      {10, 1000, 20, 512, 64, 0, 0, Operation::allocate},
      {11, 1500, 21, 1U << 20, 64, 3, 1, Operation::allocate},
      {12, 1400, 7, 4096, 0, 0, 1, Operation::free},
      {20, 2000, 1, 0, 0, 0, 0, Operation::cycle},
      {21, 2100, 20, 512, 0, 0, 0, Operation::free},
      {22, 2200, 0, 0, 0, 0, 0, Operation::reset},
      {23, 2300, 22, 0, 0, 0, 0, Operation::allocate},
  };
  return trace;
}

inline std::string to_string(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::string encoded(const Trace& trace) {
  std::vector<std::byte> bytes;
  append_file_header(bytes);
  append_initial_blocks(trace.initial_blocks, bytes);
  append_chunk(trace.events, bytes);
  append_end(trace.events.size(), bytes);
  return to_string(bytes);
}

inline tl::expected<Trace, TraceError> read(std::string_view bytes,
                                            const ReadOptions& options = {}) {
  return read_trace_from_memory(bytes, "sample", options);
}

/// What reading `bytes` gives, which is no error.
inline Trace read_well(std::string_view bytes, const ReadOptions& options = {}) {
  const auto trace = read(bytes, options);
  EXPECT_TRUE(trace) << trace.error().text();
  return trace.value_or(Trace());
}

/// The text of the error that reading `bytes` gives; empty if it gives none.
inline std::string error_of(std::string_view bytes, const ReadOptions& options = {}) {
  const auto trace = read(bytes, options);
  return trace ? "" : trace.error().text();
}

inline void expect_same(const Trace& found, const Trace& expected) {
  EXPECT_EQ(found.initial_blocks, expected.initial_blocks);
  ASSERT_EQ(found.events.size(), expected.events.size());
  for (std::size_t index = 0; index < found.events.size(); ++index) {
    ASSERT_EQ(found.events[index], expected.events[index]) << "at event " << index;
  }
}

/// Writes pickles the way Python's pickler does, less the memo.
class Pickle {
 public:
  static std::string number(std::uint64_t value) {
    if (value < 0x80) return std::string("K") + static_cast<char>(value);
    std::string bytes;
    for (int byte = 0; byte < 8; ++byte)
      bytes += static_cast<char>(value >> (8 * byte));
    return std::string("\x8a\x09", 2) + bytes + '\0';  // nine bytes, as the ninth holds the sign
  }

  static std::string text(std::string_view value) {
    return std::string("\x8c") + static_cast<char>(value.size()) + std::string(value);
  }

  static std::string list(const std::vector<std::string>& items) {
    std::string result = "](";
    for (const std::string& item : items)
      result += item;
    return result + "e";
  }

  struct Field {
    std::string_view key;
    std::string value;
  };

  static std::string dictionary(const std::vector<Field>& fields) {
    std::string result = "}(";
    for (const Field& field : fields)
      result += text(field.key) + field.value;
    return result + "u";
  }

  static std::string file(const std::string& value) {
    return std::string("\x80\x04", 2) + value + ".";
  }
};

}  // namespace cistern::samples
