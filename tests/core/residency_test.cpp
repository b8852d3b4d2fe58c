// Residency as every device has it: what is committed, what ends, what is refused, and memory that
// is registered without being owned.
#include "cistern/core/residency.hpp"

#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/resident.hpp"
#include "cistern/core/registration.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/pmr.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/stack/stack.hpp"
#include "support/environment.hpp"
#include "support/failing_new.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;
using Options = SimulatedDevice::Options;

/// Memory of the program's own, at that address.
Block part(std::uintptr_t address, std::size_t bytes) {
  return {.memory = reinterpret_cast<void*>(address),  // NOLINT(performance-no-int-to-ptr)
          .bytes = bytes};
}

TEST(Residency, SeveralPartsAreOneCommit) {
  const auto device =
      make<SimulatedDevice>(Options{.residency_latency = std::chrono::microseconds(3)});
  const std::vector<Block> parts = {part(4096, 100), part(8192, 0), part(9000, 1000)};
  ASSERT_TRUE(device->residency()->make_resident(parts));
  EXPECT_EQ(device->stats().resident.current, 1100U);
  EXPECT_EQ(device->stats().residency_commits, 1U);
  EXPECT_EQ(device->residency_calls(), 1U);
  EXPECT_EQ(device->virtual_time(), std::chrono::microseconds(3));
  EXPECT_EQ(device->validate(), "");
  device->residency()->end_residency(parts);
  EXPECT_EQ(device->stats().resident, (Gauge{.current = 0, .peak = 1100}));
  EXPECT_EQ(device->virtual_time(), std::chrono::microseconds(6));
  EXPECT_FALSE(device->residency()->last_refusal());
  EXPECT_EQ(device->validate(), "");
}

TEST(Residency, OfNothingIsNoCall) {
  const auto device = make<SimulatedDevice>();
  ASSERT_TRUE(device->residency()->make_resident({}));
  ASSERT_TRUE(device->residency()->make_resident(std::vector<Block>(3)));
  device->residency()->end_residency(std::vector<Block>{part(4096, 100)});
  EXPECT_EQ(device->residency_calls(), 0U);
  EXPECT_EQ(device->stats(), Stats{});
}

TEST(Residency, TheSamePartIsCommittedOnceAndEndsWithTheLast) {
  const auto device = make<SimulatedDevice>();
  Residency& residency = *device->residency();
  const std::vector<Block> one = {part(4096, 100)};
  const std::vector<Block> both = {part(4096, 100), part(8192, 50)};
  ASSERT_TRUE(residency.make_resident(one));
  ASSERT_TRUE(residency.make_resident(one));
  ASSERT_TRUE(residency.make_resident(both));
  EXPECT_EQ(device->stats().resident.current, 150U);
  EXPECT_EQ(device->residency_calls(), 2U);
  residency.end_residency(both);
  residency.end_residency(one);
  EXPECT_EQ(device->stats().resident.current, 100U);
  residency.end_residency(one);
  residency.end_residency(one);  // it has ended
  EXPECT_EQ(device->stats().resident.current, 0U);
  EXPECT_EQ(device->validate(), "");
}

TEST(Residency, ARefusalIsForAllPartsAndHasAReason) {
  const auto device = make<SimulatedDevice>(Options{.refuse_residency_at = 2});
  Residency& residency = *device->residency();
  const std::vector<Block> first = {part(4096, 100)};
  const std::vector<Block> all = {part(4096, 100), part(8192, 50), part(9000, 7)};
  ASSERT_TRUE(residency.make_resident(first));
  EXPECT_FALSE(residency.make_resident(all));
  EXPECT_EQ(device->stats().resident.current, 100U);  // what was resident before still is
  EXPECT_EQ(device->stats().residency_refusals, 1U);
  EXPECT_EQ(residency.last_refusal()->code, Errc::device_failed);
  EXPECT_EQ(residency.last_refusal()->requested, 57U);
  EXPECT_EQ(device->validate(), "");
  residency.end_residency(first);
  EXPECT_EQ(device->stats().resident.current, 0U);
  device->refuse_next_residency(1);
  EXPECT_FALSE(residency.make_resident(all));
  EXPECT_TRUE(residency.make_resident(all));
  residency.end_residency(all);
  EXPECT_EQ(device->validate(), "");
}

