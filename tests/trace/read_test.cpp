// How a file is recognised, decompressed and refused before its format is looked into.
#include "cistern/trace/read.hpp"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "trace/gzip.hpp"
#include "trace/samples.hpp"

namespace cistern {
namespace {

using samples::encoded;
using samples::error_of;
using ::testing::HasSubstr;

const std::string rmm =
    "Thread,Time,Action,Pointer,Size,Stream\n1,00:00:00.000001,allocate,0x10,8,0x0\n";
const std::string chrome =
    R"([{"name": "[memory]", "ts": 1, "args": {"Addr": 16, "Bytes": 8, "Device Type": 0, "Device Id": -1}}])";

TEST(ReadTrace, TellsFormatsFromContents) {
  const auto source = [](std::string_view bytes) {
    const auto trace = samples::read(bytes);
    return trace ? trace->source : trace.error().text();
  };
  const std::string snapshot = samples::Pickle::file("]");
  for (const auto& [bytes, expected] :
       {std::pair{encoded({}), "cistern"},
        std::pair{std::string("cistern-trace 1 text\nend"), "cistern"}, std::pair{rmm, "rmm-csv"},
        std::pair{chrome, "chrome-trace"}, std::pair{" \n" + chrome, "chrome-trace"},
        std::pair{snapshot, "pytorch-snapshot"}}) {
    EXPECT_EQ(source(bytes), expected);
    EXPECT_EQ(source(*detail::deflate_gzip(bytes)), expected);
  }
}

TEST(ReadTrace, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(error_of(""), "sample: is empty");
  EXPECT_EQ(error_of(*detail::deflate_gzip("")), "sample: is empty");
  EXPECT_EQ(error_of("hello, world"),
            "sample: byte 0: begins with \"hello, world\", as no known trace does: a cistern "
            "trace, a PyTorch snapshot "
            "(pickle), an RMM log (CSV) or a Chrome trace (JSON) is expected");
  EXPECT_THAT(error_of("   "), HasSubstr("begins with \"   \""));
  EXPECT_THAT(error_of(*detail::deflate_gzip(*detail::deflate_gzip(rmm))),
              HasSubstr("begins with \"\\x1f\\x8b"));
}

TEST(ReadTrace, SaysWhatTheSystemSaid) {
  EXPECT_EQ(read_trace("/no/such/file").error().text(),
            "/no/such/file: cannot be opened: No such file or directory");
  EXPECT_EQ(read_trace("/tmp").error().text(), "/tmp: is a directory, not a trace");
  EXPECT_EQ(read_trace("/dev/null").error().text(), "/dev/null: is empty");
}

TEST(ReadTrace, BoundsTheBytesItReads) {
  ReadOptions options;
  options.max_bytes = 10;
  EXPECT_EQ(error_of(rmm, options),
            "sample: is longer than 10 bytes; a higher max_bytes would admit it");
  EXPECT_EQ(read_trace("/dev/zero", options).error().text(),
            "/dev/zero: is longer than 10 bytes; a higher max_bytes would admit it");
  const std::string bomb = *detail::deflate_gzip(std::string(8'000'000, 'x'));
  options.max_bytes = 1'000'000;
  EXPECT_EQ(
      error_of(bomb, options),
      "sample: grows beyond 1000000 bytes when decompressed; a higher max_bytes would admit it");
}

TEST(ReadTrace, SeesDamagedCompression) {
  const std::string whole = *detail::deflate_gzip(rmm);
  for (std::size_t size = 2; size < whole.size(); ++size) {
    EXPECT_THAT(error_of(whole.substr(0, size)),
                HasSubstr("byte " + std::to_string(size) + ": the gzip stream is cut short"));
  }
  std::string damaged = whole;
  damaged[whole.size() - 6] ^= 1;  // in the checksum
  EXPECT_THAT(error_of(damaged), HasSubstr("the gzip stream is damaged: incorrect data check"));
  EXPECT_THAT(error_of(whole + "junk"),
              HasSubstr("the gzip stream is damaged: incorrect header check"));
}

TEST(ReadTrace, JoinsTheMembersOfAGzipFile) {
  const std::string half = rmm.substr(0, 50);
  const auto trace =
      samples::read(*detail::deflate_gzip(half) + *detail::deflate_gzip(rmm.substr(50)));
  ASSERT_TRUE(trace) << trace.error().text();
  EXPECT_EQ(trace->events.size(), 1U);
}

}  // namespace
}  // namespace cistern
