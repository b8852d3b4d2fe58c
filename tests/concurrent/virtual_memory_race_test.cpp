// Threads that map and unmap pages of their own in one range.
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/size.hpp"
#include "cistern/core/virtual_memory.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "support/ledger.hpp"

namespace cistern {
namespace {

using namespace literals;

void map_from_all_sides(Device& device) {
  constexpr std::size_t threads = 4;
  VirtualMemory& memory = *device.virtual_memory();
  const AddressRange range = memory.reserve(threads * 1_MiB, 4_KiB).value();
  std::vector<std::thread> running;
  for (std::size_t i = 0; i < threads; ++i) {
    running.emplace_back([&memory, &device, range, i] {
      std::byte* const start = range.start + i * 1_MiB;
      for (std::size_t turn = 0; turn < 200; ++turn) {
        const std::size_t bytes = (1 + turn % 7) * 4_KiB;
        if (!memory.map(range, start, bytes)) continue;
        if (device.limits().host_addressable) start[bytes - 1] = std::byte{1};
        (void)device.stats();
        memory.unmap(range, start, bytes, {});
      }
    });
  }
  for (std::thread& thread : running)
    thread.join();
  memory.release(range);
  testing::expect_nothing_held(device);
}

TEST(VirtualMemoryRace, PagesOfOneRangeAreMappedByManyThreads) {
  map_from_all_sides(*make<HostDevice>());
  map_from_all_sides(*make<SimulatedDevice>());
  map_from_all_sides(*make<SimulatedDevice>(SimulatedDevice::Options{.fail_every = 3}));
}

}  // namespace
}  // namespace cistern
