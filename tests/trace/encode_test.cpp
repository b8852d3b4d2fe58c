#include "cistern/trace/encode.hpp"

#include <array>

#include <gtest/gtest.h>
#include <zlib.h>

#include "trace/crc32.hpp"
#include "trace/layout.hpp"
#include "trace/samples.hpp"

namespace cistern {
namespace {

std::vector<std::byte> raw_bytes(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values)
    bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

// The format is a promise to files that were written long ago: these bytes may never change.
TEST(Encode, WritesTheBytesOfTheDocument) {
  std::vector<std::byte> bytes;
  append_file_header(bytes);
  EXPECT_EQ(bytes, raw_bytes({0x89, 'C', 'T', 'R', '\r', '\n', 0x1a, '\n', 1, 0}));

  bytes.clear();
  append_initial_blocks(std::array{InitialBlock{3, 300, 256, 0}, InitialBlock{2, 1, 0, 5}}, bytes);
  EXPECT_EQ(bytes, raw_bytes({'I', 10, 0, 0, 0,     //
                              2,                    //
                              6, 0xac, 0x02, 9, 0,  //
                              1, 1, 0, 5,           //
                              0x26, 0x57, 0xe4, 0x4a}));

  bytes.clear();
  append_chunk(std::array{Event{5, 10, 1, 64, 8, 2, 1, Operation::allocate},
                          Event{6, 9, 2, 64, 8, 2, 1, Operation::allocate},
                          Event{7, 9, 1, 64, 0, 2, 1, Operation::free}},
               bytes);
  EXPECT_EQ(bytes, raw_bytes({'E',  15,   0,    0,   0,        //
                              3,                               //
                              0x08, 5,    20,   64,  4, 2, 1,  //
                              0xfc, 1,                         //
                              0xa5, 0,    1,    64,  2,        //
                              0xe8, 0x2a, 0x22, 0x90}));

  bytes.clear();
  append_end(300, bytes);
  EXPECT_EQ(bytes, raw_bytes({'Z', 2, 0, 0, 0, 0xac, 0x02, 0x45, 0x5a, 0xbd, 0xbb}));
}

// The example in docs/trace-format.md.
TEST(Encode, WritesTheExampleOfTheDocument) {
  std::vector<std::byte> bytes;
  append_chunk(std::array{Event{0, 5, 1, 300, 256, 0, 0, Operation::allocate}}, bytes);
  append_end(1, bytes);
  EXPECT_EQ(bytes,
            raw_bytes({0x45, 7,    0,    0,    0, 1, 0xc8, 0, 0x0a, 0xac, 0x02, 0x09, 0x27,
                       0x1a, 0xd7, 0x55, 0x5a, 1, 0, 0,    0, 1,    0x14, 0x93, 0xb0, 0x56}));
}

TEST(Encode, WritesNothingForNothing) {
  std::vector<std::byte> bytes;
  append_initial_blocks({}, bytes);
  append_chunk({}, bytes);
  EXPECT_TRUE(bytes.empty());
}

TEST(Encode, SpendsFewBytesOnCommonEvents) {
  std::vector<Event> events;
  for (std::uint64_t index = 0; index < 10'000; ++index) {
    events.push_back(
        {2 * index, 3000 * index, index, 4096 + index, 256, 0, 0, Operation::allocate});
    events.push_back(
        {2 * index + 1, 3000 * index + 800, index, 4096 + index, 0, 0, 0, Operation::free});
  }
  std::vector<std::byte> bytes;
  append_chunk(events, bytes);
  EXPECT_LT(bytes.size(), 7 * events.size());
}

// An event of the greatest length still fits the scratch space of the encoder.
TEST(Encode, TakesTheMostAnEventCanTake) {
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  const Event event{most - 1,
                    most / 2 + 1,
                    most / 2 + 1,
                    most,
                    std::uint64_t{1} << 63,
                    most,
                    std::numeric_limits<std::uint32_t>::max(),
                    Operation::allocate};
  std::vector<std::byte> bytes;
  append_chunk(std::array{event}, bytes);
  EXPECT_EQ(bytes.size(), detail::record_head_bytes + 1 + 57 + detail::record_tail_bytes);
}

TEST(Encode, SplitsLongRuns) {
  samples::Random random(1);
  const Trace trace = samples::random_trace(random, 200'000);
  const auto read = samples::read(samples::encoded(trace));
  ASSERT_TRUE(read) << read.error().text();
  samples::expect_same(*read, trace);

  Trace blocks;
  for (std::uint64_t id = 0; id < 100'000; ++id)
    blocks.initial_blocks.push_back({id, 1, 0, 0});
  EXPECT_EQ(samples::read(samples::encoded(blocks))->initial_blocks, blocks.initial_blocks);
}

TEST(Crc32, IsThatOfZlib) {
  const std::string text = "a crc for every length";
  for (std::size_t length = 0; length <= text.size(); ++length) {
    const auto expected =
        ::crc32(0, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(length));
    EXPECT_EQ(detail::crc32(std::as_bytes(std::span(text).first(length))), expected);
  }
}

TEST(Layout, ZigzagKeepsEveryDifference) {
  EXPECT_EQ(detail::zigzag(1), 2U);
  EXPECT_EQ(detail::zigzag(std::uint64_t{0} - 1), 1U);
  for (const std::uint64_t value :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    EXPECT_EQ(detail::unzigzag(detail::zigzag(value)), value);
  }
}

}  // namespace
}  // namespace cistern
