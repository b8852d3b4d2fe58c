// The pools of a device know of one another: who is asked to give back what it hoards, how much,
// and what becomes of those that close.
#include "cistern/core/pool_registry.hpp"

#include <functional>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "support/failing_new.hpp"
#include "support/hoards.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;
using testing::hoard;
using testing::unbounded_cache;

TEST(PoolRegistry, KnowsAPoolWhileItHasAnOwner) {
  const auto device = make<SimulatedDevice>();
  EXPECT_EQ(device->registry().size(), 0U);
  {
    const Ref<Resource> stack = make<Limit>(unbounded_cache(unbounded_cache(device)), 1_GiB);
    EXPECT_EQ(device->registry().size(), 2U);
  }
  EXPECT_EQ(device->registry().size(), 0U);
}

TEST(PoolRegistry, ForgetsAClosedPoolThoughABlockIsOut) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  Ref<Resource> cache = unbounded_cache(device);
  Resource* const closed = cache.get();
  const Block block = cache->allocate(1_MiB);
  cache = {};
  EXPECT_EQ(device->registry().size(), 0U);
  EXPECT_EQ(device->registry().trim(unbounded), 0U);
  EXPECT_FALSE(Ref<Resource>::if_owned(closed));
  EXPECT_TRUE(closed->deallocate(block));
  EXPECT_EQ(device->used(), 0U);
}

TEST(PoolRegistry, IsOneForAllOfTheHostsMemoryAndOneForEachOtherDevice) {
  const auto first = make<HostDevice>();
  const auto second = make<HostDevice>();
  EXPECT_EQ(&first->registry(), &second->registry());
  const auto simulated = make<SimulatedDevice>();
  const auto other = make<SimulatedDevice>();
  EXPECT_NE(&simulated->registry(), &other->registry());
  const std::size_t before = first->registry().size();
  const Ref<Resource> a = make<Cache>(first);
  const Ref<Resource> b = make<Cache>(second);
  EXPECT_EQ(first->registry().size(), before + 2);
}

TEST(PoolRegistry, TrimsThePoolsInTurnAndOnlyAsFarAsNeeded) {
  const auto device = make<SimulatedDevice>();
  const Ref<Cache> first = unbounded_cache(device);
  const Ref<Cache> second = unbounded_cache(device);
  hoard(*first, 1_MiB, 4);
  hoard(*second, 1_MiB, 4);
  EXPECT_EQ(device->registry().trimmable(), 8_MiB);
  EXPECT_EQ(device->registry().trim(2_MiB), 2_MiB);
  EXPECT_EQ(first->stats().cached.current, 2_MiB);
  EXPECT_EQ(second->stats().cached.current, 4_MiB);
  EXPECT_EQ(device->registry().trim(3_MiB), 3_MiB);
  EXPECT_EQ(first->stats().cached.current, 0U);
  EXPECT_EQ(second->stats().cached.current, 3_MiB);
  EXPECT_EQ(device->registry().trim(unbounded), 3_MiB);
  EXPECT_EQ(device->registry().trim(unbounded), 0U);
  EXPECT_EQ(device->used(), 0U);
}

TEST(PoolRegistry, CountsNothingTwiceWhereOnePoolStandsOnAnother) {
  const auto device = make<SimulatedDevice>();
  const Ref<Cache> inner = unbounded_cache(device);
  const Ref<Cache> outer = unbounded_cache(inner);
  hoard(*outer, 1_MiB, 2);
  hoard(*inner, 4_MiB, 1);
  EXPECT_EQ(device->registry().trimmable(), 4_MiB);  // what lies in `outer` belongs to `inner`
  const PoolsAbove asking{.pool = inner.get()};
  EXPECT_EQ(device->registry().trimmable(&asking), 0U);
  EXPECT_EQ(device->registry().trim(unbounded), 6_MiB);
}

/// A pool whose trim does what a test likes.
class Scripted final : public Pool {
 public:
  explicit Scripted(Ref<Resource> upstream) : Pool(std::move(upstream)) {}
  std::function<void()> on_trim;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override {
    return upstream().try_allocate(request);
  }
  using Pool::deallocate;
  bool deallocate(const Block& block, Stream stream) noexcept override {
    return upstream().deallocate(block, stream);
  }

 private:
  void trim_to(std::size_t /*keep_bytes*/) noexcept override {
    if (on_trim) on_trim();
  }
};

TEST(PoolRegistry, APoolMayCloseOpenAndTrimOthersWhileItIsTrimmed) {
  const auto device = make<SimulatedDevice>();
  Ref<Scripted> scripted = make<Scripted>(device);
  Ref<Cache> next = unbounded_cache(device);
  const Ref<Cache> last = unbounded_cache(device);
  hoard(*next, 1_MiB, 1);
  hoard(*last, 1_MiB, 1);
  Ref<Resource> opened;
  scripted->on_trim = [&] {
    next = {};  // the pool that would have been asked next
    opened = unbounded_cache(device);
    hoard(*opened, 2_MiB, 1);
    device->registry().trim(0);
  };
  EXPECT_EQ(device->registry().trim(unbounded), 3_MiB);
  EXPECT_EQ(device->used(), 0U);
}

TEST(PoolRegistry, WhoTrimsAPoolAsItsOwnerLeavesClosesIt) {
  const testing::CaughtReports reports;
  const auto device = make<SimulatedDevice>();
  Ref<Scripted> scripted = make<Scripted>(device);
  bool closed_by_trim = false;
  std::weak_ptr<int> still_there;
  {
    auto there = std::make_shared<int>(0);
    still_there = there;
    scripted->on_trim = [&, there] {
      scripted = {};
      closed_by_trim = !still_there.expired();  // the trim holds it
    };
  }
  device->registry().trim(unbounded);
  EXPECT_TRUE(closed_by_trim);
  EXPECT_TRUE(still_there.expired());
  EXPECT_EQ(device->registry().size(), 0U);
}

TEST(PoolRegistry, AllocatesNothing) {
  const auto device = make<SimulatedDevice>();
  const Ref<Cache> cache = unbounded_cache(device);
  hoard(*cache, 1_MiB, 4);
  const testing::FailingNew failing(1);
  EXPECT_EQ(device->registry().trim(unbounded), 4_MiB);
  EXPECT_FALSE(testing::FailingNew::has_failed());
}

}  // namespace
}  // namespace cistern
