// What a stack costs beside the memory it hands out: bytes of the host's memory for each block,
// while a million are live and when all are idle, and the time to open a stack and close it again.
#include <cstddef>
#include <fstream>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <unistd.h>

#include "cistern/core/size.hpp"
#include "cistern/stack/stack.hpp"

namespace {

using cistern::Block;
using namespace cistern::literals;

double resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  double all = 0;
  double resident = 0;
  statm >> all >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

void records(benchmark::State& state, const std::string& text) {
  constexpr std::size_t count = 1'000'000;
  std::vector<Block> blocks(count);  // whose pages are there before
  double live = 0;
  double idle = 0;
  for (auto turn : state) {
    const cistern::Stack stack = cistern::open(text);
    const double before = resident_bytes();
    for (Block& block : blocks)
      block = stack->allocate(1_MiB);
    live = resident_bytes() - before;
    for (const Block& block : blocks)
      stack->deallocate(block);
    idle = resident_bytes() - before;
  }
  state.counters["B_a_live_block"] = live / count;
  state.counters["B_an_idle_block"] = idle / count;
}

void open_and_close(benchmark::State& state, const std::string& text) {
  for (auto turn : state)
    benchmark::DoNotOptimize(cistern::open(text));
}

// Before main(), which is the library's.
[[maybe_unused]] const bool is_registered = [] {
  for (const char* text :
       {"simulated(64TiB)", "cache > simulated(64TiB)", "coalesce > simulated(64TiB)",
        "limit(64TiB) > cache > simulated(64TiB)"}) {
    const auto run = [text = std::string(text)](benchmark::State& state) { records(state, text); };
    // Once: what the heap has from a former turn would not be counted.
    benchmark::RegisterBenchmark(("records/" + std::string(text)).c_str(), run)
        ->Iterations(1)
        ->Unit(benchmark::kMillisecond);
  }
  for (const char* text : {"host", "cache > host", "coalesce > host", "limit(1GiB) > cache > host",
                           "planned > coalesce > host"}) {
    const auto run = [text = std::string(text)](benchmark::State& state) {
      open_and_close(state, text);
    };
    benchmark::RegisterBenchmark(("open/" + std::string(text)).c_str(), run)
        ->Unit(benchmark::kMicrosecond);
  }
  return true;
}();

}  // namespace
