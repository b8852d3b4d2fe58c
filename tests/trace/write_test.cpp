#include "cistern/trace/write.hpp"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "trace/samples.hpp"

namespace cistern {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class WriteTrace : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* const test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ =
        fs::temp_directory_path() / ("cistern-write-" + std::to_string(::getpid()) + test->name());
    fs::create_directory(folder_);
  }

  void TearDown() override { fs::remove_all(folder_); }

  [[nodiscard]] fs::path file(std::string_view name) const { return folder_ / name; }
  [[nodiscard]] std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  static std::string contents(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }

 private:
  fs::path folder_;
};

TEST_F(WriteTrace, LosesNothingInAnyForm) {
  const std::uint64_t seed = testing::seed_or(2);
  SCOPED_TRACE(testing::replay_hint(seed));
  samples::Random random(seed);
  for (int round = 0; round < 20; ++round) {
    const Trace trace = samples::random_trace(random, 1 + random.below(300));
    for (const TraceFormat format : {TraceFormat::binary, TraceFormat::text}) {
      for (const bool gzip : {false, true}) {
        const auto written = write_trace(trace, file("a.trace"), format, gzip);
        ASSERT_TRUE(written) << written.error().text();
        EXPECT_EQ(contents(file("a.trace")).starts_with("\x1f\x8b"), gzip);
        const auto read = read_trace(file("a.trace"));
        ASSERT_TRUE(read) << read.error().text();
        samples::expect_same(*read, trace);
        EXPECT_EQ(read->name, "a.trace");
      }
    }
  }
  EXPECT_EQ(files(), 1U);
}

TEST_F(WriteTrace, WritesTextForEyes) {
  ASSERT_TRUE(write_trace(samples::small_trace(), file("a"), TraceFormat::text));
  EXPECT_EQ(contents(file("a")),
            "cistern-trace 1 text\n"
            "# initial id bytes alignment stream\n"
            "initial 7 4096 256 0\n"
            "initial 9 100 0 3\n"
            "# operation sequence time_ns thread id bytes alignment stream\n"
            "allocate 10 1000 0 20 512 64 0\n"
            "allocate 11 1500 1 21 1048576 64 3\n"
            "free 12 1400 1 7 4096 0 0\n"
            "cycle 20 2000 0 1 0 0 0\n"
            "free 21 2100 0 20 512 0 0\n"
            "reset 22 2200 0 0 0 0 0\n"
            "allocate 23 2300 0 22 0 0 0\n"
            "end\n");
}

TEST_F(WriteTrace, RefusesUnlawfulTraces) {
  Trace trace = samples::small_trace();
  trace.name = "bad";
  trace.events[4].bytes = 1;
  const auto written = write_trace(trace, file("a"));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().text(), "bad: event 4: frees 1 bytes of block 20, which has 512");
  EXPECT_EQ(files(), 0U);
}

TEST_F(WriteTrace, SaysWhatTheSystemSaid) {
  const auto written = write_trace({}, file("no/such/folder"));
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().text(),
              HasSubstr("no/such/folder: cannot be opened for writing: No such file"));
  EXPECT_THAT(write_trace({}, file("")).error().text(), HasSubstr("is a directory"));
}

// A full disk, made by a bound on the size of files: the old file stays, and no half of the new
// one.
TEST_F(WriteTrace, LeavesTheOldFileWhenItFails) {
  ASSERT_TRUE(write_trace(samples::small_trace(), file("a")));
  const std::string before = contents(file("a"));
  samples::Random random(1);
  const Trace large = samples::random_trace(random, 20'000);

  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto unlimited = limit.rlim_cur;
  auto* const previous = std::signal(SIGXFSZ, SIG_IGN);
  limit.rlim_cur = 4096;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto written = write_trace(large, file("a"));
  limit.rlim_cur = unlimited;
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, previous);

  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().text(), HasSubstr("cannot be written"));
  EXPECT_EQ(contents(file("a")), before);
  EXPECT_EQ(files(), 1U);
}

TEST_F(WriteTrace, GoesThroughLinksAndToDevices) {
  ASSERT_TRUE(write_trace({}, file("a")));
  fs::create_symlink(file("a"), file("link"));
  ASSERT_TRUE(write_trace(samples::small_trace(), file("link")));
  EXPECT_TRUE(fs::is_symlink(file("link")));
  EXPECT_EQ(read_trace(file("a"))->events.size(), 7U);
  EXPECT_TRUE(write_trace(samples::small_trace(), "/dev/null"));
  EXPECT_EQ(write_trace(samples::small_trace(), "/dev/full").error().text(),
            "/dev/full: cannot be written: No space left on device");
}

TEST_F(WriteTrace, WritesToStandardOutput) {
  ::testing::internal::CaptureStdout();
  const auto written = write_trace({}, "-", TraceFormat::text);
  const std::string out = ::testing::internal::GetCapturedStdout();
  ASSERT_TRUE(written);
  EXPECT_THAT(out, HasSubstr("cistern-trace 1 text\n"));
  EXPECT_THAT(out, HasSubstr("end\n"));
}

}  // namespace
}  // namespace cistern
