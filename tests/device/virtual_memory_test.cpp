// Pages mapped behind reserved addresses, on every device that has them.
#include "cistern/core/virtual_memory.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory_resource>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/pmr.hpp"
#include "cistern/device/simulated.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;
using namespace std::chrono_literals;
using Options = SimulatedDevice::Options;

enum class PagedDevice { host, simulated };

class VirtualMemoryTest : public ::testing::TestWithParam<PagedDevice> {
 protected:
  VirtualMemoryTest() : device_(make_device()), memory_(*device_->virtual_memory()) {}

  [[nodiscard]] static Ref<Device> make_device() {
    if (GetParam() == PagedDevice::host) return make<HostDevice>();
    return make<SimulatedDevice>();
  }
  [[nodiscard]] bool is_writable() const { return device_->limits().host_addressable; }

  const Ref<Device> device_;
  VirtualMemory& memory_;
};

INSTANTIATE_TEST_SUITE_P(All, VirtualMemoryTest,
                         ::testing::Values(PagedDevice::host, PagedDevice::simulated),
                         [](const auto& each) {
                           return each.param == PagedDevice::host ? "host" : "simulated";
                         });

TEST_P(VirtualMemoryTest, AddressesCostNothingUntilPagesAreMapped) {
  const AddressRange range = memory_.reserve(1_GiB + 1, 64_KiB).value();
  EXPECT_EQ(range.bytes, 1_GiB + 64_KiB);
  EXPECT_EQ(range.page, 64_KiB);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(range.start) % 64_KiB, 0U);
  EXPECT_EQ(device_->stats().reserved.current, 0U);

  ASSERT_TRUE(memory_.map(range, range.start + 128_KiB, 192_KiB));
  ASSERT_TRUE(memory_.map(range, range.start, 64_KiB));
  EXPECT_EQ(device_->stats().reserved.current, 256_KiB);
  EXPECT_EQ(device_->stats().device_allocations, 2U);
  EXPECT_EQ(device_->validate(), "");

  memory_.unmap(range, range.start + 192_KiB, 64_KiB, {});
  EXPECT_EQ(device_->stats().reserved.current, 192_KiB);
  EXPECT_EQ(device_->stats().reserved.peak, 256_KiB);
  EXPECT_EQ(device_->stats().device_frees, 1U);
  memory_.unmap(range, range.start + 128_KiB, 64_KiB, {});
  memory_.unmap(range, range.start + 256_KiB, 64_KiB, {});
  memory_.unmap(range, range.start, 64_KiB, {});
  memory_.release(range);
  testing::expect_nothing_held(*device_);
}

TEST_P(VirtualMemoryTest, PageSizesAreChosen) {
  const VirtualMemory::PageSizes sizes = memory_.page_sizes();
  EXPECT_LE(sizes.smallest, 4_KiB);
  EXPECT_GE(sizes.largest, 2_MiB);
  for (std::size_t page = sizes.smallest; page <= std::min(sizes.largest, 2_MiB); page *= 2) {
    const AddressRange range = memory_.reserve(4 * page, page).value();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(range.start) % page, 0U);
    ASSERT_TRUE(memory_.map(range, range.start + page, page));
    if (is_writable()) std::memset(range.start + page, 1, page);
    memory_.unmap(range, range.start + page, page, {});
    memory_.release(range);
  }
  for (const std::size_t page : {std::size_t{0}, sizes.smallest / 2, sizes.largest * 2, 12_KiB}) {
    const Expected<AddressRange> range = memory_.reserve(1_MiB, page);
    ASSERT_FALSE(range);
    EXPECT_EQ(range.error().code, Errc::bad_alignment);
  }
  EXPECT_EQ(memory_.reserve(0, 4_KiB).error().code, Errc::too_large);
  EXPECT_EQ(memory_.reserve(unbounded, 4_KiB).error().code, Errc::too_large);
  EXPECT_EQ(memory_.reserve(unbounded / 2, 4_KiB).error().code, Errc::out_of_memory);
  testing::expect_nothing_held(*device_);
}

TEST_P(VirtualMemoryTest, APeakIsThatOfBlocksAndPagesTogether) {
  const AddressRange range = memory_.reserve(1_MiB, 4_KiB).value();
  ASSERT_TRUE(memory_.map(range, range.start, 1_MiB));
  const Block block = device_->allocate(4_KiB);
  memory_.unmap(range, range.start, 1_MiB, {});
  EXPECT_EQ(device_->stats().reserved.peak, 1_MiB + block.bytes);
  EXPECT_EQ(device_->stats().reserved.current, block.bytes);
  EXPECT_EQ(device_->stats().live_granted.peak, block.bytes);
  device_->reset_peaks();
  EXPECT_EQ(device_->stats().reserved.peak, block.bytes);
  memory_.release(range);
  device_->deallocate(block);
  testing::expect_nothing_held(*device_);
}

