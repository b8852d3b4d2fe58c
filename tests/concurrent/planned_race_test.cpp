// One thread turns; others free its blocks, trim, and read the figures.
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/buffer.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/planned.hpp"
#include "support/cycles.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"

namespace cistern {
namespace {

using namespace literals;

/// Blocks on their way to whoever frees them.
class Queue {
 public:
  void put(const Block& block) {
    const std::lock_guard lock(mutex_);
    blocks_.push_back(block);
    something_.notify_one();
  }
  void close() {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
    something_.notify_all();
  }
  /// What is there, once there is something; nothing once it is closed.
  std::vector<Block> take() {
    std::unique_lock lock(mutex_);
    something_.wait(lock, [&] { return is_closed_ || !blocks_.empty(); });
    return std::exchange(blocks_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable something_;
  std::vector<Block> blocks_;
  bool is_closed_ = false;
};

TEST(PlannedRace, OtherThreadsFreeTrimAndLook) {
  for (const bool checks_owner : {false, true}) {
    const Ref<Planned> pool = make<Planned>(make<HostDevice>());
    pool->check_owner(checks_owner);
    Queue queue;
    std::atomic<bool> is_over{false};
    std::thread freeing([&] {
      for (std::vector<Block> blocks = queue.take(); !blocks.empty(); blocks = queue.take()) {
        for (const Block& block : blocks)
          EXPECT_TRUE(pool->deallocate(block));
      }
    });
    std::thread looking([&] {
      for (std::size_t i = 0; !is_over; ++i) {
        const Stats stats = pool->stats();
        EXPECT_LT(stats.refused_frees, 1U);
        if (i % 64 == 0) pool->trim(4_KiB);
      }
    });
    testing::Random random(1);
    const std::vector<std::size_t> sizes = testing::random_sizes(20, 1);
    for (int cycle = 0; cycle < 400; ++cycle) {
      std::vector<Block> own;
      for (const std::size_t bytes : sizes) {
        if (random.chance(1)) continue;
        const Block block = pool->allocate(bytes);
        std::memset(block.memory, cycle, block.bytes);
        if (cycle / 20 % 2 == 0 && own.size() % 3 == 0) {
          queue.put(block);
        } else {
          own.push_back(block);
        }
      }
      for (const Block& block : own)
        pool->deallocate(block);
      pool->cycle();
    }
    queue.close();
    freeing.join();
    is_over = true;
    looking.join();
    testing::expect_nothing_held(*pool);
  }
}

TEST(PlannedRace, WhatAnotherThreadFreesInOrderKeepsToThePlan) {
  const testing::CaughtReports refusals;
  const Ref<Planned> pool = make<Planned>(make<SimulatedDevice>());
  pool->check_owner(false);
  const std::vector<std::size_t> sizes = testing::random_sizes(20, 1);
  {
    testing::Loop loop(*pool);
    loop.cycles(testing::token(sizes), 2);
  }
  for (int cycle = 0; cycle < 8; ++cycle) {
    std::vector<Block> blocks;
    for (const std::size_t bytes : sizes)
      blocks.push_back(pool->allocate(bytes));
    std::thread([&] {
      for (const Block& block : blocks)
        EXPECT_TRUE(pool->deallocate(block));
      EXPECT_FALSE(pool->deallocate(blocks.front()));
    }).join();
    EXPECT_EQ(pool->stats().live_blocks.current, 0U);
    EXPECT_EQ(pool->stats().live_requested.current, 0U);
    pool->cycle();
    EXPECT_EQ(pool->validate(), "");
  }
  EXPECT_EQ(pool->counts().deviations, 0U);
  EXPECT_EQ(pool->counts().served, 160U);
  testing::expect_nothing_held(*pool);
}

TEST(PlannedRace, WhatAnotherThreadHasFreedIsNotFreedAgain) {
  const testing::CaughtReports refusals;
  const Ref<Planned> pool = make<Planned>(make<SimulatedDevice>());
  pool->check_owner(false);
  testing::Loop loop(*pool);
  loop.cycles(testing::token({1000, 2000}), 3);
  const Block first = pool->allocate(1000);
  const Block second = pool->allocate(2000);
  std::thread([&] { EXPECT_TRUE(pool->deallocate(first)); }).join();
  EXPECT_FALSE(pool->deallocate(first));  // the next in the plan, but that it waits
  EXPECT_EQ(pool->stats().live_blocks.current, 1U);
  EXPECT_TRUE(pool->deallocate(second));
  pool->cycle();
  EXPECT_EQ(pool->stats().live_blocks.current, 0U);
  EXPECT_EQ(pool->stats().frees, pool->stats().allocations);
}

TEST(PlannedRace, OtherThreadsAreRefused) {
  const Ref<Planned> pool = make<Planned>(make<SimulatedDevice>());
  pool->check_owner(true);
  testing::Loop loop(*pool);
  const testing::Turn turn = testing::token({1000, 2000, 3000});
  loop.cycles(turn, 3);
  std::atomic<bool> is_over{false};
  std::thread other([&] {
    while (!is_over) {
      const Expected<Block> block = pool->try_allocate({.bytes = 1000});
      EXPECT_FALSE(block);
      EXPECT_EQ(block.error().code, Errc::wrong_thread);
      EXPECT_FALSE(pool->try_allocate_held({.bytes = 1000}));
      std::this_thread::yield();
    }
  });
  loop.cycles(turn, 300);
  is_over = true;
  other.join();
  EXPECT_EQ(pool->counts().passed_on, 6U);
  EXPECT_EQ(pool->counts().deviations, 0U);
}

TEST(PlannedRace, TheNextOwnerIsTheOneThatAllocates) {
  const Ref<Planned> pool = make<Planned>(make<SimulatedDevice>());
  pool->check_owner(false);
  const std::vector<std::size_t> sizes = testing::random_sizes(20, 1);
  const testing::Turn turn = testing::token(sizes);
  {
    testing::Loop loop(*pool);
    loop.cycles(turn, 4);
  }
  pool->hand_over();
  std::thread([&] {
    testing::Loop loop(*pool);
    loop.cycles(turn, 4);
    EXPECT_EQ(pool->counts().deviations, 0U);
    EXPECT_EQ(pool->counts().served, 120U);
    pool->hand_over();
  }).join();
  const Block block = pool->allocate(sizes[0]);
  EXPECT_EQ(pool->counts().served, 121U);
  pool->check_owner(true);
  std::thread([&] { EXPECT_FALSE(pool->try_allocate({.bytes = sizes[1]})); }).join();
  pool->deallocate(block);
}

TEST(PlannedRace, ClosedItsBlocksAreFreedOnManyThreads) {
  const testing::CaughtReports closings;
  const auto device = make<SimulatedDevice>();
  for (int round = 0; round < 20; ++round) {
    Ref<Planned> pool = make<Planned>(device);
    {
      testing::Loop loop(*pool);
      loop.cycles(testing::token(testing::random_sizes(40, 1)), 3);
    }
    std::vector<Buffer> buffers;
    for (const std::size_t bytes : testing::random_sizes(40, 1))
      buffers.emplace_back(*pool, bytes);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        for (std::size_t k = i; k < buffers.size(); k += 4)
          buffers[k].reset();
      });
    }
    pool = {};
    for (std::thread& thread : threads)
      thread.join();
  }
  EXPECT_EQ(device->used(), 0U);
}

}  // namespace
}  // namespace cistern
