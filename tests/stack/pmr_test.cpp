#include "cistern/stack/pmr.hpp"

#include <list>
#include <map>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/stack/stack.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;

std::size_t live_blocks(const Stack& stack) {
  return stack->stats().live_blocks.current;
}

TEST(PmrResource, TheStandardContainersLiveInAStack) {
  const Stack stack = open("limit(64MiB) > cache > host");
  {
    PmrResource memory(stack.resource());
    std::pmr::vector<int> numbers(&memory);
    for (int i = 0; i < 100'000; ++i)
      numbers.push_back(i);
    std::pmr::map<int, std::pmr::string> names(&memory);
    for (int i = 0; i < 100; ++i)
      names.emplace(i, "a string that is too long to be kept in place");
    std::pmr::unordered_map<int, int> table(&memory);
    for (int i = 0; i < 1000; ++i)
      table[i] = i;
    std::pmr::list<std::pmr::vector<double>> lists(&memory);
    for (std::size_t i = 0; i < 100; ++i)
      lists.emplace_back(i, 1.0);
    EXPECT_EQ(numbers[99'999], 99'999);
    EXPECT_EQ(names.at(7), "a string that is too long to be kept in place");
    EXPECT_EQ(names.at(7).get_allocator().resource(), &memory);
    EXPECT_GT(live_blocks(stack), 1000U);
    names.erase(7);
    numbers = std::pmr::vector<int>({1, 2, 3}, &memory);
  }
  testing::expect_all_accounted_for(*stack);
}

TEST(PmrResource, GivesTheAlignmentAskedFor) {
  const Stack stack = open("cache > host");
  PmrResource memory(stack.resource());
  for (std::size_t alignment = 1; alignment <= 64_KiB; alignment *= 2) {
    void* pointer = memory.allocate(100, alignment);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pointer) % alignment, 0U) << alignment;
    memory.deallocate(pointer, 100, alignment);
  }
  EXPECT_EQ(live_blocks(stack), 0U);
}

TEST(PmrResource, ZeroBytesHaveAnAddressOfTheirOwn) {
  const Stack stack = open("cache > host");
  PmrResource memory(stack.resource());
  void* one = memory.allocate(0);
  void* other = memory.allocate(0);
  EXPECT_NE(one, nullptr);
  EXPECT_NE(other, nullptr);
  EXPECT_NE(one, other);
  EXPECT_EQ(live_blocks(stack), 2U);
  memory.deallocate(one, 0);
  memory.deallocate(other, 0);
  EXPECT_EQ(live_blocks(stack), 0U);
}

TEST(PmrResource, ExhaustionIsABadAlloc) {
  const Stack stack = open("limit(1KiB) > host");
  PmrResource memory(stack.resource());
  EXPECT_THROW((void)memory.allocate(2_KiB), OutOfMemory);
  EXPECT_THROW((void)memory.allocate(std::numeric_limits<std::size_t>::max() / 2), std::bad_alloc);
  EXPECT_THROW(std::pmr::vector<char>(2_KiB, &memory), std::bad_alloc);
  EXPECT_EQ(live_blocks(stack), 0U);
  memory.deallocate(memory.allocate(1_KiB), 1_KiB);
}

TEST(PmrResource, ABlockThatCannotBeRecordedIsGivenBack) {
  const Stack stack = open("cache > host");
  stack.buffer(1000).reset();  // from now on the stack itself needs nothing of the heap
  for (int n = 1;; ++n) {
    PmrResource memory(stack.resource());
    void* pointer = nullptr;
    {
      const testing::FailingNew failing(n);
      try {
        pointer = memory.allocate(1000);
      } catch (const std::bad_alloc&) {
        pointer = nullptr;
      }
      if (!testing::FailingNew::has_failed()) break;
    }
    EXPECT_EQ(pointer, nullptr) << n;
    EXPECT_EQ(live_blocks(stack), 0U) << n;
    ASSERT_LT(n, 100);
  }
  EXPECT_EQ(live_blocks(stack), 0U) << "the last one was given back with its resource";
}

TEST(PmrResource, APointerThatIsNotItsOwnIsReportedAndLeftAlone) {
  const testing::CaughtReports reports;
  const Stack stack = open("cache > host");
  PmrResource memory(stack.resource());
  int own = 0;
  memory.deallocate(&own, sizeof own);
  void* pointer = memory.allocate(100);
  memory.deallocate(static_cast<char*>(pointer) + 1, 99);
  memory.deallocate(pointer, 100);
  memory.deallocate(pointer, 100);
  ASSERT_EQ(reports.all().size(), 3U);
  for (const std::string& line : testing::CaughtReports::all()) {
    EXPECT_TRUE(line.starts_with("pmr refused to free 0x")) << line;
  }
  EXPECT_EQ(stack->stats().frees, 1U);
  EXPECT_EQ(stack->stats().refused_frees, 0U) << "the stack was not asked";
}

TEST(PmrResource, GivesBackInTheEndWhatWasNot) {
  const testing::CaughtReports reports;
  const Stack stack = open("cache > host");
  {
    PmrResource memory(stack.resource());
    for (std::size_t i = 0; i < 100; ++i)
      ASSERT_NE(memory.allocate(i * 100), nullptr);
    EXPECT_EQ(live_blocks(stack), 100U);
  }
  EXPECT_EQ(live_blocks(stack), 0U);
  EXPECT_TRUE(reports.all().empty());
}

TEST(PmrResource, OutlivesTheStackObject) {
  const testing::CaughtReports reports;
  Stack stack = open("cache > host");
  PmrResource memory(stack.resource());
  std::pmr::vector<int> numbers(1000, 7, &memory);
  EXPECT_EQ(stack.close().blocks, 1U);
  numbers.resize(10'000, 8);
  EXPECT_EQ(numbers[9'999], 8);
  EXPECT_TRUE(reports.all().empty()) << "the resource holds the stack";
}

TEST(PmrResource, IsEqualToItselfOnly) {
  const Stack stack = open("host");
  const PmrResource one(stack.resource());
  const PmrResource other(stack.resource());
  EXPECT_TRUE(one == one);
  EXPECT_FALSE(one == other);
  EXPECT_FALSE(one == *std::pmr::new_delete_resource());
}

TEST(PmrResource, RefusesMemoryThatTheCpuCannotUse) {
  EXPECT_THROW(PmrResource(open("cache > simulated").resource()), std::invalid_argument);
  EXPECT_THROW(PmrResource(Ref<Resource>()), std::invalid_argument);
}

}  // namespace
}  // namespace cistern
