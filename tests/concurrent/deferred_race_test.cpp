// Threads whose first requests come at the same time: one sets the stack up, the others wait.
#include <atomic>

#include <gtest/gtest.h>

#include "cistern/adaptor/deferred.hpp"
#include "cistern/device/host.hpp"
#include "cistern/pool/cache.hpp"
#include "support/cannot.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/threads.hpp"

namespace cistern {
namespace {

using testing::cannot;
using testing::on_threads;

TEST(DeferredRace, TheStackIsMadeOnce) {
  for (int round = 0; round < 50; ++round) {
    const testing::CaughtReports reports;
    std::atomic<int> made{0};
    const auto deferred = make<Deferred>(cannot, [&] {
      ++made;
      return Ref<Resource>(make<Cache>(make<HostDevice>()));
    });
    on_threads(4, [&](unsigned) {
      for (int i = 0; i < 20; ++i) {
        deferred->trim(1000);
        EXPECT_TRUE(deferred->deallocate(deferred->allocate(1000)));
        EXPECT_GT(deferred->stats().allocations, 0U);
      }
    });
    EXPECT_EQ(made, 1);
    EXPECT_EQ(reports.all().size(), 1U);
    EXPECT_EQ(deferred->stats().allocations, 80U);
    testing::expect_all_accounted_for(*deferred);
  }
}

TEST(DeferredRace, WhoWaitedForAFailureTriesAgain) {
  const testing::CaughtReports reports;
  std::atomic<int> tries{0};
  const auto deferred = make<Deferred>(
      [&] {
        ++tries;
        return cannot();
      },
      cannot);
  on_threads(4, [&](unsigned) { EXPECT_FALSE(deferred->try_allocate({.bytes = 1000})); });
  EXPECT_EQ(tries, 4);
  EXPECT_EQ(deferred->stats().failures, 4U);
  EXPECT_EQ(reports.all().size(), 1U);
}

}  // namespace
}  // namespace cistern
