#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include <gtest/gtest.h>
#include <unistd.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/adaptor/recorder.hpp"
#include "cistern/core/device.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/stack/stack.hpp"
#include "stack/cache_buckets.hpp"
#include "stack/default_stack.hpp"
#include "support/environment.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/stage_list.hpp"

namespace cistern {
namespace {

using namespace literals;

template <class T>
const T& as(const Resource& resource) {
  return dynamic_cast<const T&>(resource);
}

const Resource& below(const Stack& stack) {
  return dynamic_cast<const class Stage&>(*stack).upstream();
}

std::string problem_of(const std::string& text, const Bindings& bindings = {}) {
  const auto stack = try_open(text, bindings);
  return stack ? "opened" : stack.error().message();
}

class StackOf : public ::testing::TestWithParam<const char*> {};

TEST_P(StackOf, OpensServesAndAccounts) {
  const Stack stack = open(GetParam());
  EXPECT_EQ(stack.text(), GetParam());
  testing::Ledger ledger(*stack);
  for (const std::size_t bytes :
       {1_KiB, 5000_KiB, std::size_t{0}, 64_KiB, std::size_t{1}, 64_KiB}) {
    ASSERT_TRUE(ledger.allocate({.bytes = bytes}));
  }
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_all_accounted_for(*stack);
}

INSTANTIATE_TEST_SUITE_P(
    Valid, StackOf,
    ::testing::Values(
        "host", "cache > host", "limit(2GiB) > cache > host",
        "cache(buckets=table, max_bytes=4GiB, per_bucket=16, when_full=reject) > host",
        "cache(buckets=pow2) > host", "cache(buckets=fit, slack=2, max_bytes=32MiB) > host",
        "cache(buckets=geometric, per_doubling=4) > host",
        "cache(buckets=[4KiB, 64KiB, 1MiB]) > host",
        "cache(idle_ratio=none)>cache(idle_ratio=0.5)>cache(idle_ratio=50%)>host",
        "limit(90%) > cache(max_bytes=10%) > simulated(capacity=80GB)",
        "limit(bytes=1.5GiB) > host", "host(map_from=1MiB, huge_pages=transparent, zero=true)",
        "netcl > host", "mlx > host", "netcl_unbounded > limit(100%) > simulated",
        "cache(buckets=fit, slack=1.5, slack_bytes=64KiB, max_bytes=none, per_bucket=none) > host",
        " cache\t(buckets\n=\npow2 )\r\n> host "));

TEST(Open, MakesTheStagesThatAreWritten) {
  const Stack stack = open(
      "limit(3MiB) > cache(max_bytes=1MiB, per_bucket=7, idle_ratio=25%) > host(map_from=1MiB, "
      "zero=true)");
  EXPECT_EQ(as<Limit>(*stack).max_bytes(), 3_MiB);
  const auto& cache = as<Cache>(below(stack));
  EXPECT_EQ(cache.max_bytes(), 1_MiB);
  EXPECT_EQ(cache.per_bucket(), 7U);
  EXPECT_EQ(cache.idle_ratio(), 0.25);
  const HostDevice::Options& host = as<HostDevice>(cache.upstream()).options();
  EXPECT_EQ(host.map_from, 1_MiB);
  EXPECT_TRUE(host.zero);
  EXPECT_EQ(host.huge_pages, HugePages::automatic);
}

TEST(Open, PositionalArgumentsFillTheParametersInOrder) {
  const Stack stack = open("host(1MiB, never, zero=true)");
  const HostDevice::Options& host = as<HostDevice>(*stack).options();
  EXPECT_EQ(host.map_from, 1_MiB);
  EXPECT_EQ(host.huge_pages, HugePages::never);
  EXPECT_TRUE(host.zero);
}

TEST(Open, WhatIsNotWrittenIsTheDefaultOfTheOptions) {
  const HostDevice::Options host = as<HostDevice>(*open("host")).options();
  EXPECT_EQ(host.map_from, HostDevice::Options{}.map_from);
  EXPECT_EQ(host.huge_pages, HostDevice::Options{}.huge_pages);
  EXPECT_EQ(host.zero, HostDevice::Options{}.zero);

  const Cache::Options written = language::CacheOptions{}.resolved();
  const Cache::Options made;
  EXPECT_EQ(std::get<Geometric>(written.buckets).per_doubling,
            std::get<Geometric>(made.buckets).per_doubling);
  EXPECT_EQ(written.max_bytes, made.max_bytes);
  EXPECT_EQ(written.per_bucket, made.per_bucket);
  EXPECT_EQ(written.when_full, made.when_full);
  EXPECT_EQ(written.idle_ratio, made.idle_ratio);
}

TEST(Open, BucketsAreThePoliciesThatAreNamed) {
  const auto granted = [](const char* buckets, std::size_t bytes) {
    const Stack stack =
        open(std::string("cache(buckets=") + buckets + ") > simulated(granularity=1, alignment=1)");
    return stack.buffer(bytes).capacity();
  };
  EXPECT_EQ(granted("pow2", 5000), 8192U);
  EXPECT_EQ(granted("geometric, per_doubling=2", 5000), 6144U);
  EXPECT_EQ(granted("geometric", 5000), 5120U);
  EXPECT_EQ(granted("table", 5000), 16_KiB);
  EXPECT_EQ(granted("[5001, 6000]", 5000), 5001U);
  EXPECT_EQ(granted("fit", 5000), 5000U);
}

TEST(Open, PercentagesAreOfTheDevicesMemory) {
  EXPECT_EQ(as<Limit>(*open("limit(90%) > simulated(capacity=1000)")).max_bytes(), 900U);
  EXPECT_EQ(as<Limit>(*open("limit(100%) > cache > simulated(capacity=80GB)")).max_bytes(),
            80'000'000'000U);
  EXPECT_EQ(as<Limit>(*open("limit(0.5%) > simulated(capacity=1000)")).max_bytes(), 5U);
  EXPECT_EQ(as<Cache>(*open("cache(max_bytes=50%) > simulated(capacity=1GiB)")).max_bytes(),
            512_MiB);
  EXPECT_EQ(as<Limit>(*open("limit(50%) > host")).max_bytes(), host_memory() / 2);
}

/// A device that does not know how much memory it has.
class Boundless final : public Device {
 public:
  Boundless() : Device(DeviceLimits{.kind = "boundless", .name = "for this test"}) {}

 private:
  Expected<Piece> obtain(std::size_t bytes, std::size_t, Stream) noexcept override {
    return tl::unexpected(fail(Errc::out_of_memory, bytes));
  }
  void give_back(Piece, Stream) noexcept override {}
};

TEST(Open, APercentageOfAnUnknownMemoryIsRefused) {
  const Bindings bindings = {{"mine", make<Boundless>()}};
  const auto stack = try_open("cache > limit(90%) > mine", bindings);
  ASSERT_FALSE(stack);
  EXPECT_EQ(
      stack.error().what(),
      std::string("bytes: the boundless device does not say how much memory it has; write a size\n"
                  "  cache > limit(90%) > mine\n"
                  "                ^~~"));
  EXPECT_EQ(problem_of("cache > limit(90GB) > mine", bindings), "opened");
}

TEST(Open, WhatCannotBeMadeIsShownWhereItIsWrittenAmongRecipesAndNestedStacks) {
  const auto stack =
      try_open("mlx > fallback(netcl > limit(90%) > mine, host)", {{"mine", make<Boundless>()}});
  ASSERT_FALSE(stack);
  EXPECT_EQ(stack.error().position(), 29U);
  EXPECT_EQ(stack.error().length(), 3U);
}

TEST(Open, ALimitOfZeroRefusesEverything) {
  for (const char* text : {"limit(0) > host", "limit(0%) > host"}) {
    const Stack stack = open(text);
    EXPECT_FALSE(stack->try_allocate({.bytes = 1})) << text;
    EXPECT_TRUE(stack->try_allocate({.bytes = 0})) << text;
  }
}

TEST(Open, TheSimulatedDeviceTakesItsOptions) {
  const Stack stack = open(
      "simulated(capacity=1MiB, granularity=4KiB, alignment=8KiB, allocate_latency=10us, "
      "free_latency=250ns, "
      "ns_per_byte=0.5, fail_at=2, fail_every=5, fail_probability=0%, seed=7, fail_beyond=64KiB)");
  const auto& device = as<SimulatedDevice>(*stack);
  EXPECT_EQ(device.limits().total_memory, 1_MiB);
  EXPECT_EQ(device.limits().granularity, 4_KiB);
  EXPECT_EQ(device.limits().alignment, 8_KiB);
  EXPECT_TRUE(stack->deallocate(stack->allocate(4_KiB)));
  EXPECT_EQ(device.virtual_time(), std::chrono::nanoseconds(10'000 + 2048 + 250));
  EXPECT_FALSE(stack->try_allocate({.bytes = 1})) << "fail_at=2";
  EXPECT_FALSE(stack->try_allocate({.bytes = 68_KiB})) << "fail_beyond=64KiB";
  EXPECT_TRUE(stack->deallocate(stack->allocate(64_KiB)));
  EXPECT_FALSE(stack->try_allocate({.bytes = 1})) << "fail_every=5";
  EXPECT_FALSE(open("simulated(fail_probability=100%)")->try_allocate({.bytes = 1}));
}

TEST(Open, TraceRecordsToTheFile) {
  const std::filesystem::path file =
      std::filesystem::path(::testing::TempDir()) / "open \"test\" é.ctrace";
  std::filesystem::remove(file);
  std::string quoted;
  for (const char c : file.string())
    quoted += c == '"' ? std::string("\\\"") : std::string(1, c);
  {
    const Stack stack = open("trace(\"" + quoted + "\") > host");
    EXPECT_NE(dynamic_cast<Recorder*>(stack.resource().get()), nullptr);
    const Buffer buffer = stack.buffer(100);
  }
  EXPECT_GT(std::filesystem::file_size(file), 0U);
  std::filesystem::remove(file);
}

TEST(Open, NothingIsMadeBeforeTheWholeTextIsRight) {
  const std::filesystem::path file = std::filesystem::path(::testing::TempDir()) / "never.ctrace";
  std::filesystem::remove(file);
  EXPECT_NE(problem_of("cach > trace(\"" + file.string() + "\") > host"), "opened");
  EXPECT_NE(problem_of("limit(1GX) > trace(\"" + file.string() + "\") > host"), "opened");
  EXPECT_NE(problem_of("trace(\"" + file.string() + "\") > cache"), "opened");
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST(Check, FindsWhatOpenWouldAndMakesNothing) {
  const std::filesystem::path file = std::filesystem::temp_directory_path() /
                                     ("cistern-check-" + std::to_string(getpid()) + ".trace");
  EXPECT_TRUE(check("trace(\"" + file.string() + "\") > cache > host"));
  EXPECT_FALSE(std::filesystem::exists(file));
  const auto wrong = check("cash > host");
  ASSERT_FALSE(wrong);
  EXPECT_STREQ(wrong.error().what(), try_open("cash > host").error().what());
  EXPECT_TRUE(check("cache > mine", {{"mine", make<HostDevice>()}}));
  EXPECT_FALSE(check("cache > mine"));
}

TEST(Open, WhatAStageThrowsPasses) {
  EXPECT_THROW((void)try_open("trace(\"/no/such/folder/x\") > host"), std::system_error);
}

TEST(Open, ThrowsWhatTryOpenReturns) {
  try {
    const Stack stack = open("cach > host");
    FAIL();
  } catch (const StackError& error) {
    EXPECT_EQ(error.position(), 0U);
    EXPECT_EQ(error.length(), 4U);
    EXPECT_EQ(std::string(error.what()), try_open("cach > host").error().what());
  }
}

// --- the program's own resources ---

TEST(Bind, ANameStandsForAResourceOfTheProgram) {
  const Ref<HostDevice> device = make<HostDevice>();
  const Bindings bindings = {{"mine", device}, {"other", make<Cache>(device)}};
  {
    const Stack stack = open("limit(2GiB) > cache > mine", bindings);
    EXPECT_EQ(&stack->device(), device.get());
    const Buffer buffer = stack.buffer(1000);
    EXPECT_EQ(device->stats().live_blocks.current, 1U);
  }
  EXPECT_EQ(device->stats().live_blocks.current, 0U);
  EXPECT_EQ(open("mine", bindings).resource().get(), device.get());
  EXPECT_EQ(&below(open("limit(1KiB) > other", bindings)), bindings.at("other").get());
}

TEST(Bind, WrongUsesAreRefused) {
  const Ref<HostDevice> device = make<HostDevice>();
  EXPECT_EQ(
      problem_of("mine > host", {{"mine", device}}),
      "'mine' is a resource of the program: it stands at the right end, with nothing below it");
  EXPECT_EQ(problem_of("mine(1)", {{"mine", device}}),
            "'mine' is a resource of the program and takes no arguments");
  EXPECT_EQ(problem_of("cache > mine", {{"mine", {}}}), "'mine' is bound to no resource");
  const std::string taken = " is a name of the language and cannot name a resource of the program";
  EXPECT_EQ(problem_of("cache > host", {{"host", device}}), "'host'" + taken);
  EXPECT_EQ(problem_of("mlx", {{"mlx", device}}), "'mlx'" + taken);
  EXPECT_EQ(problem_of("cache > host", {{"mlx", device}}), "opened")
      << "only a name that is used matters";
  EXPECT_EQ(problem_of("cache > mime", {{"mine", device}}), "there is no stage 'mime' (there are " +
                                                                testing::stage_list() +
                                                                ", mine); did you mean 'mine'?");
}

// --- closing ---

TEST(Close, SaysWhatIsStillOut) {
  const testing::CaughtReports reports;
  Stack stack = open("cache > host");
  EXPECT_TRUE(stack);
  Buffer small = stack.buffer(100);
  const Buffer large = stack.buffer(1_MiB);
  const Outstanding out = stack.close();
  EXPECT_EQ(out.blocks, 2U);
  EXPECT_EQ(out.bytes, small.capacity() + large.capacity());
  EXPECT_EQ(out.largest, large.capacity());
  EXPECT_EQ(reports.all().size(), 1U);
  EXPECT_FALSE(stack);
  EXPECT_EQ(stack.text(), "cache > host");
  EXPECT_EQ(stack.close().blocks, 0U) << "closing again changes nothing";
  small.reset();
  EXPECT_EQ(reports.all().size(), 1U) << "what was out may still be freed";
}

TEST(Close, AnEmptyStackIsSilent) {
  const testing::CaughtReports reports;
  Stack stack = open("limit(1MiB) > cache > host");
  stack.buffer(1000).reset();
  EXPECT_EQ(stack.close().blocks, 0U);
  EXPECT_TRUE(reports.all().empty());
  EXPECT_EQ(Stack().close().blocks, 0U);
}

// --- the default resource ---

TEST(DefaultStack, IsACacheOnTheHostUnlessTheEnvironmentSaysOtherwise) {
  for (const char* nothing : {static_cast<const char*>(nullptr), ""}) {
    const testing::Environment environment("CISTERN_STACK", nothing);
    EXPECT_EQ(language::open_default().text(), "cache > host");
  }
  const testing::Environment environment("CISTERN_STACK", "limit(1GiB) > mlx > host");
  EXPECT_EQ(language::open_default().text(), "limit(1GiB) > mlx > host");
}

TEST(DefaultStack, AWrongTextNamesTheVariable) {
  const testing::Environment environment("CISTERN_STACK", "cache > hots");
  try {
    const Stack stack = language::open_default();
    FAIL();
  } catch (const StackError& error) {
    EXPECT_TRUE(error.message().starts_with(
        "in the environment variable CISTERN_STACK: there is no stage 'hots'"))
        << error.what();
    EXPECT_EQ(error.position(), 8U);
  }
}

/// What a process sees that has not used the default resource yet.
bool default_resource_is_one_and_survives_a_failure() {
  {
    const testing::Environment environment("CISTERN_STACK", "no such stack");
    try {
      (void)default_resource();
      return false;
    } catch (const StackError&) {  // as it should
    }
  }
  Resource& resource = default_resource();
  const testing::Environment environment("CISTERN_STACK", "simulated");  // too late
  if (&default_resource() != &resource) return false;
  const Buffer buffer(resource, 1000);
  return resource.device().limits().host_addressable;
}

TEST(DefaultResourceDeathTest, IsOneAndSurvivesAFailure) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(std::exit(default_resource_is_one_and_survives_a_failure() ? 0 : 1),
              ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace cistern
