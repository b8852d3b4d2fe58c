#include "cistern/stack/opencl_pools.hpp"

#include <string>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "device/opencl_api.hpp"
#include "support/opencl_calls.hpp"

namespace cistern {
namespace {

using namespace literals;

class OpenClPoolsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (find_opencl_devices(why).empty()) GTEST_SKIP() << why;
    api_ = OpenClApi::system(why);
  }

  const OpenClApi* api_ = nullptr;
};

TEST_F(OpenClPoolsTest, ThereIsOneForAContextAndItsOptions) {
  testing::OpenClSetup one(*api_);
  testing::OpenClSetup two(*api_);
  const auto pool = get_persistent_pool(one.queue(false));
  EXPECT_EQ(get_persistent_pool(one.queue(false)), pool);
  EXPECT_NE(get_persistent_pool(two.queue(false)), pool);
  EXPECT_NE(get_persistent_pool(one.queue(false), {.max_buffers_per_bucket = 1}), pool);
  EXPECT_NE(get_pinned_pool(one.queue(false)), pool);
  EXPECT_TRUE(get_pinned_pool(one.queue(false))->device().limits().host_addressable);
  EXPECT_EQ(pool->device().context(), OpenClDevice::context_of(one.queue(true)));
  EXPECT_THROW((void)pool->buffer(two.queue(false), 1), std::invalid_argument);
  one.release();
  two.release();
}

TEST_F(OpenClPoolsTest, TellsItsFiguresAsTheyAreKnown) {
  testing::OpenClSetup own(*api_);
  const auto pool = get_persistent_pool(own.queue(false), {.max_buffers_per_bucket = 2});
  {
    const Buffer a = pool->buffer(own.queue(false), 50_KiB);
    const Buffer b = pool->buffer(own.queue(true), 60_KiB);
    const Buffer c = pool->buffer(own.queue(false), 10_KiB);
    EXPECT_EQ(pool->get_stats().bytes_allocated, 64_KiB + 64_KiB + 16_KiB);
  }
  { const Buffer again = pool->buffer(own.queue(false), 64_KiB); }
  OpenClPool::PoolStats stats = pool->get_stats();
  EXPECT_EQ(stats.hits, 1U);
  EXPECT_EQ(stats.misses, 3U);
  EXPECT_EQ(stats.hit_rate, 0.25);
  EXPECT_EQ(stats.bytes_cached, 64_KiB + 64_KiB + 16_KiB);
  EXPECT_EQ(stats.per_bucket.at(64_KiB), 2U);
  EXPECT_EQ(stats.per_bucket.at(16_KiB), 1U);
  pool->clear();
  stats = pool->get_stats();
  EXPECT_EQ(stats.bytes_cached, 0U);
  EXPECT_EQ(stats.bytes_allocated, 0U);
  own.release();
}

TEST_F(OpenClPoolsTest, GoesWithTheLastWhoHoldsItAndOutlivesTheProgramsReferences) {
  testing::OpenClSetup own(*api_);
  std::weak_ptr<OpenClPool> gone;
  {
    const auto pool = get_persistent_pool(own.queue(false));
    gone = pool;
    const Buffer buffer = pool->buffer(own.queue(false), 1_MiB);
    own.release();
    EXPECT_EQ(pool->resource().validate(), "");
  }
  EXPECT_TRUE(gone.expired());
}

}  // namespace
}  // namespace cistern
