// Locked pages of the host, as the system itself counts them, and what happens where it locks no
// more.
#include "device/host_residency.hpp"

#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cistern/adaptor/resident.hpp"
#include "cistern/core/registration.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/stack/stack.hpp"
#include "device/mapping.hpp"
#include "device/system_file.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;

/// Bytes that this process has locked.
std::size_t locked() {
  return SystemFile("/proc/self/status").number("VmLck:").value_or(0) << 10U;
}

/// Whether each page of [start, start + bytes) is in memory.
bool is_backed(const void* start, std::size_t bytes) {
  std::vector<unsigned char> pages(bytes / page_size());
  if (mincore(const_cast<void*>(start), bytes, pages.data()) != 0) return false;
  for (const unsigned char page : pages) {
    if ((page & 1U) == 0) return false;
  }
  return true;
}

/// Some memory of the test's own, page by page.
class MappedPages {
 public:
  explicit MappedPages(std::size_t pages)
      : bytes_(pages * page_size()),
        start_(static_cast<std::byte*>(map_aligned(bytes_, page_size()))) {}
  MappedPages(const MappedPages&) = delete;
  MappedPages& operator=(const MappedPages&) = delete;
  MappedPages(MappedPages&&) = delete;
  MappedPages& operator=(MappedPages&&) = delete;
  ~MappedPages() { munmap(start_, bytes_); }

  [[nodiscard]] std::byte* at(std::size_t byte) const { return start_ + byte; }
  [[nodiscard]] Block part(std::size_t from, std::size_t to) const {
    return {.memory = start_, .offset = from, .bytes = to - from};
  }

 private:
  const std::size_t bytes_;
  std::byte* const start_;
};

/// Whether the system locks anything here. (A sanitizer's mlock does nothing, and says it did.)
bool system_locks() {
  const MappedPages probe(1);
  const std::size_t before = locked();
  const bool locks = mlock(probe.at(0), page_size()) == 0 && locked() > before;
  munlock(probe.at(0), page_size());
  return locks;
}

class HostResidencyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!system_locks()) GTEST_SKIP() << "the system locks nothing here";
  }

  const Ref<HostDevice> device_ = make<HostDevice>();
  Residency& residency_ = *device_->residency();
};

TEST_F(HostResidencyTest, LocksWholePagesAndUnlocksThem) {
  const std::size_t before = locked();
  const MappedPages memory(8);
  const Block part = memory.part(page_size() + 100, 3 * page_size() + 1);
  ASSERT_TRUE(residency_.make_resident({&part, 1}));
  EXPECT_EQ(locked() - before, 3 * page_size());
  EXPECT_TRUE(is_backed(memory.at(page_size()), 3 * page_size()));
  EXPECT_FALSE(is_backed(memory.at(4 * page_size()), page_size()));
  EXPECT_EQ(device_->stats().resident.current, part.bytes);
  residency_.end_residency({&part, 1});
  EXPECT_EQ(locked(), before);
}

TEST_F(HostResidencyTest, APageThatTwoPartsShareStaysLockedForTheOther) {
  const std::size_t before = locked();
  const MappedPages memory(4);
  const std::size_t page = page_size();
  const std::vector<Block> parts = {memory.part(0, page + 10), memory.part(page + 10, page + 20),
                                    memory.part(page + 20, 2 * page + 1)};
  ASSERT_TRUE(residency_.make_resident(parts));
  EXPECT_EQ(locked() - before, 3 * page);
  residency_.end_residency({parts.data(), 1});
  EXPECT_EQ(locked() - before, 2 * page);
  residency_.end_residency({&parts[2], 1});
  EXPECT_EQ(locked() - before, page);
  residency_.end_residency({&parts[1], 1});
  EXPECT_EQ(locked(), before);
  EXPECT_EQ(device_->validate(), "");
}

