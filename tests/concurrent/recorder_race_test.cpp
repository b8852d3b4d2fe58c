// Threads that come and go, record side by side and free one another's blocks: the file must hold
// every event once, in an order that a single thread could have lived through.
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cistern/adaptor/recorder.hpp"
#include "cistern/core/size.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/trace/read.hpp"
#include "support/ledger.hpp"
#include "support/reports.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

TEST(RecorderRace, EveryEventOfEveryThreadIsThereOnce) {
  const std::filesystem::path file = std::filesystem::temp_directory_path() /
                                     ("cistern-race-" + std::to_string(getpid()) + ".trace");
  constexpr int rounds = 3;
  constexpr unsigned thread_count = 4;
  constexpr int pairs = 3000;
  {
    const Ref<Resource> stack = make<Recorder>(make<Cache>(make<SimulatedDevice>()), file);
    std::mutex mutex;
    std::vector<Block> shared;
    for (int round = 0; round < rounds;
         ++round) {  // the threads of a round have ended when the next begins
      std::vector<std::thread> threads;
      for (unsigned index = 0; index < thread_count; ++index) {
        threads.emplace_back([&, index] {
          testing::Random random(index);
          for (int i = 0; i < pairs; ++i) {
            Block block = stack->allocate(random.size(16));
            {
              const std::lock_guard lock(mutex);
              if (!shared.empty()) std::swap(block, shared[random.below(shared.size())]);
              if (shared.size() < 100) {
                shared.push_back(block);
                continue;
              }
            }
            EXPECT_TRUE(stack->deallocate(block));
          }
        });
      }
      for (std::thread& thread : threads)
        thread.join();
    }
    for (const Block& block : shared)
      EXPECT_TRUE(stack->deallocate(block));
    testing::expect_all_accounted_for(*stack);
  }
  const auto trace = read_trace(file);  // which checks that every free follows its allocation
  ASSERT_TRUE(trace) << trace.error().text();
  EXPECT_EQ(trace->events.size(), std::size_t{2} * rounds * thread_count * pairs);
  std::filesystem::remove(file);
}

TEST(RecorderRace, WhoeverFinishesIsToldTheSame) {
  // A pipe that nobody empties keeps whoever finishes first writing until it is closed.
  const std::filesystem::path pipe = std::filesystem::temp_directory_path() /
                                     ("cistern-race-" + std::to_string(getpid()) + ".pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const auto former = std::signal(SIGPIPE, SIG_IGN);
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  ASSERT_GT(fcntl(reader, F_SETPIPE_SZ, 4096), 0);
  {
    const testing::CaughtReports reports;
    const auto recorder = make<Recorder>(make<SimulatedDevice>(), pipe);
    std::array<char, 4096> header{};
    ASSERT_GT(read(reader, header.data(), header.size()), 0);
    for (std::uint64_t i = 0; i < 500; ++i)  // fewer than a buffer holds, more than the pipe does
      recorder->deallocate(
          recorder->allocate({.bytes = 1000, .alignment = 0, .stream = {.id = unbounded - i}}));
    std::vector<std::thread> threads;
    const auto finish = [&] { EXPECT_FALSE(recorder->finish()); };
    threads.emplace_back(finish);
    for (int written = 0; written == 0;) {
      ASSERT_EQ(ioctl(reader, FIONREAD, &written), 0);
      std::this_thread::yield();
    }
    threads.emplace_back(finish);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // time to give a hasty answer
    close(reader);
    for (std::thread& thread : threads)
      thread.join();
    EXPECT_EQ(reports.all().size(), 1U);
  }
  std::signal(SIGPIPE, former);
  std::filesystem::remove(pipe);
}

TEST(RecorderRace, WhatIsOutCanBeSeenWhileOthersAllocate) {
  const auto recorder = make<Recorder>(make<Cache>(make<SimulatedDevice>()), "/dev/null");
  std::atomic<bool> done{false};
  std::thread worker([&] {
    for (std::size_t i = 0; i < 10'000; ++i)
      recorder->deallocate(recorder->allocate(64 + i % 5000));
    done = true;
  });
  while (!done) {
    const Outstanding out = recorder->outstanding();
    EXPECT_EQ(out.largest > 0, out.blocks > 0);
    (void)recorder->validate();
  }
  worker.join();
  testing::expect_all_accounted_for(*recorder);
}

}  // namespace
}  // namespace cistern