TEST_P(VirtualMemoryTest, AnyOrderOfMappingKeepsTheLawsAndTheContents) {
  const std::uint64_t seed = testing::seed_or(5);
  SCOPED_TRACE(testing::replay_hint(seed));
  testing::Random random(seed);
  constexpr std::size_t page = 4_KiB;
  constexpr std::size_t pages = 512;
  const AddressRange range = memory_.reserve(pages * page, page).value();
  std::vector<int> written(pages, -1);  // of each page, where it is mapped
  for (int step = 0; step < 2000; ++step) {
    const std::size_t first = random.below(pages);
    std::size_t last = first + 1;
    const std::size_t most = first + 1 + random.below(16);
    while (last < std::min(most, pages) && (written[last] < 0) == (written[first] < 0))
      ++last;
    std::byte* start = range.start + first * page;
    const bool is_mapped = written[first] >= 0;
    if (!is_mapped) {
      ASSERT_TRUE(memory_.map(range, start, (last - first) * page));
    }
    for (std::size_t i = first; i < last; ++i) {
      auto* at = reinterpret_cast<unsigned char*>(range.start + i * page);
      if (is_mapped && is_writable()) {
        EXPECT_EQ(at[7], written[i]);
      }
      written[i] = is_mapped ? -1 : step % 251;
      if (!is_mapped && is_writable()) at[7] = static_cast<unsigned char>(step % 251);
    }
    if (is_mapped) memory_.unmap(range, start, (last - first) * page, {});
    const auto mapped = std::count_if(written.begin(), written.end(), [](int w) { return w >= 0; });
    ASSERT_EQ(device_->stats().reserved.current, static_cast<std::size_t>(mapped) * page);
  }
  EXPECT_EQ(device_->validate(), "");
  for (std::size_t i = 0; i < pages; ++i) {
    if (written[i] >= 0) memory_.unmap(range, range.start + i * page, page, {});
  }
  memory_.release(range);
  testing::expect_nothing_held(*device_);
}

TEST(VirtualMemoryOf, ADeviceWithoutItSaysSo) {
  EXPECT_EQ(make<PmrDevice>(std::pmr::new_delete_resource())->virtual_memory(), nullptr);
}

/// Pages of the range that the system backs with memory.
std::size_t resident(const AddressRange& range) {
  std::vector<unsigned char> pages(range.bytes / 4_KiB);
  EXPECT_EQ(mincore(range.start, range.bytes, pages.data()), 0);
  return static_cast<std::size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char in) { return (in & 1U) != 0; }));
}

TEST(HostPages, WhatIsMappedIsBackedAndNothingElse) {
  const auto device = make<HostDevice>();
  VirtualMemory& memory = *device->virtual_memory();
  const AddressRange range = memory.reserve(16_MiB, 4_KiB).value();
  EXPECT_EQ(resident(range), 0U);
  ASSERT_TRUE(memory.map(range, range.start + 4_MiB, 12_KiB));
  EXPECT_EQ(resident(range), 3U);  // and no huge page
  memory.unmap(range, range.start + 4_MiB, 12_KiB, {});
  EXPECT_EQ(resident(range), 0U);
  memory.release(range);
}

TEST(HostPages, HolesCostNoMappingOfTheSystem) {
  const auto mappings = [] {
    std::ifstream maps("/proc/self/maps");
    return std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
  };
  const auto device = make<HostDevice>();
  VirtualMemory& memory = *device->virtual_memory();
  const AddressRange range = memory.reserve(64_MiB, 4_KiB).value();
  const auto before = mappings();
  for (std::size_t at = 0; at < range.bytes; at += 8_KiB)
    ASSERT_TRUE(memory.map(range, range.start + at, 4_KiB));
  EXPECT_LE(mappings(), before + 8);
  for (std::size_t at = 0; at < range.bytes; at += 8_KiB)
    memory.unmap(range, range.start + at, 4_KiB, {});
  memory.release(range);
  testing::expect_nothing_held(*device);
}

TEST(HostPages, MappingMoreThanThereIsFailsAndIsTakenBack) {
  const auto device = make<HostDevice>();
  VirtualMemory& memory = *device->virtual_memory();
  const std::size_t too_much = device->limits().total_memory + 2_MiB;
  const Expected<AddressRange> range = memory.reserve(too_much, 2_MiB);
  if (!range) GTEST_SKIP() << "the system does not let addresses outnumber memory";
  const Expected<void> mapped = memory.map(*range, range->start, range->bytes);
  ASSERT_FALSE(mapped);
  EXPECT_EQ(mapped.error().code, Errc::out_of_memory);
  EXPECT_TRUE(memory.map(*range, range->start, 2_MiB));
  memory.unmap(*range, range->start, 2_MiB, {});
  memory.release(*range);
  testing::expect_nothing_held(*device);
}

