// Stages that choose among stacks, as they are written.
#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

#include "cistern/adaptor/fallback.hpp"
#include "cistern/adaptor/limit.hpp"
#include "cistern/core/device.hpp"
#include "cistern/device/cuda.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/stack/stack.hpp"
#include "support/fake_cuda.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/stage_list.hpp"

namespace cistern {
namespace {

using namespace literals;

std::string message_of(std::string_view text, const Bindings& bindings = {}) {
  const auto stack = try_open(text, bindings);
  return stack ? "opened" : stack.error().message();
}

/// What opening throws of a device that is not there.
std::string absence(std::string_view text) {
  try {
    const Stack stack = open(text);
    return "opened";
  } catch (const DeviceAbsent& absent) {
    return absent.what();
  }
}

template <class T>
bool is(const Resource& resource) {
  return dynamic_cast<const T*>(&resource) != nullptr;
}

TEST(Choice, StacksAreMadeOfWhatStandsInTheParentheses) {
  const Stack stack = open(
      "limit(8MiB) > fallback(limit(1MiB) > cache > host, otherwise=fallback(mlx > host, host))");
  const auto& limit = dynamic_cast<const Limit&>(*stack);
  const auto& outer = dynamic_cast<const Fallback&>(limit.upstream());
  EXPECT_TRUE(is<Limit>(outer.first()));
  const auto& inner = dynamic_cast<const Fallback&>(outer.second());
  EXPECT_TRUE(is<Cache>(inner.first()));
  EXPECT_TRUE(is<HostDevice>(inner.second()));
  testing::Ledger ledger(*stack);
  for (int i = 0; i < 8; ++i)
    ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
  EXPECT_EQ(stack->stats().spilled.current, 7_MiB);
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_all_accounted_for(*stack);
}

TEST(Choice, ResourcesOfTheProgramMayStandInIt) {
  const Ref<SimulatedDevice> small =
      make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB});
  const Ref<SimulatedDevice> large = make<SimulatedDevice>();
  const Bindings bindings = {{"small", small}, {"large", large}};
  const Stack stack = open("fallback(small, cache > large)", bindings);
  const Buffer buffer = stack.buffer(2_MiB);
  EXPECT_EQ(large->used(), 2_MiB);
  const Stack nested =
      open("deferred(fallback(small, fallback(cache > small, large)), host)", bindings);
  const Buffer another = nested.buffer(4_MiB);
  EXPECT_EQ(large->used(), 6_MiB);
  EXPECT_EQ(message_of("fallback(small, lage)", bindings),
            "there is no stage 'lage' (there are " + testing::stage_list() +
                ", large, small); did you mean 'large'?");
}

TEST(Choice, NothingIsMadeBeforeTheNestedStacksAreRight) {
  const std::filesystem::path file = std::filesystem::temp_directory_path() /
                                     ("cistern-choice-" + std::to_string(getpid()) + ".trace");
  const std::string trace = "trace(\"" + file.string() + "\")";
  EXPECT_NE(message_of("fallback(" + trace + " > host, cach > host)"), "opened");
  EXPECT_NE(message_of(trace + " > first(host, limit > host)"), "opened");
  EXPECT_TRUE(check("fallback(" + trace + " > host, host)"));
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST(First, TakesTheFirstThatIsPresentWithOneWarning) {
  const testing::FakeCuda machine;
  {
    const testing::CaughtReports reports;
    const Stack stack = open(
        "cache > first(cuda(device=1, memory=managed), limit(1GiB) > opencl(platform=nowhere), "
        "limit(1MiB) > host)");
    EXPECT_TRUE(is<Limit>(dynamic_cast<const Cache&>(*stack).upstream()));
    ASSERT_EQ(reports.all().size(), 1U);
    EXPECT_TRUE(reports.all()[0].starts_with(
        "first takes host: there is no cuda device: no GPU has the number 1; there are 1, from "
        "0 on; there is no opencl device: "))
        << testing::CaughtReports::all()[0];
  }
  const testing::CaughtReports reports;
  EXPECT_TRUE(is<HostDevice>(*open("first(host, cuda)")));
  EXPECT_TRUE(is<SimulatedDevice>(*open("first(simulated(capacity=1MiB), cuda, host)")));
  EXPECT_TRUE(is<CudaDevice>(*open("first(cuda, host)")));
  EXPECT_TRUE(reports.all().empty()) << "nothing was missed";
  EXPECT_TRUE(
      is<HostDevice>(*open("first(first(cuda(device=1), opencl(platform=nowhere)), host)")));
  EXPECT_EQ(reports.all().size(), 1U);
}

TEST(First, WithoutAnyDeviceGivesEveryReason) {
  const testing::FakeCuda machine({.gpus = 0});
  const std::string no_gpu =
      "there is no cuda device: the driver finds no GPU (CUDA_ERROR_NO_DEVICE)";
  EXPECT_EQ(absence("cuda"), no_gpu);
  EXPECT_TRUE(absence("cache > limit(90%) > opencl(platform=nowhere)")
                  .starts_with("there is no opencl device: "));
  EXPECT_TRUE(absence("first(cuda, cache > opencl(platform=nowhere))")
                  .starts_with(no_gpu + "; there is no opencl device: "));
  EXPECT_EQ(absence("first(cuda, cache > cuda(memory=managed))"), no_gpu) << "said once";
  EXPECT_TRUE(check("first(cuda, opencl)")) << "whether a device is there is no matter of the text";
}

TEST(First, OtherProblemsAreNoReasonToGoOn) {
  EXPECT_EQ(message_of("first(limit > cuda, host)"),
            "limit needs bytes (size or percent): at most so many at any time; a percentage is of "
            "the device's memory, 0 refuses all");
  EXPECT_THROW((void)try_open("first(trace(\"/no/such/folder/x\") > host, host)"),
               std::system_error);
  EXPECT_EQ(message_of("cuda > host"),
            "'cuda' is a device: it stands at the right end, with nothing below it");
  EXPECT_EQ(message_of("cuda", {{"cuda", make<HostDevice>()}}),
            "'cuda' is a name of the language and cannot name a resource of the program");
}

}  // namespace
}  // namespace cistern
