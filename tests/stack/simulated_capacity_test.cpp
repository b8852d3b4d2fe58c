#include "cistern/stack/simulated_capacity.hpp"

#include <string>

#include <gtest/gtest.h>

#include "cistern/core/device.hpp"

namespace cistern {
namespace {

TEST(WithSimulatedCapacity, ChangesTheCapacityAndNothingElse) {
  const auto with = [](const char* text) { return with_simulated_capacity(text, 4096).value(); };
  EXPECT_EQ(with("cache > simulated"), "cache > simulated(capacity=4096)");
  EXPECT_EQ(with("cache > simulated( ) "), "cache > simulated(capacity=4096) ");
  EXPECT_EQ(with("simulated(capacity = 16GiB, seed=1)"), "simulated(capacity = 4096, seed=1)");
  EXPECT_EQ(with("simulated(seed=1,capacity=16GiB)"), "simulated(seed=1,capacity=4096)");
  EXPECT_EQ(with("simulated(16GiB, seed=1)"), "simulated(4096, seed=1)");
  EXPECT_EQ(with("simulated( seed=1)"), "simulated( capacity=4096, seed=1)");
  for (const char* text : {"cache > simulated", "simulated()", "simulated(16GiB, granularity=4KiB)",
                           "limit(90%) > simulated(granularity=4KiB)"}) {
    EXPECT_EQ(open(with(text))->device().limits().total_memory, 4096U) << text;
  }
}

TEST(WithSimulatedCapacity, SaysWhereThereIsNoSimulatedDevice) {
  const auto other = with_simulated_capacity("cache > host", 1);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().position(), 8U);
  EXPECT_EQ(other.error().message(), "the capacity of a simulated device alone can be set");
  EXPECT_FALSE(with_simulated_capacity("cache >", 1));
}

}  // namespace
}  // namespace cistern
