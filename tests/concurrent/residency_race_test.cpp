// Threads that ask for batches, register and end registrations at once, on one device.
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/registration.hpp"
#include "cistern/core/residency.hpp"
#include "cistern/stack/stack.hpp"
#include "support/ledger.hpp"
#include "support/seed.hpp"

namespace cistern {
namespace {

void on_four_threads(const Stack& stack,
                     void (*step)(const Stack&, testing::Ledger&, testing::Random&)) {
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([&, seed] {
      testing::Random random(seed);
      testing::Ledger ledger(*stack);
      for (int i = 0; i < 400; ++i)
        step(stack, ledger, random);
      ledger.free_all();
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  testing::expect_nothing_held(*stack);
  EXPECT_EQ(stack->stats().resident.current, 0U);
}

void ask_for_batches(const Stack& stack, testing::Ledger& ledger, testing::Random& random) {
  std::vector<Request> requests(random.below(6));
  for (Request& request : requests)
    request.bytes = random.chance(10) ? 0 : random.size(15);
  ledger.allocate_batch(requests);
  while (ledger.size() > 10)
    ledger.free(random.below(ledger.size()));
  if (random.chance(5)) stack->trim(random.size(18));
  if (random.chance(5)) static_cast<void>(stack->stats());
}

TEST(BatchRace, ManyThreadsAskForBatches) {
  for (const char* text :
       {"limit(800KiB) > cache(max_bytes=100KiB) > resident > simulated(1MiB, fail_every=11)",
        "retry > coalesce > resident > simulated(1MiB, fail_every=11, refuse_residency_every=5)",
        "virtual(page=4KiB) > simulated(1MiB, fail_every=11)",
        "trace(\"/dev/null\") > fallback(cache > simulated(200KiB), host)",
        "deferred(cache > resident > host, otherwise=host)"}) {
    SCOPED_TRACE(text);
    on_four_threads(open(text), ask_for_batches);
  }
}

// One range for all: whoever comes first commits it, whoever leaves last ends it.
TEST(ResidencyRace, ManyThreadsRegisterTheSameMemory) {
  const Stack stack = open("resident > simulated(1MiB, refuse_residency_every=3)");
  const Buffer shared = stack.buffer(1000);
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([&, seed] {
      testing::Random random(seed);
      for (int i = 0; i < 500; ++i) {
        const Buffer own(*stack, random.size(10));
        const Expected<Registration> of_shared = register_existing(stack->device(), shared);
        const Expected<Registration> of_own = register_existing(stack->device(), own);
        const std::size_t resident = stack->stats().resident.current;
        if (of_shared) {
          EXPECT_GE(resident, 1000U);
        }
        static_cast<void>(stack->device().residency()->last_refusal());
      }
    });
  }
  for (std::thread& thread : threads)
    thread.join();
  EXPECT_LE(stack->stats().resident.current, shared.capacity());
  EXPECT_EQ(stack->validate(), "");
}

}  // namespace
}  // namespace cistern