TEST(Residency, SurvivesAHostWithoutMemoryForRecords) {
  const std::vector<Block> parts = {part(4096, 100), part(4096, 100), part(9000, 1000)};
  bool has_failed = true;
  for (int n = 1; has_failed; ++n) {
    const auto device = make<SimulatedDevice>();
    Expected<void> made;
    {
      const testing::FailingNew failing(n);
      made = device->residency()->make_resident(parts);
      has_failed = testing::FailingNew::has_failed();
    }
    EXPECT_NE(made.has_value(), has_failed);
    EXPECT_EQ(device->stats().resident.current, made ? 1100U : 0U);
    EXPECT_EQ(device->validate(), "");
    {
      const testing::FailingNew failing(1);
      device->residency()->end_residency(parts);
      EXPECT_FALSE(testing::FailingNew::has_failed());
    }
    EXPECT_EQ(device->stats().resident.current, 0U);
    EXPECT_EQ(device->validate(), "");
  }
}

TEST(Residency, ItsPeakCanBeReset) {
  const auto device = make<SimulatedDevice>();
  const std::vector<Block> parts = {part(4096, 100)};
  ASSERT_TRUE(device->residency()->make_resident(parts));
  device->residency()->end_residency(parts);
  device->reset_peaks();
  EXPECT_EQ(device->stats().resident.peak, 0U);
}

TEST(Residency, ASimulatedDeviceKnowsWhatWasGivenBackWhileResident) {
  const auto device = make<SimulatedDevice>();
  const Block block = device->allocate(5000);
  Block inner = block;
  inner.offset = 1000;
  inner.bytes = 10;
  ASSERT_TRUE(device->residency()->make_resident({&inner, 1}));
  const Block other = device->allocate(100);
  device->deallocate(other);
  EXPECT_EQ(device->validate(), "");
  device->deallocate(block);
  EXPECT_EQ(device->validate(), "simulated: memory that is given back is not resident");
}

TEST(Residency, IsAbsentWhereADeviceHasNone) {
  EXPECT_EQ(make<PmrDevice>(std::pmr::get_default_resource())->residency(), nullptr);
}

// --- CISTERN_NO_RESIDENCY ---

TEST(NoResidency, TurnsEveryCallIntoOneThatSucceeds) {
  const testing::Environment environment("CISTERN_NO_RESIDENCY", "1");
  const Stack stack = open("cache > resident > simulated");
  auto& device = dynamic_cast<SimulatedDevice&>(stack->device());
  EXPECT_FALSE(device.residency()->is_on());
  device.refuse_next_residency(1);
  {
    const Buffer buffer = stack.buffer(1_MiB);
    const Expected<Registration> registered = register_existing(device, buffer);
    ASSERT_TRUE(registered);
    EXPECT_EQ(registered->bytes(), 1_MiB);
    EXPECT_EQ(stack->stats().resident.current, 0U);
  }
  EXPECT_EQ(device.residency_calls(), 0U);
  EXPECT_EQ(stack->stats().residency_refusals, 0U);
  testing::expect_nothing_held(*stack);
}

TEST(NoResidency, IsReadWhenTheDeviceIsMade) {
  const auto before = make<SimulatedDevice>();
  const testing::Environment environment("CISTERN_NO_RESIDENCY", "1");
  EXPECT_TRUE(before->residency()->is_on());
  EXPECT_FALSE(make<SimulatedDevice>()->residency()->is_on());
  EXPECT_FALSE(make<HostDevice>()->residency()->is_on());
}

TEST(NoResidency, IsOffWhereItIsZeroOrEmptyAndNothingElseIsAWord) {
  for (const char* value : {"", "0"}) {
    const testing::Environment environment("CISTERN_NO_RESIDENCY", value);
    EXPECT_TRUE(make<HostDevice>()->residency()->is_on());
  }
  for (const char* value : {"2", "yes", "01", " 1", "-1"}) {
    const testing::Environment environment("CISTERN_NO_RESIDENCY", value);
    EXPECT_THROW(static_cast<void>(open("resident > host")), std::invalid_argument) << value;
    EXPECT_THROW(static_cast<void>(make<SimulatedDevice>()), std::invalid_argument) << value;
  }
}

// --- registration ---

TEST(Registration, OfABufferIsOfItsExactSize) {
  const Stack stack = open("cache > simulated");
  auto& device = stack->device();
  const Buffer buffer = stack.buffer(1'000'003);
  ASSERT_GT(buffer.capacity(), 1'000'003U);
  Expected<Registration> registration = register_existing(device, buffer);
  ASSERT_TRUE(registration);
  EXPECT_EQ(registration->bytes(), 1'000'003U);
  EXPECT_EQ(stack->stats().resident.current, 1'000'003U);
  EXPECT_EQ(stack->stats().live_blocks.current, 1U);  // it owns nothing
  registration->reset();
  EXPECT_TRUE(registration->empty());
  registration->reset();
  EXPECT_EQ(stack->stats().resident.current, 0U);
}

