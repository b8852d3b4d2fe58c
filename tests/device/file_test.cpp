#include "cistern/device/file.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cistern/core/buffer.hpp"
#include "cistern/core/size.hpp"
#include "cistern/stack/stack.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;

/// A folder of its own for each test.
class File : public ::testing::Test {
 protected:
  File()
      : folder_(std::filesystem::temp_directory_path() /
                ("cistern-file-test-" + std::to_string(getpid()))) {
    std::filesystem::create_directory(folder_);
  }
  ~File() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] Ref<FileDevice> device(std::size_t map_from = std::size_t{256} << 10U) const {
    return make<FileDevice>(FileDevice::Options{.folder = folder_, .map_from = map_from});
  }

  /// The files that back memory of this process now.
  [[nodiscard]] std::size_t files() const {
    std::size_t count = 0;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);)
      count += line.find((folder_ / ".cistern-").string()) != std::string::npos ? 1U : 0U;
    return count;
  }

  const std::filesystem::path folder_;
};

TEST_F(File, GivesMemoryOfEverySizeAndAlignment) {
  const auto file = device();
  Ledger ledger(*file);
  for (const std::size_t bytes :
       {std::size_t{1}, std::size_t{63}, 4_KiB, 256_KiB - 64, 256_KiB - 1, 256_KiB, 1_MiB + 1}) {
    for (std::size_t alignment = 1; alignment <= 16_MiB; alignment *= 4) {
      ASSERT_TRUE(ledger.allocate({.bytes = bytes, .alignment = alignment}))
          << bytes << " at " << alignment;
    }
  }
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_all_accounted_for(*file);
}

TEST_F(File, RandomRunsLoseNothing) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  const auto file = device(4_KiB);
  Ledger ledger(*file);
  for (int i = 0; i < 500; ++i) {
    if (ledger.size() > 0 && random.chance(45)) {
      ledger.free(random.below(ledger.size()));
    } else {
      ASSERT_TRUE(ledger.allocate({.bytes = random.size(20)}));
    }
    if (i % 50 == 0) ledger.expect_in_order();
  }
  ledger.free_all();
  testing::expect_all_accounted_for(*file);
}

TEST_F(File, EachLargeBlockIsAFileThatEndsWithIt) {
  if (!std::filesystem::exists("/proc/self/maps")) GTEST_SKIP() << "there is no /proc";
  const auto file = device();
  EXPECT_EQ(file->folder(), folder_);
  {
    const Buffer one(*file, 1_MiB);
    const Buffer other(*file, 3_MiB);
    const Buffer small(*file, 1_KiB);
    EXPECT_EQ(files(), 2U);
    EXPECT_TRUE(std::filesystem::is_empty(folder_)) << "they have no names";
    EXPECT_TRUE(std::ranges::all_of(other.as<unsigned char>(),
                                    [](unsigned char byte) { return byte == 0; }));
  }
  EXPECT_EQ(files(), 0U);
}

TEST_F(File, KnowsWhatTheDiskHas) {
  const auto file = device();
  EXPECT_STREQ(file->limits().kind, "host");
  EXPECT_GT(file->limits().total_memory, 0U);
  EXPECT_GT(file->free_memory(), 0U);
  EXPECT_TRUE(file->limits().host_addressable);
}

TEST_F(File, WhatTheDiskCannotHoldIsRefusedAtOnce) {
  const auto file = device();
  for (const std::size_t bytes : {unbounded, std::size_t{1} << 50U, unbounded / 2 - 100}) {
    const Expected<Block> block = file->try_allocate({.bytes = bytes});
    ASSERT_FALSE(block);
    EXPECT_TRUE(block.error().code == Errc::out_of_memory || block.error().code == Errc::too_large)
        << describe(block.error());
  }
  EXPECT_EQ(file->stats().failures, 3U);
  EXPECT_EQ(file->stats().reserved.peak, 0U);
  EXPECT_EQ(files(), 0U);
}

TEST_F(File, ALimitOnTheSizeOfFilesIsAFailureAndNoSignal) {
  const auto file = device();
  rlimit former{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &former), 0);
  const rlimit tight{.rlim_cur = 1_MiB, .rlim_max = former.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  const Expected<Block> fits = file->try_allocate({.bytes = 1_MiB});
  const Expected<Block> refused = file->try_allocate({.bytes = 1_MiB + 1});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &former), 0);
  ASSERT_TRUE(fits);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::out_of_memory);
  EXPECT_TRUE(file->deallocate(*fits));
  testing::expect_all_accounted_for(*file);
}

TEST_F(File, AFolderThatIsGoneIsAFailureOfTheDevice) {
  const auto file = device();
  std::filesystem::remove_all(folder_);
  const Expected<Block> refused = file->try_allocate({.bytes = 1_MiB});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::device_failed);
  EXPECT_TRUE(file->deallocate(file->allocate(1_KiB)));
  testing::expect_all_accounted_for(*file);
}

TEST_F(File, AFolderThatCannotBeUsedIsAnErrorWhenItIsOpened) {
  std::ofstream(folder_ / "file") << "no folder";
  for (const std::string& path :
       {std::string("/no/such/folder"), (folder_ / "file").string(), std::string("/proc")}) {
    try {
      const Stack stack = open("host(memory=file, path=\"" + path + "\")");
      ADD_FAILURE() << path;
    } catch (const std::system_error& error) {
      EXPECT_TRUE(std::string_view(error.what())
                      .starts_with("host: no memory can be backed by files in the folder " + path))
          << error.what();
    }
  }
  EXPECT_THROW((void)device(0), std::invalid_argument);
}

TEST_F(File, IsWrittenAsAHost) {
  const Stack stack = open("cache > host(map_from=64KiB, memory=file, zero=true, path=\"" +
                           folder_.string() + "\")");
  {
    const Buffer buffer = stack.buffer(64_KiB);
    EXPECT_EQ(files(), 1U);
    std::memset(buffer.data(), 1, buffer.bytes());
  }
  testing::expect_all_accounted_for(*stack);
  EXPECT_EQ(files(), 0U);
  EXPECT_EQ(dynamic_cast<const FileDevice&>(*open("host(memory=file)")).folder(),
            std::filesystem::temp_directory_path());
  EXPECT_EQ(try_open("host(path=x)").error().message(), "path applies only with memory=file");
  EXPECT_EQ(try_open("host(memory=file, huge_pages=never)").error().message(),
            "huge_pages applies only with memory=malloc");
}

TEST_F(File, StaleFreesAreRefused) {
  const testing::CaughtReports reports;
  const auto file = device();
  const Block block = file->allocate(1_MiB);
  EXPECT_TRUE(file->deallocate(block));
  EXPECT_FALSE(file->deallocate(block));
  EXPECT_EQ(file->stats().refused_frees, 1U);
}

}  // namespace
}  // namespace cistern
