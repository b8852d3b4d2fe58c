// What threads keep of a cache for themselves: it counts against the bounds, comes back when it is
// called, and every figure is as if there were none.
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/pool/magazines.hpp"
#include "support/ledger.hpp"
#include "support/spy.hpp"

namespace cistern {
namespace {

using namespace literals;

/// A thread that does what it is told, and does not end meanwhile.
class Worker {
 public:
  Worker() : thread_([this] { run(); }) {}
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  Worker(Worker&&) = delete;
  Worker& operator=(Worker&&) = delete;
  ~Worker() {
    tell([this] { ends_ = true; });
    thread_.join();
  }

  /// Returns when it is done.
  void tell(const std::function<void()>& work) {
    std::unique_lock lock(mutex_);
    work_ = &work;
    changed_.notify_all();
    changed_.wait(lock, [this] { return work_ == nullptr; });
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!ends_) {
      changed_.wait(lock, [this] { return work_ != nullptr; });
      (*work_)();
      work_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* work_ = nullptr;
  bool ends_ = false;
  std::thread thread_;
};

constexpr Cache::Options without_ratio{.buckets = Geometric{1}, .idle_ratio = Cache::no_ratio};

Cache::Options bounded(std::size_t max_bytes) {
  Cache::Options options = without_ratio;
  options.max_bytes = max_bytes;
  return options;
}

void allocate_and_free(Cache& cache, std::size_t count, std::size_t bytes) {
  std::vector<Block> blocks;
  for (std::size_t i = 0; i < count; ++i)
    blocks.push_back(cache.allocate(bytes));
  for (const Block& block : blocks)
    EXPECT_TRUE(cache.deallocate(block));
}

/// So many are in the calling thread's magazine: what it freed before it had one was not.
void fill_magazine(Cache& cache, std::size_t count, std::size_t bytes) {
  for (int turn = 0; turn < 2; ++turn)
    allocate_and_free(cache, count, bytes);
}

TEST(Magazines, AHitIsOneInTheFiguresToo) {
  const auto cache = make<Cache>(make<SimulatedDevice>(), without_ratio);
  for (int turn = 0; turn < 10; ++turn)
    allocate_and_free(*cache, 3, 1_KiB);
  const Stats stats = cache->stats();
  EXPECT_EQ(stats.allocations, 30U);
  EXPECT_EQ(stats.frees, 30U);
  EXPECT_EQ(stats.misses, 3U);
  EXPECT_EQ(stats.hits, 27U);
  EXPECT_EQ(stats.live_blocks, (Gauge{.current = 0, .peak = 3}));
  EXPECT_EQ(stats.live_requested, (Gauge{.current = 0, .peak = 3_KiB}));
  EXPECT_EQ(stats.live_granted, (Gauge{.current = 0, .peak = 3_KiB}));
  EXPECT_EQ(stats.cached, (Gauge{.current = 3_KiB, .peak = 3_KiB}));
  EXPECT_EQ(cache->validate(), "");
}

TEST(Magazines, PeaksBetweenTwoReadingsAreExactOnOneThread) {
  const auto cache = make<Cache>(make<SimulatedDevice>(), without_ratio);
  fill_magazine(*cache, 8, 1_KiB);
  cache->reset_peaks();
  const Block held = cache->allocate(700);
  const Block second = cache->allocate(1000);
  cache->deallocate(held);
  cache->deallocate(second);
  const Stats stats = cache->stats();
  EXPECT_EQ(stats.live_requested.peak, 1700U);
  EXPECT_EQ(stats.live_blocks.peak, 2U);
  EXPECT_EQ(stats.cached.peak, 8_KiB);
}

// Whose magazine is settled first stands below zero until the other's is.
TEST(Magazines, WhatOneThreadTakesAndAnotherFreesIsNoPeak) {
  Cache::Options options = without_ratio;
  options.idle_ratio = 0.5;
  const auto cache = make<Cache>(make<SimulatedDevice>(), options);
  Worker other;  // has the younger magazine, which is the first
  Block block;
  fill_magazine(*cache, 1, 4_KiB);
  other.tell([&] { fill_magazine(*cache, 1, 256); });
  for (int turn = 0; turn < 4; ++turn) {
    const auto take = [&] { block = cache->allocate(4_KiB); };
    const auto put = [&] { EXPECT_TRUE(cache->deallocate(block)); };
    turn % 2 == 0 ? take() : other.tell(take);
    turn % 2 == 0 ? other.tell(put) : put();
    const Stats stats = cache->stats();
    EXPECT_LE(stats.live_blocks.peak, 2U);
    EXPECT_LE(stats.live_requested.peak, 8_KiB);
    EXPECT_LE(stats.live_granted.peak, 12_KiB);
    EXPECT_EQ(cache->validate(), "");
  }
  allocate_and_free(*cache, 1, 1_MiB);  // and the idle ratio is of the true peak
  allocate_and_free(*cache, 1, 2_MiB);
  EXPECT_LE(cache->stats().reserved.current, 3_MiB);
}

TEST(Magazines, BoundedBucketsHoldTheirBoundBeforeAndAfterThreadsKeepBlocks) {
  Cache::Options options = without_ratio;
  options.per_bucket = 2;
  const auto cache = make<Cache>(make<SimulatedDevice>(), options);
  fill_magazine(*cache, 3, 1_KiB);
  EXPECT_EQ(cache->stats().cached.current, 2_KiB);
  cache->set_per_bucket(Cache::any_number);
  fill_magazine(*cache, 3, 1_KiB);
  EXPECT_EQ(cache->set_per_bucket(1), Cache::any_number);
  EXPECT_EQ(cache->stats().cached.current, 1_KiB);
  EXPECT_EQ(cache->validate(), "");
}

TEST(Magazines, AFreedHandleIsRefusedThoughItsBlockNeverLeftTheThread) {
  const auto cache = make<Cache>(make<SimulatedDevice>(), without_ratio);
  allocate_and_free(*cache, 2, 1_KiB);
  const Block first = cache->allocate(1_KiB);
  EXPECT_TRUE(cache->deallocate(first));
  EXPECT_FALSE(cache->deallocate(first));
  const Block second = cache->allocate(1_KiB);
  EXPECT_EQ(second.node, first.node);
  EXPECT_FALSE(cache->deallocate(first));
  EXPECT_TRUE(cache->deallocate(second));
  EXPECT_EQ(cache->stats().refused_frees, 2U);
}

TEST(Magazines, ATrimReachesThoseOfThreadsThatSleep) {
  const auto device = make<SimulatedDevice>();
  const auto cache = make<Cache>(device, without_ratio);
  Worker worker;
  worker.tell([&] { fill_magazine(*cache, 4, 1_MiB); });
  EXPECT_EQ(cache->stats().cached.current, 4_MiB);
  EXPECT_EQ(cache->trim(1_MiB), 3_MiB);
  EXPECT_EQ(device->used(), 1_MiB);
  EXPECT_EQ(cache->trim(), 1_MiB);
  worker.tell([&] { allocate_and_free(*cache, 1, 1_MiB); });
  EXPECT_EQ(cache->stats().misses, 5U);
  EXPECT_EQ(cache->validate(), "");
}

TEST(Magazines, AMissTakesWhatOtherThreadsKeepBeforeItGrows) {
  const auto device = make<SimulatedDevice>();
  const auto cache = make<Cache>(device, without_ratio);
  Worker worker;
  worker.tell([&] { fill_magazine(*cache, 4, 1_MiB); });
  allocate_and_free(*cache, 4, 1_MiB);
  EXPECT_EQ(cache->stats().misses, 4U);
  EXPECT_EQ(device->used(), 4_MiB);
}

TEST(Magazines, ARefusalGivesBackWhatOtherThreadsKeep) {
  const auto device = make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 4_MiB});
  const auto cache = make<Cache>(device, without_ratio);
  Worker worker;
  worker.tell([&] { fill_magazine(*cache, 4, 1_MiB); });
  const Expected<Block> large = cache->try_allocate({.bytes = 4_MiB});
  ASSERT_TRUE(large);
  EXPECT_TRUE(cache->deallocate(*large));
  EXPECT_EQ(cache->validate(), "");
}

// Each thread is lent room, and one that has none gets what the others do not use.
TEST(Magazines, TheBoundIsFullyUsedByWhicheverThread) {
  const auto device = make<SimulatedDevice>();
  const auto cache = make<Cache>(device, bounded(16_MiB));
  std::vector<Block> blocks;
  for (int i = 0; i < 16; ++i)
    blocks.push_back(cache->allocate(1_MiB));
  Worker one;
  Worker other;
  for (Worker* worker : {&one, &other})
    worker->tell([&] { allocate_and_free(*cache, 1, 1_KiB); });
  cache->trim();  // of the small ones; room is lent again by what follows
  std::vector<Block> small;
  one.tell([&] { small.push_back(cache->allocate(1_KiB)); });
  other.tell([&] { small.push_back(cache->allocate(1_KiB)); });
  for (const Block& block : small)
    cache->deallocate(block);
  EXPECT_EQ(cache->trim(), 2_KiB);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    (i % 2 == 0 ? one : other).tell([&] { cache->deallocate(blocks[i]); });
    ASSERT_EQ(cache->stats().cached.current, (i + 1) * 1_MiB);
  }
  EXPECT_EQ(device->used(), 16_MiB);
  EXPECT_EQ(cache->stats().cached.peak, 16_MiB);
  EXPECT_EQ(cache->validate(), "");
}