TEST(SimulatedPages, AreCountedAgainstTheCapacity) {
  const auto device = make<SimulatedDevice>(Options{.capacity = 1_MiB});
  VirtualMemory& memory = *device->virtual_memory();
  const AddressRange range = memory.reserve(1_GiB, 64_KiB).value();
  const Block block = device->allocate(512_KiB);
  EXPECT_FALSE(memory.map(range, range.start, 576_KiB));
  ASSERT_TRUE(memory.map(range, range.start, 512_KiB));
  const Expected<Block> refused = device->try_allocate({.bytes = 1});
  EXPECT_EQ(refused.error().code, Errc::out_of_memory);
  EXPECT_EQ(device->used(), 1_MiB);
  EXPECT_EQ(device->validate(), "");
  memory.unmap(range, range.start, 512_KiB, {});
  memory.release(range);
  device->deallocate(block);
  testing::expect_nothing_held(*device);
}

TEST(SimulatedPages, MappingCostsAndFailsLikeAnAllocation) {
  const auto device = make<SimulatedDevice>(
      Options{.allocate_latency = 5us, .free_latency = 2us, .ns_per_byte = 0.5, .fail_at = 2});
  VirtualMemory& memory = *device->virtual_memory();
  const AddressRange range = memory.reserve(1_MiB, 4_KiB).value();
  const Block block = device->allocate(1024);
  EXPECT_FALSE(memory.map(range, range.start, 8_KiB));  // the second of both kinds
  EXPECT_EQ(device->stats().reserved.current, 1024U);
  ASSERT_TRUE(memory.map(range, range.start, 8_KiB));
  memory.unmap(range, range.start, 8_KiB, {});
  EXPECT_EQ(device->virtual_time(), 15us + 2us + 512ns + 4096ns);
  EXPECT_EQ(device->allocation_calls(), 3U);
  EXPECT_EQ(device->free_calls(), 1U);
  memory.release(range);
  device->deallocate(block);
  testing::expect_nothing_held(*device);
}

TEST(SimulatedPages, ReservingFailsWhereTheHostHasNoMemoryForATable) {
  const auto device = make<SimulatedDevice>();
  for (int n = 1;; ++n) {
    const testing::FailingNew failing(n);
    const Expected<AddressRange> range = device->virtual_memory()->reserve(1_GiB, 4_KiB);
    if (!testing::FailingNew::has_failed()) {
      device->virtual_memory()->release(range.value());
      break;
    }
    ASSERT_FALSE(range);
    EXPECT_EQ(range.error().code, Errc::out_of_memory);
  }
  testing::expect_nothing_held(*device);
}

TEST(SimulatedPages, BrokenLawsAreToldOf) {
  const auto law_after = [](auto&& what) {
    const auto device = make<SimulatedDevice>();
    VirtualMemory& memory = *device->virtual_memory();
    const AddressRange range = memory.reserve(1_MiB, 4_KiB).value();
    EXPECT_TRUE(memory.map(range, range.start, 8_KiB));
    what(memory, range);
    return device->validate();
  };
  using Memory = VirtualMemory&;
  using Range = const AddressRange&;
  EXPECT_EQ(law_after([](Memory, Range) {}), "");
  EXPECT_EQ(law_after([](Memory memory, Range range) {
              EXPECT_FALSE(memory.map(range, range.start + 4_KiB, 8_KiB));
            }),
            "simulated: no page is mapped twice");
  EXPECT_EQ(law_after([](Memory memory, Range range) {
              memory.unmap(range, range.start + 4_KiB, 8_KiB, {});
            }),
            "simulated: a page that is unmapped was mapped");
  EXPECT_EQ(law_after([](Memory memory, Range range) {
              EXPECT_FALSE(memory.map(range, range.start + range.bytes, 4_KiB));
            }),
            "simulated: what is mapped and unmapped lies in a range that is reserved");
  EXPECT_EQ(law_after([](Memory memory, Range range) {
              EXPECT_FALSE(memory.map(range, range.start + 8_KiB, 512));
            }),
            "simulated: what is mapped and unmapped is whole pages");
  EXPECT_EQ(law_after([](Memory memory, Range range) { memory.release(range); }),
            "simulated: no page of a range that is released is mapped");
  EXPECT_EQ(law_after([](Memory memory, Range range) {
              memory.unmap(range, range.start, 8_KiB, {});
              memory.release(range);
              memory.release(range);
            }),
            "simulated: a range is released once");
}

}  // namespace
}  // namespace cistern
