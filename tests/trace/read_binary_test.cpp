// The binary format must hold everything and let no damage pass.
#include <array>
#include <bit>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/trace/check.hpp"
#include "trace/crc32.hpp"
#include "trace/samples.hpp"

namespace cistern {
namespace {

using samples::encoded;
using samples::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string file_header = encoded({}).substr(0, 10);
const std::string end_of_empty = encoded({}).substr(10);

/// A record with a true checksum around any payload.
std::string record(char kind, std::string_view payload) {
  std::string bytes(1, kind);
  const auto append = [&bytes](std::uint64_t value) {
    for (int byte = 0; byte < 4; ++byte)
      bytes += static_cast<char>(value >> (8 * byte));
  };
  append(payload.size());
  bytes += payload;
  append(detail::crc32(std::as_bytes(std::span(bytes))));
  return bytes;
}

TEST(ReadBinary, GivesBackWhatWasWritten) {
  const auto trace = samples::read(encoded(samples::small_trace()));
  ASSERT_TRUE(trace) << trace.error().text();
  samples::expect_same(*trace, samples::small_trace());
  EXPECT_EQ(trace->name, "sample");
  EXPECT_EQ(trace->source, "cistern");
}

TEST(ReadBinary, GivesBackRandomTraces) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  samples::Random random(seed);
  for (int round = 0; round < 300; ++round) {
    const Trace trace = samples::random_trace(random, 1 + random.below(200));
    ASSERT_TRUE(check_trace(trace)) << check_trace(trace).error().text();
    const auto read = samples::read(encoded(trace));
    ASSERT_TRUE(read) << read.error().text();
    samples::expect_same(*read, trace);
  }
}

TEST(ReadBinary, GivesBackExtremes) {
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  constexpr std::uint64_t high = std::uint64_t{1} << 63;
  Trace trace;
  trace.initial_blocks = {{most, 0, high, most}};
  trace.events = {
      {0, most, 0, most, high, most, std::numeric_limits<std::uint32_t>::max(),
       Operation::allocate},
      {most - 1, 0, 0, most, 1, 0, 0, Operation::free},
      {most, high, high, most, 0, 0, 0, Operation::allocate},
  };
  const auto read = samples::read(encoded(trace));
  ASSERT_TRUE(read) << read.error().text();
  samples::expect_same(*read, trace);
}

// Threads hand in their chunks when they are full, whatever the others do meanwhile.
TEST(ReadBinary, MergesInterleavedChunks) {
  samples::Random random(testing::seed_or(1));
  const Trace trace = samples::random_trace(random, 1000);
  std::array<std::vector<Event>, 3> of_threads;
  std::vector<std::byte> bytes;
  append_file_header(bytes);
  for (const Event& event : trace.events) {
    auto& buffer = of_threads[random.below(3)];
    buffer.push_back(event);
    if (buffer.size() == 50) {
      append_chunk(buffer, bytes);
      buffer.clear();
    }
  }
  for (const auto& buffer : of_threads)
    append_chunk(buffer, bytes);
  append_initial_blocks(trace.initial_blocks, bytes);  // may stand anywhere
  append_end(trace.events.size(), bytes);
  const auto read = samples::read(samples::to_string(bytes));
  ASSERT_TRUE(read) << read.error().text();
  samples::expect_same(*read, trace);
}

TEST(ReadBinary, SeesEveryTruncation) {
  const std::string whole = encoded(samples::small_trace());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(samples::read(whole.substr(0, size))) << "cut to " << size << " bytes";
  }
}

TEST(ReadBinary, SeesEveryFlippedBit) {
  const std::string whole = encoded(samples::small_trace());
  for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] =
        static_cast<char>(static_cast<unsigned char>(damaged[bit / 8]) ^ (1U << (bit % 8)));
    EXPECT_FALSE(samples::read(damaged)) << "bit " << bit;
  }
}

TEST(ReadBinary, SeesAMissingChunk) {
  const Trace trace = samples::small_trace();
  std::vector<std::byte> bytes;
  append_file_header(bytes);
  append_end(trace.events.size(), bytes);
  EXPECT_EQ(error_of(samples::to_string(bytes)),
            "sample: byte 15: the end record counts 7 events, but the file holds 0");
}

