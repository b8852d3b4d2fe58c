// What a coalescing pool makes of how much its device can give in all, and of a second device.
#include <gtest/gtest.h>

#include "cistern/adaptor/fallback.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/coalesce.hpp"
#include "support/ledger.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::Ledger;

TEST(CoalesceDevice, RegionsAreSteppedUpToWhatTheDeviceHasAndNoFurther) {
  for (const bool extensible : {false, true}) {
    for (const std::size_t odd : {0UL, 100UL}) {
      const auto pool = make<Coalesce>(make<SimulatedDevice>(SimulatedDevice::Options{
                                           .capacity = 3_MiB + odd, .extensible = extensible}),
                                       Coalesce::Options{.classes = {{}}, .region_step = 2_MiB});
      Ledger ledger(*pool);
      EXPECT_TRUE(ledger.allocate({.bytes = 5_MiB / 2})) << extensible << " " << odd;
      EXPECT_EQ(pool->stats().reserved.current, 3_MiB);
      ledger.free_all();
      testing::expect_all_accounted_for(*pool);
    }
  }
}

TEST(CoalesceDevice, FittedRegionsAreMultiplesOfTheStep) {
  const auto pool =
      make<Coalesce>(make<SimulatedDevice>(),
                     Coalesce::Options{.classes = {{.region = 10_MiB, .region_for = 5_MiB}},
                                       .region_step = 2_MiB});
  Ledger ledger(*pool);
  EXPECT_TRUE(ledger.allocate({.bytes = 3_MiB}));  // three of them have 9 MiB
  EXPECT_EQ(pool->stats().reserved.current, 10_MiB);
  ledger.free_all();
  testing::expect_all_accounted_for(*pool);
}

// Else nobody would try to recover it.
TEST(CoalesceDevice, ARegionThatWouldOutgrowTheDeviceIsAShortageOfMemory) {
  const auto pool = make<Coalesce>(
      make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 100_MiB, .extensible = true}),
      Coalesce::Options{.classes = {{}}});
  Ledger ledger(*pool);
  ASSERT_TRUE(ledger.allocate({.bytes = 60_MiB}));
  ASSERT_TRUE(ledger.allocate({.bytes = 1_MiB}));
  ledger.free(0);
  const Expected<Block> refused = pool->try_allocate({.bytes = 70_MiB});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::out_of_memory);
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_all_accounted_for(*pool);
}

TEST(CoalesceDevice, MoreThanTheFirstDeviceHasComesFromTheSecond) {
  const auto second =
      make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 4_MiB, .first_address = 1024_GiB});
  const auto pool = make<Coalesce>(
      make<Fallback>(make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 1_MiB}), second));
  Ledger ledger(*pool);
  EXPECT_TRUE(ledger.allocate({.bytes = 3_MiB}));
  EXPECT_GE(second->used(), 3_MiB);
  ledger.expect_in_order();
  ledger.free_all();
  testing::expect_all_accounted_for(*pool);
}

}  // namespace
}  // namespace cistern