TEST(Magazines, ABoundThatIsLoweredReachesThem) {
  const auto device = make<SimulatedDevice>();
  const auto cache = make<Cache>(device, without_ratio);
  Worker worker;
  worker.tell([&] { fill_magazine(*cache, 8, 1_MiB); });
  cache->set_max_bytes(3_MiB);
  EXPECT_EQ(device->used(), 3_MiB);
  worker.tell([&] { allocate_and_free(*cache, 8, 1_MiB); });
  EXPECT_EQ(device->used(), 3_MiB);
  cache->set_per_bucket(1);
  EXPECT_EQ(device->used(), 1_MiB);
  worker.tell([&] { allocate_and_free(*cache, 8, 1_MiB); });
  EXPECT_EQ(device->used(), 1_MiB);
  EXPECT_EQ(cache->validate(), "");
}

TEST(Magazines, AThreadThatEndsGivesItsOwnBack) {
  const auto cache = make<Cache>(make<SimulatedDevice>(), bounded(16_MiB));
  std::thread([&] { fill_magazine(*cache, 4, 1_MiB); }).join();
  EXPECT_EQ(cache->stats().cached.current, 4_MiB);
  EXPECT_EQ(cache->validate(), "");
  allocate_and_free(*cache, 16, 1_MiB);
  EXPECT_EQ(cache->stats().misses, 16U);
  EXPECT_EQ(cache->stats().cached.current, 16_MiB);
}

