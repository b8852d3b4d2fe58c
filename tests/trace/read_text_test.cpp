#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cistern/trace/check.hpp"
#include "trace/samples.hpp"

namespace cistern {
namespace {

using samples::error_of;
using ::testing::HasSubstr;

const std::string signature = "cistern-trace 1 text\n";

TEST(ReadText, ReadsWhatPeopleWrite) {
  const auto trace = samples::read(
      "cistern-trace 1 text\r\n"
      "# a comment\n"
      "\n"
      "initial 7 4096 256 0\n"
      "allocate  0\t1000 0 1 64 8 2\n"
      "  free 1 1100 3 7 4096 0 0   \r\n"
      "cycle 2 1200 0 1 0 0 0\n"
      "reset 3 1300 0 0 0 0 0\n"
      "end\n"
      "# and nothing more");
  ASSERT_TRUE(trace) << trace.error().text();
  EXPECT_EQ(trace->source, "cistern");
  EXPECT_EQ(trace->initial_blocks, (std::vector<InitialBlock>{{7, 4096, 256, 0}}));
  EXPECT_EQ(trace->events, (std::vector<Event>{{0, 1000, 1, 64, 8, 2, 0, Operation::allocate},
                                               {1, 1100, 7, 4096, 0, 0, 3, Operation::free},
                                               {2, 1200, 1, 0, 0, 0, 0, Operation::cycle},
                                               {3, 1300, 0, 0, 0, 0, 0, Operation::reset}}));
}

TEST(ReadText, NamesTheLineOfWhatIsWrong) {
  const auto error = [](std::string_view rest) { return error_of(signature + std::string(rest)); };
  EXPECT_EQ(error_of("cistern-trace 2 text\nend\n"),
            "sample: line 1: is \"cistern-trace 2 text\"; \"cistern-trace 1 text\" is expected");
  EXPECT_EQ(error("\nalocate 0 0 0 1 64 0 0\nend\n"),
            "sample: line 3: begins with \"alocate\"; initial, allocate, free, reset, cycle or end "
            "is expected");
  EXPECT_EQ(error("allocate 0 0 0 1 64 0\nend\n"),
            "sample: line 2: has \"\" where a number below 2^64 is expected; the columns are: "
            "operation sequence time_ns thread id bytes alignment stream");
  EXPECT_THAT(error("allocate 0 0 0 1 18446744073709551616 0 0\nend\n"),
              HasSubstr("has \"18446744073709551616\""));
  EXPECT_THAT(error("allocate 0 0 0 1 -1 0 0\nend\n"), HasSubstr("has \"-1\""));
  EXPECT_THAT(error("initial 1 2 0 0 5\nend\n"),
              HasSubstr("line 2: goes on with \"5\" after its last column"));
  EXPECT_EQ(error("allocate 0 0 4294967296 1 1 0 0\nend\n"),
            "sample: line 2: states thread 4294967296, but a thread has at most 32 bits");
  EXPECT_THAT(error("allocate 0 0 0 1 1 0 0\ninitial 2 1 0 0\nend\n"),
              HasSubstr("line 3: states an initial block"));
  EXPECT_THAT(error("end\nallocate 0 0 0 1 1 0 0\n"),
              HasSubstr("line 3: follows the line \"end\""));
  EXPECT_THAT(error("end 5\n"), HasSubstr("line 2: goes on with \"5\""));
  EXPECT_THAT(error("allocate 0 0 0 1 1 0 0\n"),
              HasSubstr("line 2: is the last, but the last must be \"end\""));
}

TEST(ReadText, NamesTheLineOfABrokenLaw) {
  EXPECT_EQ(error_of(signature + "# x\nallocate 0 0 0 1 1 0 0\n# y\nfree 1 0 0 2 1 0 0\nend\n"),
            "sample: line 5: frees block 2, which was never allocated");
  EXPECT_EQ(error_of(signature + "initial 1 1 0 0\n\ninitial 1 1 0 0\nend\n"),
            "sample: line 4: id 1 was used before: each block has an id of its own");
}

TEST(ReadText, QuotesNothingUnprintable) {
  EXPECT_THAT(error_of(signature + "\x1b[31m" + std::string(100, 'x')),
              HasSubstr("begins with \"\\x1b[31mxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...\""));
}

TEST(ReadText, SeesEveryTruncation) {
  const std::string whole = signature + "initial 7 4096 256 0\nallocate 0 1000 0 1 64 8 2\nend\n";
  for (std::size_t size = 0; size + 1 < whole.size(); ++size) {
    EXPECT_FALSE(samples::read(whole.substr(0, size))) << "cut to " << size << " bytes";
  }
  EXPECT_TRUE(samples::read(whole.substr(0, whole.size() - 1)));  // nothing is lost but a line end
}

}  // namespace
}  // namespace cistern
