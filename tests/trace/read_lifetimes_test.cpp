// Tables of lifetimes: what is read, and how each thing that may be wrong is named.
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <variant>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/trace/lifetimes.hpp"
#include "trace/gzip.hpp"
#include "trace/samples.hpp"

namespace cistern {
namespace {

using ::testing::HasSubstr;

const std::string table_header = "id,lower,upper,size\n";

tl::expected<Plannable, TraceError> read_table(std::string_view bytes) {
  return read_plannable_from_memory(bytes, "table");
}

Lifetimes table(std::string_view csv) {
  const auto read_back = read_table(csv);
  EXPECT_TRUE(read_back) << read_back.error().text();
  if (!read_back || !std::holds_alternative<Lifetimes>(*read_back)) return {};
  return std::get<Lifetimes>(*read_back);
}

std::string table_error(std::string_view csv) {
  const auto read_back = read_table(csv);
  return read_back ? "" : read_back.error().text();
}

TEST(ReadLifetimes, ReadsATable) {
  const Lifetimes lifetimes = table(table_header + "0,5,20,128\nconv 1:0,0,10,4096\n");
  EXPECT_EQ(lifetimes.name, "table");
  EXPECT_EQ(lifetimes.source, "lifetimes-csv");
  EXPECT_EQ(lifetimes.ids, (std::vector<std::string>{"0", "conv 1:0"}));
  EXPECT_EQ(lifetimes.buffers, (std::vector<Lifetime>{{5, 20, 128, 1}, {0, 10, 4096, 1}}));
  EXPECT_TRUE(table("id,lower,upper,size").buffers.empty());
}

TEST(ReadLifetimes, TakesColumnsInAnyOrder) {
  const Lifetimes lifetimes = table(
      "offset,size, upper,id,hint,alignment,lower\r\n"
      "nowhere,7,9, a b ,,64,2\r\n"
      " \r\n"
      ",8,\t9,b,x,1,9");
  EXPECT_EQ(lifetimes.ids, (std::vector<std::string>{"a b", "b"}));
  EXPECT_EQ(lifetimes.buffers, (std::vector<Lifetime>{{2, 9, 7, 64}, {9, 9, 8, 1}}));
}

TEST(ReadLifetimes, TakesNumbersOf64Bits) {
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  const Lifetimes lifetimes = table(
      "id,lower,upper,size,alignment\n"
      "0,0,18446744073709551615,18446744073709551615,9223372036854775808\n");
  EXPECT_EQ(lifetimes.buffers, (std::vector<Lifetime>{{0, most, most, std::size_t{1} << 63U}}));
}

TEST(ReadLifetimes, ReadsCompressedTablesAndFiles) {
  const std::string csv = table_header + "0,5,20,128\n";
  EXPECT_EQ(table(*detail::deflate_gzip(csv)).buffers.size(), 1U);
  const std::filesystem::path file =
      std::filesystem::path(::testing::TempDir()) / "cistern-lifetimes.csv";
  std::ofstream(file) << csv;
  const auto lifetimes = read_plannable(file);
  std::filesystem::remove(file);
  ASSERT_TRUE(lifetimes);
  EXPECT_EQ(std::get<Lifetimes>(*lifetimes).name, "cistern-lifetimes.csv");
  EXPECT_EQ(read_plannable("/no/such/file").error().text(),
            "/no/such/file: cannot be opened: No such file or directory");
}

TEST(ReadLifetimes, TellsTablesFromTraces) {
  const auto is_trace = [](std::string_view bytes) {
    const auto read_back = read_table(bytes);
    return read_back && std::holds_alternative<Trace>(*read_back);
  };
  EXPECT_TRUE(is_trace(samples::encoded(samples::small_trace())));
  EXPECT_TRUE(is_trace("Thread,Time,Action,Pointer,Size,Stream\n"));
  EXPECT_EQ(std::get<Trace>(*read_table("cistern-trace 1 text\nend")).name, "table");
  EXPECT_EQ(table_error("hello, world"),
            "table: byte 0: begins with \"hello, world\", as no table of lifetimes (CSV with the "
            "columns id, lower, upper and size) and no known trace does");
  EXPECT_EQ(table_error(""), "table: is empty");
}

TEST(ReadLifetimes, NamesAWrongColumn) {
  const std::string known =
      "; id, lower, upper and size are needed, alignment may be there, offset and hint are skipped";
  EXPECT_EQ(table_error("lower,upper,size\n"), "table: line 1: lacks the column id" + known);
  EXPECT_EQ(table_error("id,lower,upper\n"), "table: line 1: lacks the column size" + known);
  EXPECT_EQ(table_error("id,lower,size,begin\n"),
            "table: line 1: has the column \"begin\"" + known);
  EXPECT_EQ(table_error("id,start,upper,size\n"),
            "table: line 1: has the column \"start\"" + known);
  EXPECT_EQ(table_error("id,lower,upper,size,\n"), "table: line 1: has the column \"\"" + known);
  EXPECT_EQ(table_error("id,lower,upper,size,lower\n"),
            "table: line 1: has the column lower twice");
  EXPECT_EQ(table_error("id,lower,upper,size,alignment,offset,hint,id\n"),
            "table: line 1: has 8 columns" + known);
  EXPECT_THAT(table_error("id,lower,upper,size,gaps\n"),
              HasSubstr("line 1: has the column gaps, times within a life"));
  EXPECT_EQ(table_error("id,lower,end,size\n"),
            "table: line 1: has the column end, the last time of use; upper, the time after it, is "
            "expected");
}

TEST(ReadLifetimes, NamesTheLineOfWhatIsWrong) {
  const auto error = [](const std::string& line) {
    return table_error("id,lower,upper,size,alignment\nfirst,0,1,2,4\n\n" + line);
  };
  EXPECT_EQ(error("0,0,1"), "table: line 4: has 3 fields; there should be 5");
  EXPECT_EQ(error("0,0,1,2,4,5,6,7,8,9"), "table: line 4: has 10 fields; there should be 5");
  EXPECT_EQ(error("0,-1,1,2,4"),
            "table: line 4: has \"-1\" as its lower; a number below 2^64 is expected");
  EXPECT_EQ(error("0,0,,2,4"),
            "table: line 4: has \"\" as its upper; a number below 2^64 is expected");
  EXPECT_EQ(error("0,0,1,18446744073709551616,4"),
            "table: line 4: has \"18446744073709551616\" as its size; a number below 2^64 is "
            "expected");
  EXPECT_EQ(error("0,0,1,4KiB,4"),
            "table: line 4: has \"4KiB\" as its size; a number below 2^64 is expected");
  EXPECT_EQ(error("0,3,2,2,4"), "table: line 4: lives from 3 to 2; upper must be at least lower");
  for (const std::string alignment : {"0", "3", "-4", "", "18446744073709551616"}) {
    EXPECT_EQ(error("0,0,1,2," + alignment), "table: line 4: has \"" + alignment +
                                                 "\" as its alignment; a power of two below 2^64 "
                                                 "is expected");
  }
  EXPECT_EQ(error("x,0,1,2,4\nfirst,0,1,2,4\nx,0,1,2,4"),
            "table: line 5: has the id \"first\" of line 2; an id names one buffer");
}

TEST(ReadLifetimes, SurvivesEveryTruncation) {
  const std::string whole = "hint,id,lower,upper,size,alignment\n,0,5,20,128,64\nx,1,6,21,129,1\n";
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    const auto lifetimes = read_table(whole.substr(0, size));
    EXPECT_TRUE(lifetimes || !lifetimes.error().message.empty());
  }
}

// What a hostile file may make slow is as quick as any other.
TEST(ReadLifetimes, TakesLongTables) {
  const std::string long_id(2000, 'x');
  std::string csv = table_header;
  for (int buffer = 0; buffer < 5000; ++buffer)
    csv += long_id + std::to_string(buffer) + ",0,1,1\n";
  EXPECT_EQ(table(csv).buffers.size(), 5000U);
  const std::string commas(8'000'000, ',');
  EXPECT_THAT(table_error(table_header + commas), HasSubstr("has 8000001 fields"));
  EXPECT_THAT(table_error("lower" + commas), HasSubstr("has the column \"\""));
}

}  // namespace
}  // namespace cistern
