// Threads that allocate, grow, free and trim in one pool of pages.
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/virtual.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

using namespace literals;

void use_from_all_sides(const Ref<Virtual>& pool) {
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([pool, seed] {
      testing::Random random(seed);
      testing::Ledger ledger(*pool);
      for (int step = 0; step < 1500; ++step) {
        const std::uint64_t what = random.below(100);
        if (what < 45 || ledger.size() == 0) {
          ledger.allocate({.bytes = random.size(17)});
        } else if (what < 85) {
          ledger.free(random.below(ledger.size()));
        } else if (what < 95) {
          ledger.grow(random.below(ledger.size()), random.size(17));
        } else if (what < 98) {
          pool->trim(random.size(18));
        } else {
          (void)pool->stats();
          (void)pool->largest_allocatable();
          (void)pool->outstanding();
        }
      }
      ledger.free_all();
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  testing::expect_nothing_held(*pool);
}

TEST(VirtualRace, ManyThreadsShareAPoolOfPages) {
  use_from_all_sides(make<Virtual>(make<HostDevice>(), Virtual::Options{.page = 4_KiB}));
  use_from_all_sides(make<Virtual>(
      make<SimulatedDevice>(SimulatedDevice::Options{.capacity = 4_MiB, .fail_every = 7}),
      Virtual::Options{.page = 16_KiB, .room = 64_KiB}));
}

}  // namespace
}  // namespace cistern
