// How long a request takes that is recovered, on a device that fails every third call and on one
// that is 5 % too small beside a pool that hoards. `to_recover` and `longest` are the stage's own
// figures, without the request's first try.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <benchmark/benchmark.h>

#include "cistern/adaptor/limit.hpp"
#include "cistern/adaptor/retry.hpp"
#include "cistern/device/host.hpp"
#include "cistern/device/simulated.hpp"
#include "cistern/pool/cache.hpp"

namespace {

using cistern::make;
using cistern::Ref;

constexpr std::size_t block_bytes = std::size_t{1} << 20;

void report_recoveries(benchmark::State& state, const cistern::Retry& retry) {
  const auto recoveries = retry.recoveries();
  const auto seconds = [](auto duration) {
    return std::chrono::duration<double>(duration).count();
  };
  if (recoveries.requests != recoveries.recovered) state.SkipWithError("a request was not met");
  state.counters["recovered"] = static_cast<double>(recoveries.recovered);
  state.counters["to_recover"] =
      seconds(recoveries.spent) /
      static_cast<double>(std::max<std::uint64_t>(recoveries.requests, 1));
  state.counters["longest"] = seconds(recoveries.longest);
}

/// A pair (allocation and free) of 1 MiB, each of them a device call.
void every_third_call_fails(benchmark::State& state) {
  const auto device =
      make<cistern::SimulatedDevice>(cistern::SimulatedDevice::Options{.fail_every = 3});
  const auto cache = make<cistern::Cache>(device, cistern::Cache::Options{.max_bytes = 0});
  const auto retry = make<cistern::Retry>(cache);
  for (auto turn : state) {
    const auto block = retry->try_allocate({.bytes = block_bytes});
    retry->deallocate(*block);
  }
  report_recoveries(state, *retry);
}
BENCHMARK(every_third_call_fails);

/// A working set of 100 blocks of 1 MiB, of which 70 are live, on room for 95 of which another pool
/// holds 30 idle: the time is that of the 70 requests.
void a_neighbour_hoards(benchmark::State& state, Ref<cistern::Resource> (*make_room)(std::size_t)) {
  constexpr std::size_t hoarded = 30;
  constexpr std::size_t live = 70;
  const Ref<cistern::Resource> room = make_room((hoarded + live) * block_bytes * 95 / 100);
  const cistern::Cache::Options unbounded{.idle_ratio = cistern::Cache::no_ratio};
  const auto hoarder = make<cistern::Cache>(room, unbounded);
  const auto retry = make<cistern::Retry>(make<cistern::Cache>(room, unbounded));
  std::vector<cistern::Block> blocks;
  const auto free_all = [&](cistern::Resource& stack) {
    for (const cistern::Block& block : blocks)
      stack.deallocate(block);
    blocks.clear();
  };
  for (auto turn : state) {
    state.PauseTiming();
    retry->trim();
    for (std::size_t i = 0; i < hoarded; ++i)
      blocks.push_back(hoarder->allocate(block_bytes));
    free_all(*hoarder);
    state.ResumeTiming();
    for (std::size_t i = 0; i < live; ++i)
      blocks.push_back(retry->allocate(block_bytes));
    state.PauseTiming();
    free_all(*retry);
    state.ResumeTiming();
  }
  report_recoveries(state, *retry);
}
BENCHMARK_CAPTURE(a_neighbour_hoards, simulated, [](std::size_t bytes) -> Ref<cistern::Resource> {
  return make<cistern::SimulatedDevice>(cistern::SimulatedDevice::Options{.capacity = bytes});
});
BENCHMARK_CAPTURE(a_neighbour_hoards, host_under_a_limit,
                  [](std::size_t bytes) -> Ref<cistern::Resource> {
                    return make<cistern::Limit>(make<cistern::HostDevice>(), bytes);
                  });

/// What a request that needs no recovery pays for the stage: compare with the cache alone.
void a_hit(benchmark::State& state, bool with_retry) {
  const Ref<cistern::Resource> cache = make<cistern::Cache>(make<cistern::SimulatedDevice>());
  const Ref<cistern::Resource> stack =
      with_retry ? Ref<cistern::Resource>(make<cistern::Retry>(cache)) : cache;
  for (auto turn : state) {
    const auto block = stack->try_allocate({.bytes = 65536});
    stack->deallocate(*block);
  }
}
BENCHMARK_CAPTURE(a_hit, cache, false);
BENCHMARK_CAPTURE(a_hit, retry_over_cache, true);

}  // namespace