TEST(ReadBinary, ExplainsDamage) {
  const std::string whole = encoded(samples::small_trace());
  std::string as_text = whole;
  as_text.erase(4, 1);  // what a transfer as text makes of "\r\n"
  EXPECT_THAT(error_of(as_text),
              AllOf(HasSubstr("byte 0: begins with"), HasSubstr("transfer as text")));

  std::string newer = whole;
  newer[8] = 2;
  EXPECT_EQ(error_of(newer), "sample: byte 8: is of version 2; this reader knows version 1");

  EXPECT_EQ(error_of(file_header),
            "sample: byte 10: ends without an end record: the file was cut short, or its recording "
            "never closed");
  EXPECT_EQ(error_of(whole.substr(0, 20)),
            "sample: byte 10: a record of 19 bytes begins here, but only 10 bytes are left");
  EXPECT_EQ(error_of(whole + "xyz"),
            "sample: byte " + std::to_string(whole.size()) +
                ": 3 bytes follow the end record, where the file should end");

  std::string damaged = whole;
  damaged[16] ^= 1;
  EXPECT_THAT(error_of(damaged),
              AllOf(HasSubstr("byte 10: the record's checksum is"), HasSubstr("damaged here")));
}

// A checksum is no signature: records that hold nonsense under a true one are refused too.
TEST(ReadBinary, RefusesNonsenseUnderTrueChecksums) {
  const auto error = [](char kind, std::string_view payload) {
    return error_of(file_header + record(kind, payload));
  };
  EXPECT_THAT(error('X', ""), HasSubstr("byte 10: record kind 88 is none of those of version 1"));
  EXPECT_THAT(error('E', ""), HasSubstr("ends within an item"));
  EXPECT_THAT(error('E', "\x02\xfc"), HasSubstr("ends within an item"));
  EXPECT_THAT(error('E', std::string_view("\x00zz", 3)),
              HasSubstr("holds 2 bytes more than its items need"));
  EXPECT_THAT(error('E', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
              HasSubstr("ends within an item"));
  // A sequence of more than 64 bits, by its tenth byte or by an eleventh; the rest of the event is
  // there.
  for (const char* const sequence : {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
                                     "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81\x01"}) {
    EXPECT_THAT(error('E', "\x01\xf8" + std::string(sequence) + '\0'),
                HasSubstr("exceeds 64 bits"));
  }
  EXPECT_THAT(error('E', "\x01\xf8\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + std::string(1, '\0')),
              HasSubstr("ends without an end record"));
  EXPECT_THAT(error('I', std::string_view("\x01\x00\x00\x42\x00", 5)),
              HasSubstr("an alignment exceeds 64 bits"));
  EXPECT_THAT(error('E', std::string_view("\x01\x70\x00\x00\x00\xff\xff\xff\xff\x10", 10)),
              HasSubstr("or a thread 32 bits"));
  // The second event has the sequence of the first.
  EXPECT_THAT(error('E', std::string_view("\x02\xfc\x00\xf0\x00\x00\x04", 7)),
              HasSubstr("sequence 1 does not rise"));
  EXPECT_THAT(error('Z', "\x80"), HasSubstr("ends within an item"));
  EXPECT_EQ(error_of(file_header + end_of_empty), "");
}

TEST(ReadBinary, RefusesUnlawfulTraces) {
  Trace trace = samples::small_trace();
  trace.events[4].id = 99;
  EXPECT_EQ(error_of(encoded(trace)), "sample: event 4: frees block 99, which was never allocated");
  trace = samples::small_trace();
  trace.initial_blocks[1].id = 7;
  EXPECT_EQ(error_of(encoded(trace)),
            "sample: initial block 1: id 7 was used before: each block has an id of its own");

  // Chunks that are sound each, but not together.
  const auto events = samples::small_trace().events;
  std::vector<std::byte> bytes;
  append_file_header(bytes);
  append_chunk(std::span(events).first(1), bytes);
  append_chunk(std::span(events).first(1), bytes);
  append_end(2, bytes);
  EXPECT_THAT(error_of(samples::to_string(bytes)),
              HasSubstr("event 1: sequence 10 does not rise above 10"));
}

TEST(ReadBinary, BoundsTheMemoryOfATrace) {
  samples::Random random(testing::seed_or(1));
  const std::string bytes = encoded(samples::random_trace(random, 1000));
  ReadOptions options;
  options.max_bytes = 900 * sizeof(Event);
  EXPECT_THAT(error_of(bytes, options), HasSubstr("would take more than max_bytes in memory"));
  options.max_bytes = 1000 * sizeof(Event);
  EXPECT_EQ(error_of(bytes, options), "");
}

}  // namespace
}  // namespace cistern
