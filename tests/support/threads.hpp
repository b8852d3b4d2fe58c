// Threads that begin their work at the same time, so that what they race for is there for all.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

namespace cistern::testing {

/// Does `work(index)` on `count` threads and waits for them.
template <class Work>
void on_threads(unsigned count, const Work& work) {
  std::atomic<unsigned> ready{0};
  std::vector<std::thread> threads;
  for (unsigned index = 0; index < count; ++index) {
    threads.emplace_back([&, index] {
      ++ready;
      while (ready < count)
        std::this_thread::yield();
      work(index);
    });
  }
  for (std::thread& thread : threads)
    thread.join();
}

}  // namespace cistern::testing
