#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/trace/check.hpp"
#include "trace/samples.hpp"

namespace cistern {
namespace {

using samples::error_of;
using samples::read_well;
using ::testing::HasSubstr;

std::string memory(std::string_view ts, std::string_view address, std::string_view bytes,
                   int type = 0, int id = -1) {
  return R"({"ph": "i", "name": "[memory]", "pid": 9, "tid": 70, "ts": )" + std::string(ts) +
         R"(, "args": {"Total Allocated": 1, "Bytes": )" + std::string(bytes) + R"(, "Addr": )" +
         std::string(address) + R"(, "Device Id": )" + std::to_string(id) + R"(, "Device Type": )" +
         std::to_string(type) + "}}";
}

std::string file(const std::vector<std::string>& events) {
  std::string list;
  for (const std::string& event : events)
    list += (list.empty() ? "" : ",\n") + event;
  return "{\"schemaVersion\": 1,\n\"traceEvents\": [" + list + "]}";
}

TEST(ImportChrome, ReadsMemoryEventsByTime) {
  const std::vector<std::string> events = {
      R"({"ph": "X", "name": "aten::add", "ts": 1, "dur": 2, "args": {"Addr": 1, "Bytes": 2, "x": [[2, 3], {}]}})",
      memory("30.5", "4096", "-100"),
      memory("10", "4096", "100"),
      memory("20.123456", "8192", "64"),
      memory("20.123456", "8192", "-64"),
      memory("15", "77", "-32"),
      R"({"name": "[memory]", "args": {"Addr": 0, "Bytes": 0}, "ts": 5})",
  };
  const std::vector<Event> expected = {{0, 10'000, 0, 100, 0, 0, 0, Operation::allocate},
                                       {1, 15'000, 1, 32, 0, 0, 0, Operation::free},
                                       {2, 20'123, 2, 64, 0, 0, 0, Operation::allocate},
                                       {3, 20'123, 2, 64, 0, 0, 0, Operation::free},
                                       {4, 30'500, 0, 100, 0, 0, 0, Operation::free}};
  const Trace trace = read_well(file(events));
  EXPECT_EQ(trace.events, expected);
  EXPECT_EQ(trace.initial_blocks, (std::vector<InitialBlock>{{1, 32, 0, 0}}));
  EXPECT_EQ(trace.source, "chrome-trace");

  std::string bare = file(events);
  bare = bare.substr(bare.find('['));
  bare.pop_back();
  EXPECT_EQ(read_well(bare).events, expected);
}

TEST(ImportChrome, KeepsEveryDigitOfTimesAndAddresses) {
  const Trace trace =
      read_well(file({memory("1712345678901234.567", "18446744073709551615", "1"),
                      memory("1712345678901234.568", "-1", "-1"), memory("1.8567e15", "16", "1")}));
  ASSERT_EQ(trace.events.size(), 3U);
  EXPECT_EQ(trace.events[0].time_ns, 1'712'345'678'901'234'567U);
  EXPECT_EQ(trace.events[1].time_ns, 1'712'345'678'901'234'568U);
  EXPECT_EQ(trace.events[1].operation, Operation::free);  // the address, printed as a signed number
  EXPECT_EQ(trace.events[2].time_ns, 1'856'700'000'000'000'000U);
}

TEST(ImportChrome, FillsInWhatTheProfileMissed) {
  const Trace trace = read_well(file({memory("1", "16", "8"), memory("2", "16", "9"),
                                      memory("3", "16", "-9"), memory("4", "16", "-9")}));
  EXPECT_EQ(trace.events, (std::vector<Event>{{0, 1000, 0, 8, 0, 0, 0, Operation::allocate},
                                              {1, 2000, 0, 8, 0, 0, 0, Operation::free},
                                              {2, 2000, 1, 9, 0, 0, 0, Operation::allocate},
                                              {3, 3000, 1, 9, 0, 0, 0, Operation::free}}));
}

TEST(ImportChrome, TakesOneDevice) {
  const std::string json =
      file({memory("1", "16", "8"), memory("2", "16", "9", 1, 0), memory("3", "99", "9", 1, 0)});
  EXPECT_EQ(error_of(json),
            "sample: holds several devices, of which one is to be chosen: device -1 of type 0 (1 "
            "events), "
            "device 0 of type 1 (2 events)");
  ReadOptions options;
  options.device = 0;
  EXPECT_EQ(read_well(json, options).events.size(), 2U);
  options.device = -1;
  EXPECT_EQ(read_well(json, options).events.size(), 1U);
  options.device = 3;
  EXPECT_THAT(error_of(json, options), HasSubstr("holds nothing of device 3; it holds device -1"));
}

TEST(ImportChrome, NamesTheByteOfWhatIsWrong) {
  EXPECT_THAT(error_of("{\"traceEvents\": [1, 2,, 3]}"),
              HasSubstr("sample: byte 22: is no JSON: syntax error"));
  EXPECT_THAT(error_of("{\"traceEvents\": []}"),
              HasSubstr("holds no [memory] events: torch.profiler"));
  EXPECT_THAT(error_of("[{\"name\": \"\xff\"}]"), HasSubstr("is no JSON"));
  const std::string good = memory("1", "16", "8");
  const std::string prefix = "[" + good + ", ";
  const std::string at = "sample: byte " + std::to_string(prefix.size());
  EXPECT_EQ(error_of(prefix + R"({"name": "[memory]", "ts": 1, "args": {"Bytes": 1}}])"),
            at + ": a [memory] event has no number under \"Addr\"");
  EXPECT_EQ(
      error_of(prefix + R"({"name": "[memory]", "ts": 1, "args": {"Bytes": "1", "Addr": 2}}])"),
      at + ": a [memory] event has no number under \"Bytes\"");
  EXPECT_EQ(
      error_of(prefix + R"({"name": "[memory]", "ts": -1, "args": {"Bytes": 1, "Addr": 2}}])"),
      at + ": a [memory] event has no number under \"ts\"");
  EXPECT_EQ(error_of(prefix + memory("2", "16", "-9") + "]"),
            at + ": frees 9 bytes at address 0x10, where byte 1 allocates 8");
  // What stands elsewhere in the file is no event, and what stands elsewhere in an event is not its
  // argument.
  EXPECT_THAT(error_of(R"({"other": [)" + good + "]}"), HasSubstr("holds no [memory] events"));
  EXPECT_THAT(error_of(R"([{"name": "[memory]", "ts": 1, "x": {"Bytes": 1, "Addr": 2}}])"),
              HasSubstr("\"Addr\""));
  EXPECT_THAT(
      error_of(R"([{"name": "[memory]", "ts": 1, "args": {"y": {"Bytes": 1, "Addr": 2}}}])"),
      HasSubstr("\"Addr\""));
  EXPECT_THAT(error_of("[[" + good + "]]"), HasSubstr("holds no [memory] events"));
}

TEST(ImportChrome, SurvivesDepth) {
  EXPECT_THAT(error_of(std::string(1'000'000, '[')), HasSubstr("is no JSON"));
  const std::string deep = "[" + std::string(100'000, '[') + std::string(100'000, ']') + ", " +
                           memory("1", "16", "8") + "]";
  EXPECT_EQ(read_well(deep).events.size(), 1U);
}

TEST(ImportChrome, SeesEveryTruncation) {
  const std::string whole = file({memory("1", "16", "8"), memory("2.5", "16", "-8")});
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(samples::read(whole.substr(0, size))) << "cut to " << size << " bytes";
  }
}

}  // namespace
}  // namespace cistern