TEST(Registration, OfTheSameMemoryAddsOnceAndTheLastOneEndsIt) {
  const auto device = make<SimulatedDevice>();
  const Buffer buffer(*device, 3000);
  Registration first = register_existing(*device, buffer).value();
  Registration second = register_existing(*device, buffer.data(), 3000).value();
  EXPECT_EQ(device->stats().resident.current, 3000U);
  EXPECT_EQ(device->stats().residency_commits, 1U);
  first = std::move(second);  // the first one ends
  EXPECT_EQ(device->stats().resident.current, 3000U);
  EXPECT_TRUE(second.empty());  // NOLINT(bugprone-use-after-move): that is the test
  Registration third(std::move(first));
  third.reset();
  EXPECT_EQ(device->stats().resident.current, 0U);
  EXPECT_EQ(device->validate(), "");
}

TEST(Registration, OfManyWeightsIsOneCommitOrNone) {
  const Stack stack = open("simulated");
  const std::vector<Buffer> weights = stack.buffers(std::vector<Request>(851, {.bytes = 4097}));
  auto& device = dynamic_cast<SimulatedDevice&>(stack->device());
  {
    const Expected<Registration> all = register_existing(device, weights);
    ASSERT_TRUE(all);
    EXPECT_EQ(all->bytes(), 851U * 4097);
    EXPECT_EQ(device.stats().residency_commits, 1U);
  }
  device.refuse_next_residency(1);
  EXPECT_EQ(register_existing(device, weights).error().code, Errc::device_failed);
  EXPECT_EQ(device.stats().resident.current, 0U);
  EXPECT_EQ(device.validate(), "");
}

TEST(Registration, OfAnotherDevicesBufferIsAnError) {
  const auto device = make<SimulatedDevice>();
  const auto other = make<SimulatedDevice>();
  const Buffer buffer(*other, 1000);
  const Expected<Registration> wrong = register_existing(*device, buffer);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, Errc::wrong_device);
  EXPECT_EQ(describe(wrong.error()), "simulated refused: the memory is another device's");
  std::vector<Buffer> mixed;
  mixed.emplace_back(*device, 10);
  mixed.emplace_back(*other, 10);
  EXPECT_EQ(register_existing(*device, mixed).error().code, Errc::wrong_device);
  EXPECT_EQ(device->stats().resident.current, 0U);
  EXPECT_EQ(device->residency_calls(), 0U);
}

TEST(Registration, OfNothingSucceeds) {
  const auto device = make<SimulatedDevice>();
  EXPECT_TRUE(register_existing(*device, Buffer{}));
  EXPECT_TRUE(register_existing(*device, nullptr, 0));
  EXPECT_TRUE(register_existing(*device, std::span<const Buffer>()));
  EXPECT_EQ(device->residency_calls(), 0U);
}

TEST(Registration, NeedsADeviceThatHasResidency) {
  const auto device = make<PmrDevice>(std::pmr::get_default_resource());
  const Buffer buffer(*device, 1000);
  EXPECT_EQ(register_existing(*device, buffer).error().code, Errc::unsupported);
}

TEST(Registration, OfABufferIsNotRecycledAndOutlivesThePool) {
  const testing::CaughtReports reports;
  Registration registration;
  void* place = nullptr;
  {
    Buffer weights;
    const auto device = make<SimulatedDevice>();
    {
      const auto cache = make<Cache>(device);
      weights = Buffer(*cache, 1_MiB);
      place = weights.data();
      registration = register_existing(cache->device(), weights).value();
      const Buffer other(*cache, 1_MiB);
      EXPECT_NE(other.data(), place);
    }
    EXPECT_EQ(device->stats().resident.current, 1_MiB);  // the pool is closed
    EXPECT_EQ(weights.data(), place);
    registration.reset();
    registration = register_existing(*device, place, 1_MiB).value();
    weights.reset();
    EXPECT_EQ(device->validate(), "simulated: memory that is given back is not resident");
  }
  EXPECT_EQ(registration.bytes(), 1_MiB);  // it alone keeps the device now
  registration.reset();
}

TEST(Registration, SurvivesAHostWithoutMemory) {
  bool has_failed = true;
  for (int n = 1; has_failed; ++n) {
    const auto device = make<SimulatedDevice>();
    const Buffer buffer(*device, 1000);
    Expected<Registration> registration;
    {
      const testing::FailingNew failing(n);
      registration = register_existing(*device, buffer);
      has_failed = testing::FailingNew::has_failed();
    }
    EXPECT_NE(registration.has_value(), has_failed);
    EXPECT_EQ(device->stats().resident.current, registration ? 1000U : 0U);
    EXPECT_EQ(device->validate(), "");
  }
}

}  // namespace
}  // namespace cistern
