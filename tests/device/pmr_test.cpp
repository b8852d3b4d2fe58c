#include "cistern/device/pmr.hpp"

#include <array>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/pool/cache.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#define CISTERN_SANITIZED  // NOLINT(cppcoreguidelines-macro-usage)
#endif
#endif

namespace cistern {
namespace {

using namespace literals;

/// Counts what is out, insists on being given back what it gave, and fails as it is told.
class CountingMemory final : public std::pmr::memory_resource {
 public:
  std::size_t out = 0;
  bool throws_bad_alloc = false;
  bool throws_otherwise = false;
  bool throws_when_freed = false;
  bool gives_null = false;
  std::size_t off_by = 0;  // bytes by which the alignment is missed

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    if (throws_bad_alloc) throw std::bad_alloc();
    if (throws_otherwise)
      throw 42;  // NOLINT(hicpp-exception-baseclass): a foreign upstream may throw anything
    if (gives_null) return nullptr;
    out += bytes + alignment;
    void* memory = std::pmr::new_delete_resource()->allocate(bytes + off_by, alignment);
    return static_cast<std::byte*>(memory) + off_by;
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    out -= bytes + alignment;
    std::pmr::new_delete_resource()->deallocate(static_cast<std::byte*>(memory) - off_by,
                                                bytes + off_by, alignment);
    if (throws_when_freed) throw std::bad_alloc();
  }
  [[nodiscard]] bool do_is_equal(const memory_resource& other) const noexcept override {
    return this == &other;
  }
};

TEST(PmrDevice, AStackStandsOnAMemoryResource) {
  CountingMemory memory;
  {
    const Ref<Cache> cache = make<Cache>(make<PmrDevice>(&memory));
    testing::Ledger ledger(*cache);
    for (std::size_t alignment = 1; alignment <= 64_KiB; alignment *= 4) {
      ASSERT_TRUE(ledger.allocate({.bytes = 10'000, .alignment = alignment}));
    }
    EXPECT_GT(memory.out, 80'000U);
    ledger.expect_in_order();
    ledger.free_all();
    const std::uint64_t misses = cache->stats().misses;
    cache->deallocate(cache->allocate(10'000));
    EXPECT_EQ(cache->stats().misses, misses);
  }
  EXPECT_EQ(memory.out, 0U);
}

TEST(PmrDevice, ExceptionsBecomeValues) {
  CountingMemory memory;
  const auto device = make<PmrDevice>(&memory);
  memory.throws_bad_alloc = true;
  EXPECT_EQ(device->try_allocate({.bytes = 64}).error().code, Errc::out_of_memory);
  memory.throws_bad_alloc = false;
  memory.throws_otherwise = true;
  EXPECT_EQ(device->try_allocate({.bytes = 64}).error().code, Errc::device_failed);
  EXPECT_EQ(device->stats().failures, 2U);
  EXPECT_THROW(make<PmrDevice>(nullptr), std::invalid_argument);
}

TEST(PmrDevice, AMemoryResourceThatBreaksItsWordFailsTheRequest) {
  CountingMemory memory;
  const auto device = make<PmrDevice>(&memory);
  memory.off_by = 8;
  for (const std::size_t alignment : {std::size_t{0}, std::size_t{256}}) {
    const Expected<Block> block = device->try_allocate({.bytes = 100, .alignment = alignment});
    ASSERT_FALSE(block);
    EXPECT_EQ(block.error().code, Errc::device_failed);
    EXPECT_EQ(memory.out, 0U);  // what was of no use went back
  }
  EXPECT_EQ(device->stats().failures, 2U);
  testing::expect_all_accounted_for(*device);
}

TEST(PmrDevice, ANullIsNoMemory) {
#if defined(__SANITIZE_ADDRESS__) || defined(CISTERN_SANITIZED)
  GTEST_SKIP() << "a sanitizer ends the program at the null";
#endif
  CountingMemory memory;
  const auto device = make<PmrDevice>(&memory);
  memory.gives_null = true;
  const Expected<Block> block = device->try_allocate({.bytes = 100});
  ASSERT_FALSE(block);
  EXPECT_EQ(block.error().code, Errc::device_failed);
  testing::expect_all_accounted_for(*device);
}

TEST(PmrDevice, AnExceptionFromAFreeIsReported) {
  const testing::CaughtReports reports;
  CountingMemory memory;
  const auto device = make<PmrDevice>(&memory);
  memory.throws_when_freed = true;
  EXPECT_TRUE(device->deallocate(device->allocate(100)));
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_EQ(reports.all()[0], "pmr: the memory resource threw while it took 128 bytes back");
  testing::expect_all_accounted_for(*device);
}

}  // namespace
}  // namespace cistern
