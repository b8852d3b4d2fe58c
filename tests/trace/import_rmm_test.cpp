#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/trace/check.hpp"
#include "trace/samples.hpp"

namespace cistern {
namespace {

using samples::error_of;
using ::testing::HasSubstr;

const std::string log_header = "Thread,Time,Action,Pointer,Size,Stream\n";

Trace read_log(const std::string& lines) {
  return samples::read_well(log_header + lines);
}

TEST(ImportRmm, ReadsALog) {
  const Trace trace = read_log(
      "500,10:00:00.000001,allocate,0x7f00,1024,0x0\r\n"
      "501,10:00:00.000002,allocate,7F80,2048,0x5a\r\n"
      "501,10:00:00.000003,allocate failure,(nil),4096,(nil)\r\n"
      "\n"
      "500,10:00:00.000004,free,0x7f00,1024,5a\n"
      " 500 , 10:00:01:5 , allocate , 0x7f00 , 16 , 0x1\n"
      "500,10:00:02.000000,free,0x9999,64,0\n"
      "500,10:00:03.000000,allocate,(nil),0,0\n"
      "500,10:00:03.000000,free,0x0,0,0");
  constexpr std::uint64_t start = std::uint64_t{36'000} * 1'000'000'000;
  EXPECT_EQ(trace.initial_blocks, (std::vector<InitialBlock>{{3, 64, 0, 0}}));
  EXPECT_EQ(trace.events, (std::vector<Event>{
                              {0, start + 1000, 0, 1024, 0, 0, 0, Operation::allocate},
                              {1, start + 2000, 1, 2048, 0, 1, 1, Operation::allocate},
                              {2, start + 4000, 0, 1024, 0, 1, 0, Operation::free},
                              {3, start + 1'500'000'000, 2, 16, 0, 2, 0, Operation::allocate},
                              {4, start + 2'000'000'000, 3, 64, 0, 0, 0, Operation::free},
                          }));
  EXPECT_EQ(read_log("").events.size(), 0U);
}

TEST(ImportRmm, KeepsTimeRising) {
  const Trace trace = read_log(
      "1,23:59:59.900000,allocate,0x1,1,0\n"
      "1,23:59:59.800000,allocate,0x2,1,0\n"  // taken before, logged after
      "1,00:00:00.100000,allocate,0x3,1,0\n"  // the next day
      "1,23:59:59.950000,allocate,0x4,1,0\n"  // taken before midnight, logged after
      "1,00:00:00.200000,allocate,0x5,1,0\n"
      "1,22:00:00.000000,allocate,0x6,1,0\n"    // a long pause
      "1,01:00:00.000000,allocate,0x7,1,0\n");  // the day after
  std::vector<std::uint64_t> milliseconds;
  for (const Event& event : trace.events)
    milliseconds.push_back(event.time_ns / 1'000'000);
  constexpr std::uint64_t day = 86'400'000;
  EXPECT_EQ(milliseconds,
            (std::vector<std::uint64_t>{day - 100, day - 100, day + 100, day + 100, day + 200,
                                        day + 22 * 3'600'000, 2 * day + 3'600'000}));
}

TEST(ImportRmm, NamesTheLineOfWhatIsWrong) {
  const auto error = [](std::string_view line) {
    return error_of(log_header + "\n" + std::string(line));
  };
  EXPECT_EQ(error_of("Thread,Time\n"),
            "sample: line 1: is \"Thread,Time\"; \"Thread,Time,Action,Pointer,Size,Stream\" "
            "is expected");
  EXPECT_EQ(
      error("1,10:00:00.0,allocate,0x1,1"),
      "sample: line 3: has 5 fields; there should be 6: Thread,Time,Action,Pointer,Size,Stream");
  EXPECT_THAT(error("1,10:00:00.0,allocate,0x1,1,0,9"), HasSubstr("has 7 fields"));
  EXPECT_EQ(error("x,10:00:00.0,allocate,0x1,1,0"),
            "sample: line 3: has \"x\" as its thread; a decimal number is expected");
  for (const char* time :
       {"", "10:00:00", "24:00:00.0", "10:60:00.0", "10:00:61.0", "1:00:00.0", "10-00:00.0",
        "10:00:00.x", "10:00:00.", "10:00:00.1234567890", "10:00:00,5"}) {
    EXPECT_THAT(error("1," + std::string(time) + ",allocate,0x1,1,0"), HasSubstr("line 3: has "))
        << time;
  }
  EXPECT_THAT(error("1,10:00:00.0,realloc,0x1,1,0"),
              HasSubstr("has \"realloc\" as its action; allocate, allocate"));
  EXPECT_THAT(error("1,10:00:00.0,allocate,0xg,1,0"),
              HasSubstr("has \"0xg\" as its pointer; a hexadecimal number"));
  EXPECT_THAT(error("1,10:00:00.0,allocate,0x,1,0"), HasSubstr("as its pointer"));
  EXPECT_THAT(error("1,10:00:00.0,allocate,0x10000000000000000,1,0"), HasSubstr("as its pointer"));
  EXPECT_THAT(error("1,10:00:00.0,allocate,0x1,-1,0"),
              HasSubstr("has \"-1\" as its size; a decimal number"));
  EXPECT_THAT(error("1,10:00:00.0,allocate,0x1,1,"), HasSubstr("has \"\" as its stream"));
}

TEST(ImportRmm, RefusesContradictions) {
  const std::string allocate = "1,10:00:00.0,allocate,0xAB,8,0\n";
  const std::string free = "1,10:00:00.0,free,0xab,8,0\n";
  EXPECT_EQ(error_of(log_header + allocate + allocate),
            "sample: line 3: allocates pointer 0xab, which is live since line 2");
  EXPECT_EQ(error_of(log_header + allocate + free + free),
            "sample: line 4: frees pointer 0xab, which was freed before and not allocated since");
  EXPECT_EQ(error_of(log_header + free + free),
            "sample: line 3: frees pointer 0xab, which was freed before and not allocated since");
  EXPECT_EQ(error_of(log_header + allocate + "1,10:00:00.0,free,0xab,9,0\n"),
            "sample: line 3: frees 9 bytes at pointer 0xab, where line 2 allocates 8");
  EXPECT_EQ(error_of(log_header + free + allocate + free + allocate), "");
}

TEST(ImportRmm, SurvivesEveryTruncation) {
  const std::string whole =
      log_header + "1,10:00:00.5,allocate,0xAB,8,0x0\n2,10:00:00.6,free,0xAB,8,(nil)\n";
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    const auto trace = samples::read(whole.substr(0, size));
    EXPECT_TRUE(!trace || check_trace(*trace));
  }
}

}  // namespace
}  // namespace cistern
