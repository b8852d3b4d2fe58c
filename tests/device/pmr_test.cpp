#include "cistern/device/pmr.hpp"

#include <array>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/pool/cache.hpp"
#include "support/ledger.hpp"

namespace cistern {
namespace {

using namespace literals;

/// Counts what is out, insists on being given back what it gave, and fails as it is told.
class CountingMemory final : public std::pmr::memory_resource {
 public:
  std::size_t out = 0;
  bool throws_bad_alloc = false;
  bool throws_otherwise = false;

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    if (throws_bad_alloc) throw std::bad_alloc();
    if (throws_otherwise)
      throw 42;  // NOLINT(hicpp-exception-baseclass): a foreign upstream may throw anything
    out += bytes + alignment;
    return std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    out -= bytes + alignment;
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
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

}  // namespace
}  // namespace cistern
