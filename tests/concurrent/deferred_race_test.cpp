// Threads whose first requests come at the same time: one sets the stack up, the others wait.
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/adaptor/deferred.hpp"
#include "cistern/device/host.hpp"
#include "cistern/pool/cache.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

Ref<Resource> cannot() {
  throw std::runtime_error("no driver");
}

template <class Body>
void on_threads(Body body) {
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      ++ready;
      while (ready < 4)
        std::this_thread::yield();
      body();
    });
  }
  for (std::thread& thread : threads)
    thread.join();
}

TEST(DeferredRace, TheStackIsMadeOnce) {
  for (int round = 0; round < 50; ++round) {
    const testing::CaughtReports reports;
    std::atomic<int> made{0};
    const auto deferred = make<Deferred>(cannot, [&] {
      ++made;
      return Ref<Resource>(make<Cache>(make<HostDevice>()));
    });
    on_threads([&] {
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
  on_threads([&] { EXPECT_FALSE(deferred->try_allocate({.bytes = 1000})); });
  EXPECT_EQ(tries, 4);
  EXPECT_EQ(deferred->stats().failures, 4U);
  EXPECT_EQ(reports.all().size(), 1U);
}

}  // namespace
}  // namespace cistern
