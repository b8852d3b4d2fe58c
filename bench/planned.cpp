// What `planned` still serves from its plan where cycles do not repeat exactly: the share of the
// requests that were served, in percent, stands beside each time, and the peak of what was reserved
// over the peak of what was live.
#include "cistern/pool/planned.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "cistern/stack/stack.hpp"
#include "token_sizes.hpp"

namespace {

using cistern::Block;

constexpr const char* stack_text = "planned > coalesce > simulated(capacity=64GiB)";
constexpr std::size_t cycles = 1000;

/// The blocks of a layer die with it but for one; all are gone at the end of the cycle.
void run_cycle(cistern::Resource& pool, const std::vector<std::size_t>& sizes) {
  constexpr std::size_t layer = 25;
  std::vector<Block> kept;
  std::vector<Block> blocks;
  for (const std::size_t bytes : sizes) {
    blocks.push_back(pool.allocate(bytes));
    if (blocks.size() < layer) continue;
    kept.push_back(std::exchange(blocks.front(), {}));
    for (const Block& block : blocks)
      pool.deallocate(block);
    blocks.clear();
  }
  for (const std::vector<Block>& rest : {blocks, kept}) {
    for (const Block& block : rest)
      pool.deallocate(block);
  }
  pool.cycle();
}

/// Runs cycles whose sizes `vary` makes, and notes what came of the plan.
template <class Vary>
void run(benchmark::State& state, Vary&& vary) {
  for (auto _ : state) {
    const cistern::Stack stack = cistern::open(stack_text);
    auto* const planned = cistern::find_stage<cistern::Planned>(*stack);
    const std::vector<std::size_t> sizes = token_sizes(1750);
    for (std::size_t cycle = 0; cycle < cycles; ++cycle) {
      std::vector<std::size_t> now = sizes;
      vary(cycle, now);
      run_cycle(*stack, now);
      if (cycle == 4) stack->reset_peaks();
    }
    const cistern::Planned::Counts counts = planned->counts();
    const cistern::Stats stats = stack->stats();
    state.counters["served_percent"] =
        100.0 * static_cast<double>(counts.served) / static_cast<double>(stats.allocations);
    state.counters["plans"] = static_cast<double>(counts.plans);
    state.counters["deviations"] = static_cast<double>(counts.deviations);
    state.counters["reserved_over_live"] =
        static_cast<double>(stats.reserved.peak) / static_cast<double>(stats.live_requested.peak);
  }
  state.SetItemsProcessed(state.iterations() * std::int64_t{1750 * cycles});
}

void repeating(benchmark::State& state) {
  run(state, [](std::size_t, std::vector<std::size_t>&) {});
}

/// One cycle in twenty: at a random place a request is left out, inserted or of another size.
void deviating(benchmark::State& state) {
  std::mt19937_64 random(5);  // NOLINT: the same places every time
  run(state, [&](std::size_t cycle, std::vector<std::size_t>& sizes) {
    if (cycle < 4 || random() % 20 != 0) return;
    const auto place = sizes.begin() + static_cast<std::ptrdiff_t>(random() % sizes.size());
    switch (random() % 3) {
      case 0:
        sizes.erase(place);
        break;
      case 1:
        sizes.insert(place, 12'345);
        break;
      default:
        *place = *place * 2 + 1000;
    }
  });
}

/// Two blocks of every layer, as keys and values, grow by 512 bytes a cycle.
void growing(benchmark::State& state) {
  run(state, [](std::size_t cycle, std::vector<std::size_t>& sizes) {
    for (std::size_t i = 0; i < sizes.size(); i += 25) {
      sizes[i] = 65'536 + 512 * cycle;
      sizes[i + 1] = 65'536 + 512 * cycle;
    }
  });
}

BENCHMARK(repeating)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(deviating)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(growing)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
