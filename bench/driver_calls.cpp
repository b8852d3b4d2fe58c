// The token loop on a device whose driver takes 5 or 30 us a call: 1,750 blocks, all alive, then
// all given back. What the driver would have cost is virtual time (`driver_us`), what the pool
// itself costs is measured; both are for one token. The first token, which fills the pool, stands
// apart.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "cistern/device/simulated.hpp"
#include "cistern/stack/stack.hpp"
#include "token_sizes.hpp"

namespace {

using cistern::Block;

void run_token(cistern::Resource& stack, const std::vector<std::size_t>& sizes,
               std::vector<Block>& blocks) {
  blocks.clear();
  for (const std::size_t bytes : sizes)
    blocks.push_back(stack.allocate(bytes));
  for (const Block& block : blocks)
    stack.deallocate(block);
  stack.cycle();
}

void token(benchmark::State& state, const std::string& pools, int microseconds) {
  const std::string latency = std::to_string(microseconds) + "us";
  const cistern::Stack stack =
      cistern::open(pools + "simulated(capacity=64GiB, allocate_latency=" + latency +
                    ", free_latency=" + latency + ")");
  const auto& device = dynamic_cast<const cistern::SimulatedDevice&>(stack->device());
  const auto driver_us = [&] { return static_cast<double>(device.virtual_time().count()) / 1e3; };
  const std::vector<std::size_t> sizes = token_sizes(1750);
  std::vector<Block> blocks;
  run_token(*stack, sizes, blocks);
  const double first = driver_us();
  for (int turn = 0; turn < 3; ++turn)
    run_token(*stack, sizes, blocks);  // what learns has learned
  const double before = driver_us();
  for (auto turn : state)
    run_token(*stack, sizes, blocks);
  state.counters["driver_us"] = (driver_us() - before) / static_cast<double>(state.iterations());
  state.counters["first_token_driver_us"] = first;
}

// Before main(), which is the library's.
[[maybe_unused]] const bool is_registered = [] {
  for (const int microseconds : {5, 30}) {
    for (const std::string pools : {"", "cache > ", "coalesce > ", "planned > coalesce > "}) {
      const std::string name = (pools.empty() ? "raw" : pools.substr(0, pools.size() - 3)) + "/" +
                               std::to_string(microseconds) + "us";
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        token(state, pools, microseconds);
      })->Unit(benchmark::kMicrosecond);
    }
  }
  return true;
}();

}  // namespace
