#include "cistern/device/host.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <unistd.h>

#include "cistern/core/buffer.hpp"
#include "cistern/core/size.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;

TEST(Host, GivesMallocedAndMappedMemoryOfEverySizeAndAlignment) {
  const auto host = make<HostDevice>();
  Ledger ledger(*host);
  for (const std::size_t bytes :
       {std::size_t{1}, std::size_t{63}, 4_KiB, 256_KiB - 64, 256_KiB - 1, 256_KiB, 1_MiB + 1}) {
    for (std::size_t alignment = 1; alignment <= 16_MiB; alignment *= 4) {
      ASSERT_TRUE(ledger.allocate({.bytes = bytes, .alignment = alignment}))
          << bytes << " at " << alignment;
    }
  }
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_all_accounted_for(*host);
}

TEST(Host, RandomRunsLoseNothing) {
  const std::uint64_t seed = testing::seed_or(1);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  const auto host = make<HostDevice>();
  Ledger ledger(*host);
  for (int i = 0; i < 1000; ++i) {
    if (ledger.size() > 0 && random.chance(45)) {
      ledger.free(random.below(ledger.size()));
    } else {
      ASSERT_TRUE(ledger.allocate(
          {.bytes = random.size(22), .alignment = std::size_t{1} << random.below(20)}));
    }
    if (i % 50 == 0) ledger.expect_in_order();
  }
  ledger.free_all();
  testing::expect_all_accounted_for(*host);
}

TEST(Host, ImpossibleRequestsFailAndCountOnlyAsFailures) {
  const auto host = make<HostDevice>();
  for (const Request& request :
       {Request{.bytes = unbounded}, Request{.bytes = unbounded - 63},
        Request{.bytes = std::size_t{1} << 60}, Request{.bytes = 64, .alignment = 3},
        Request{.bytes = 64, .alignment = std::size_t{1} << 40},
        Request{.bytes = unbounded / 2 - 100, .alignment = 1_GiB}}) {
    EXPECT_FALSE(host->try_allocate(request)) << request.bytes << " at " << request.alignment;
  }
  const Stats stats = host->stats();
  EXPECT_EQ(stats.failures, 6U);
  EXPECT_EQ(stats.allocations, 0U);
  EXPECT_EQ(stats.reserved.peak, 0U);
}

TEST(Host, ZeroesWhenAskedTo) {
  const auto dirty = make<HostDevice>();
  for (int i = 0; i < 20; ++i) {
    const Buffer buffer(*dirty, 10'000);
    std::memset(buffer.data(), 0xAA, 10'000);
  }
  const auto host = make<HostDevice>(HostDevice::Options{.zero = true});
  for (const std::size_t bytes : {std::size_t{100}, std::size_t{10'000}, 1_MiB}) {
    const Buffer buffer(*host, bytes);
    EXPECT_TRUE(std::ranges::all_of(buffer.as<unsigned char>(),
                                    [](unsigned char byte) { return byte == 0; }));
  }
}

TEST(Host, HugePagesAreAlignedAndUsable) {
  for (const HugePages pages : {HugePages::never, HugePages::automatic, HugePages::transparent}) {
    const auto host = make<HostDevice>(HostDevice::Options{.huge_pages = pages});
    const Buffer buffer(*host, 5_MiB);
    std::memset(buffer.data(), 1, buffer.capacity());
    if (pages == HugePages::transparent) {
      EXPECT_TRUE(is_aligned(buffer.block(), 2_MiB, host->limits()));
    }
  }
}

/// Bytes of the address space that this process has mapped.
std::size_t mapped_bytes() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

TEST(Host, MapsWhatIsLiveAndNothingAround) {
  if (!std::filesystem::exists("/proc/self/statm")) GTEST_SKIP() << "there is no /proc";
  constexpr std::size_t noise = 64_MiB;  // the program's own heap moves too
  for (const std::size_t alignment : {std::size_t{0}, 1_GiB}) {
    const auto host = make<HostDevice>();
    const std::size_t before = mapped_bytes();
    std::vector<Block> blocks;
    for (int i = 0; i < 8; ++i)
      blocks.push_back(host->allocate({.bytes = 256_MiB, .alignment = alignment}));
    EXPECT_NEAR(static_cast<double>(mapped_bytes()), static_cast<double>(before + 2_GiB), noise);
    for (const Block& block : blocks)
      host->deallocate(block);
    EXPECT_NEAR(static_cast<double>(mapped_bytes()), static_cast<double>(before), noise);
  }
}

TEST(Host, RefusesAStaleAndAForgedHandle) {
  const testing::CaughtReports reports;
  const auto host = make<HostDevice>();
  const Block block = host->allocate(1000);
  Block forged = block;
  forged.bytes += 64;
  EXPECT_FALSE(host->deallocate(forged));
  EXPECT_TRUE(host->deallocate(block));
  EXPECT_FALSE(host->deallocate(block));
  EXPECT_EQ(host->stats().refused_frees, 2U);
  EXPECT_EQ(reports.all().size(), 2U);
  testing::expect_all_accounted_for(*host);
}

TEST(Host, MemoryIsWhatThisProcessMayUse) {
  EXPECT_GT(host_memory(), 64_MiB);
  EXPECT_EQ(make<HostDevice>()->limits().total_memory, host_memory());
  EXPECT_THROW(make<HostDevice>(HostDevice::Options{.map_from = 0}), std::invalid_argument);
}

}  // namespace
}  // namespace cistern
