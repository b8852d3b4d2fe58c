// Threads that come and go, record side by side and free one another's blocks: the file must hold
// every event once, in an order that a single thread could have lived through.
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "cistern/adaptor/recorder.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"
#include "cistern/trace/read.hpp"
#include "support/ledger.hpp"
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

}  // namespace
}  // namespace cistern
