#include "device/control_group.hpp"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <unistd.h>

#include "cistern/core/size.hpp"

namespace cistern {
namespace {

namespace fs = std::filesystem;

/// A folder that looks like the system's, made for each test.
class ControlGroup : public ::testing::Test {
 protected:
  ControlGroup()
      : root_(fs::temp_directory_path() / ("cistern-groups-" + std::to_string(getpid()))) {
    fs::create_directories(root_);
  }
  ~ControlGroup() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  void write(const std::string& file, const std::string& text) const {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text << '\n';
  }
  /// The limit of a process that is in `groups`, as /proc/self/cgroup lists them.
  [[nodiscard]] std::size_t limit_in(const std::string& groups) const {
    write("self", groups);
    return control_group_limit((root_ / "self").c_str(), root_.c_str());
  }

  [[nodiscard]] std::size_t room_in(const std::string& groups) const {
    write("self", groups);
    return control_group_room((root_ / "self").c_str(), root_.c_str());
  }

  const fs::path root_;
};

TEST_F(ControlGroup, WithoutFilesThereIsNoLimit) {
  EXPECT_EQ(control_group_limit((root_ / "no such file").c_str(), root_.c_str()), unbounded);
  EXPECT_EQ(limit_in("0::/a/b"), unbounded);
  EXPECT_EQ(limit_in("5:memory:/a/b"), unbounded);
}

TEST_F(ControlGroup, OfVersion2TheSmallestAroundTheProcessHolds) {
  write("a/b/memory.max", "max");
  EXPECT_EQ(limit_in("0::/a/b"), unbounded);
  write("a/memory.max", "5000");
  EXPECT_EQ(limit_in("0::/a/b"), 5000U);
  write("a/b/memory.max", "4000");
  EXPECT_EQ(limit_in("0::/a/b"), 4000U);
  EXPECT_EQ(limit_in("0::/a"), 5000U);
  EXPECT_EQ(limit_in("0::/other"), unbounded);
  write("memory.max", "3000");
  EXPECT_EQ(limit_in("0::/a/b"), 3000U);
}

TEST_F(ControlGroup, OfVersion1OnlyTheMemoryControllersGroupCounts) {
  write("memory/a/memory.limit_in_bytes", "7000");
  write("memory/a/b/memory.limit_in_bytes", "8000");
  write("memory/c/memory.limit_in_bytes", "10");
  EXPECT_EQ(limit_in("4:cpu,cpuacct:/c\n5:memory:/a/b"), 7000U);
  EXPECT_EQ(limit_in("5:cpuset,memory:/a/b\n1:name=systemd:/c"), 7000U);
  EXPECT_EQ(limit_in("4:cpu:/a/b"), unbounded);
}

TEST_F(ControlGroup, OfBothVersionsTheSmallerHolds) {
  write("memory/a/memory.limit_in_bytes", "7000");
  write("b/memory.max", "6000");
  EXPECT_EQ(limit_in("5:memory:/a\n0::/b"), 6000U);
  write("b/memory.max", "8000");
  EXPECT_EQ(limit_in("5:memory:/a\n0::/b"), 7000U);
}

TEST_F(ControlGroup, AContainersOwnGroupIsTheRoot) {
  write("memory/memory.limit_in_bytes", "2000");
  EXPECT_EQ(limit_in("5:memory:/docker/not-visible-here"), 2000U);
  EXPECT_EQ(limit_in(""), 2000U);
  write("memory.max", "1000");
  EXPECT_EQ(limit_in(""), 1000U);
  EXPECT_EQ(limit_in("0::/../not-visible-here"), 1000U);
}

TEST_F(ControlGroup, RoomIsWhatIsLeftUnderTheTightestLimit) {
  EXPECT_EQ(room_in("0::/a/b"), unbounded);
  write("a/memory.max", "5000");
  EXPECT_EQ(room_in("0::/a/b"), 5000U);  // no figure of what is used
  write("a/memory.current", "1500");
  EXPECT_EQ(room_in("0::/a/b"), 3500U);
  write("a/b/memory.max", "4000");
  write("a/b/memory.current", "300");
  EXPECT_EQ(room_in("0::/a/b"), 3500U);
  write("a/b/memory.current", "3900");
  EXPECT_EQ(room_in("0::/a/b"), 100U);
  write("a/b/memory.stat", "anon 5\nactive_file 9\ninactive_file 1000\nslab 3");
  EXPECT_EQ(room_in("0::/a/b"), 1100U);  // files that the system would drop
  write("a/b/memory.current", "9000");
  EXPECT_EQ(room_in("0::/a/b"), 0U);
}

TEST_F(ControlGroup, OfVersion1RoomIsReadFromItsOwnFiles) {
  write("memory/a/memory.limit_in_bytes", "7000");
  write("memory/a/memory.usage_in_bytes", "6000");
  write("memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 500");
  EXPECT_EQ(room_in("5:memory:/a"), 1500U);
}

TEST_F(ControlGroup, WhatIsMalformedCountsForNothing) {
  write("memory.max", "a lot");
  write("a/memory.max", "5000");
  EXPECT_EQ(limit_in("nonsense\n\n:\n0:\n0::/a"), 5000U);
  write("a/memory.max", "");
  EXPECT_EQ(limit_in("0::/a"), unbounded);
}

}  // namespace
}  // namespace cistern