TEST(Magazines, WhatIsFreedOnAnotherStreamIsNotTakenUnordered) {
  const auto cache =
      make<Cache>(make<SimulatedDevice>(SimulatedDevice::Options{.queues = true}), without_ratio);
  const Stream first{.id = 1};
  const Stream second{.id = 2};
  const auto pass = [&](Stream stream) {
    const Block block = cache->allocate({.bytes = 1_KiB, .stream = stream});
    cache->deallocate(block, stream);
    return block.node;
  };
  const Node* const node = pass(first);
  EXPECT_EQ(pass(first), node);
  EXPECT_EQ(pass(second), node);  // after a wait, on the slow path
  EXPECT_EQ(pass(second), node);
  EXPECT_EQ(cache->validate(), "");
}

TEST(Magazines, EvictionKeepsTheOrderOfTheLastUses) {
  const auto spy = make<testing::Spy>(make<SimulatedDevice>());
  const auto cache = make<Cache>(spy, without_ratio);
  std::vector<Block> blocks;
  for (const std::size_t bytes : {1_MiB, 4_MiB, 2_MiB, 8_MiB, 1_MiB})
    blocks.push_back(cache->allocate(bytes));
  allocate_and_free(*cache, 1, 1_KiB);  // so that room is lent
  for (const std::size_t place : {3U, 0U, 2U, 4U, 1U})
    cache->deallocate(blocks[place]);
  std::vector<std::size_t> evicted;
  spy->before_free = [&](const Block& block) { evicted.push_back(block.bytes); };
  while (const std::size_t cached = cache->stats().cached.current)
    cache->trim(cached - 1);  // one at a time
  EXPECT_EQ(evicted, (std::vector<std::size_t>{1_KiB, 8_MiB, 1_MiB, 2_MiB, 1_MiB, 4_MiB}));
}

// A free never allocates: a thread that only frees has none.
TEST(Magazines, AThreadThatOnlyFreesPilesNothingUp) {
  const auto device = make<SimulatedDevice>();
  const auto cache = make<Cache>(device, without_ratio);
  Worker consumer;
  for (int i = 0; i < 100; ++i) {
    const Block block = cache->allocate(1_MiB);
    consumer.tell([&] { cache->deallocate(block); });
  }
  EXPECT_EQ(device->used(), 1_MiB);
  EXPECT_EQ(cache->stats().hits, 99U);
}

TEST(Magazines, AStackThatClosesGivesBackWhatThreadsKeep) {
  const auto device = make<SimulatedDevice>();
  Worker worker;
  Block last;
  {
    const auto cache = make<Cache>(device, without_ratio);
    worker.tell([&] {
      fill_magazine(*cache, 4, 1_MiB);
      last = cache->allocate(1_MiB);
    });
    worker.tell([&] { cache->deallocate(last); });
  }
  EXPECT_EQ(device->used(), 0U);
}

}  // namespace
}  // namespace cistern