TEST_F(HostResidencyTest, AStackLocksWhatItHoldsAndItsContentsStay) {
  const std::size_t before = locked();
  const Stack stack = open("cache > resident > host");
  testing::Ledger ledger(*stack);
  for (const std::size_t bytes : std::vector<std::size_t>{100, 200, 5000, 300'000, 1'000'000})
    ASSERT_TRUE(ledger.allocate({.bytes = bytes}));
  ASSERT_TRUE(ledger.allocate_batch(std::vector<Request>(50, {.bytes = 700})));
  EXPECT_GE(locked() - before, stack->stats().reserved.current);
  EXPECT_EQ(stack->stats().resident.current, stack->stats().reserved.current);
  EXPECT_EQ(stack->stats().residency_commits, 6U);
  ledger.free_all();
  stack->trim();
  EXPECT_EQ(locked(), before);
  testing::expect_nothing_held(*stack);
}

TEST_F(HostResidencyTest, ARegisteredArrayOfTheProgramIsLockedAndKeepsItsBytes) {
  const std::size_t before = locked();
  std::vector<unsigned char> weights(100'000, 7);
  {
    const Expected<Registration> registration =
        register_existing(*device_, weights.data(), weights.size());
    ASSERT_TRUE(registration);
    EXPECT_GE(locked() - before, weights.size());
    EXPECT_EQ(device_->stats().resident.current, 100'000U);
  }
  EXPECT_EQ(locked(), before);
  EXPECT_THAT(weights, ::testing::Each(7));
}

// --- where the system refuses: the calls are answered here ---

int calls_left = 0;
std::set<std::uintptr_t> locked_pages;

// A call that fails may have locked a beginning.
int lock_some(const void* start, std::size_t bytes) noexcept {
  const bool fails = calls_left-- <= 0;
  const auto first = reinterpret_cast<std::uintptr_t>(start);
  for (std::size_t byte = 0; byte < (fails ? 1 : bytes); byte += page_size())
    locked_pages.insert(first + byte);
  errno = ENOMEM;
  return fails ? -1 : 0;
}

int unlock_some(const void* start, std::size_t bytes) noexcept {
  const auto first = reinterpret_cast<std::uintptr_t>(start);
  for (std::size_t byte = 0; byte < bytes; byte += page_size())
    locked_pages.erase(first + byte);
  return 0;
}

TEST(HostResidencyRefused, PopulatesInsteadAndSaysSoOnce) {
  const testing::CaughtReports reports;
  const auto device = make<HostDevice>();
  HostResidency residency(*device, {.lock = &lock_some, .unlock = &unlock_some});
  calls_left = 0;
  const MappedPages memory(4);
  std::memset(memory.at(0), 42, 2 * page_size());
  const Block part = memory.part(10, 3 * page_size() + 10);
  for (int i = 0; i < 2; ++i) {
    const Expected<void> made = residency.make_resident({&part, 1});
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, Errc::out_of_memory);
    EXPECT_EQ(residency.last_refusal(), made.error());
  }
  EXPECT_TRUE(is_backed(memory.at(page_size()), 2 * page_size()));
  EXPECT_FALSE(is_backed(memory.at(3 * page_size()), page_size()));  // not the part's alone
  for (std::size_t i = 0; i < 2 * page_size(); ++i)
    ASSERT_EQ(memory.at(0)[i], std::byte{42});
  EXPECT_EQ(device->stats().resident.current, 0U);
  EXPECT_EQ(device->stats().residency_refusals, 2U);
  ASSERT_EQ(reports.all().size(), 1U);
  EXPECT_THAT(reports.all()[0], ::testing::StartsWith("host could not lock 12288 bytes in memory"));
  residency.end_residency({&part, 1});
}

// At each lock of a batch, some of whose pages are locked already.
TEST(HostResidencyRefused, ABatchThatFailsHalfWayLeavesNothingLocked) {
  const testing::CaughtReports reports;
  const auto device = make<HostDevice>();
  const MappedPages memory(20);
  const std::size_t page = page_size();
  const std::vector<Block> first = {memory.part(2 * page, 3 * page),
                                    memory.part(6 * page, 7 * page)};
  const std::vector<Block> batch = {memory.part(0, 4 * page), memory.part(4 * page, 9 * page),
                                    memory.part(9 * page + 5, 10 * page)};
  bool has_failed = true;
  for (int n = 0; has_failed; ++n) {
    HostResidency residency(*device, {.lock = &lock_some, .unlock = &unlock_some});
    calls_left = 2;
    ASSERT_TRUE(residency.make_resident(first));
    calls_left = n;
    has_failed = !residency.make_resident(batch);
    EXPECT_EQ(locked_pages.size(), has_failed ? 2U : 10U) << n;
    calls_left = 100;
    EXPECT_TRUE(residency.make_resident(batch));
    EXPECT_EQ(locked_pages.size(), 10U);
    residency.end_residency(batch);
    if (!has_failed) residency.end_residency(batch);
    EXPECT_EQ(locked_pages.size(), 2U);
    residency.end_residency(first);
    EXPECT_EQ(locked_pages.size(), 0U);
  }
  EXPECT_EQ(device->stats().resident.current, 0U);
}

// The real limit, in a child that may not exceed it.
TEST(HostResidencyRefused, WithinTheLimitOfTheProcess) {
  if (!system_locks()) GTEST_SKIP() << "the system locks nothing here";
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    set_report_sink([](std::string_view) noexcept {});
    const rlimit limit{.rlim_cur = 64_KiB, .rlim_max = 64_KiB};
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) _exit(2);
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(2);  // and no capability
    const Stack stack = open("resident > host");
    const Block small = stack->allocate(16_KiB);
    const std::size_t after_small = stack->stats().resident.current;
    const Block large = stack->allocate(1_MiB);
    const bool is_right = after_small == small.bytes &&
                          stack->stats().resident.current == after_small &&
                          stack->stats().residency_refusals == 1 && locked() <= 64_KiB &&
                          is_backed(large.memory, large.bytes) && stack->stats().failures == 0;
    stack->deallocate(large);
    stack->deallocate(small);
    _exit(is_right && locked() == 0 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_NE(WEXITSTATUS(status), 1);
}

}  // namespace
}  // namespace cistern
