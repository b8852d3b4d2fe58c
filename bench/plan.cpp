// How low the peak is after a given time, on lifetimes recorded from real programs: each instance
// of ../shared/traces/plan, and random ones of the size of a large training step. `ratio` is the
// peak over the lower bound; `packed` tells whether the peak is at most 1,048,576 bytes, for which
// minimalloc's instances are made.
#include "cistern/plan/plan.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace {

using Buffers = std::vector<cistern::Lifetime>;

constexpr std::size_t capacity = 1'048'576;

/// Rows of id,lower,upper,size behind a head line.
Buffers read_buffers(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  Buffers buffers;
  while (std::getline(file, line)) {
    std::istringstream row(line);
    std::uint64_t id = 0;
    cistern::Lifetime buffer;
    char comma = 0;
    row >> id >> comma >> buffer.lower >> comma >> buffer.upper >> comma >> buffer.bytes;
    buffers.push_back(buffer);
  }
  return buffers;
}

Buffers random_buffers(std::size_t count, std::uint64_t longest) {
  std::mt19937_64 random(1);
  Buffers buffers(count);
  for (cistern::Lifetime& buffer : buffers) {
    buffer.lower = random() % 1'000'000;
    buffer.upper = buffer.lower + 1 + random() % longest;
    buffer.bytes = 512 * (1 + random() % 4000);
  }
  return buffers;
}

void plan(benchmark::State& state, const Buffers& buffers, const cistern::PlanBudget& budget) {
  cistern::Plan plan;
  for (auto _ : state)
    plan = cistern::make_plan(buffers, budget);
  state.counters["ratio"] =
      static_cast<double>(plan.peak_bytes) / static_cast<double>(plan.lower_bound_bytes);
  state.counters["packed"] = plan.peak_bytes <= capacity ? 1 : 0;
  state.counters["proved"] = plan.proved_optimal ? 1 : 0;
}

void add(const std::string& name, const Buffers& buffers, const std::string& when,
         const cistern::PlanBudget& budget) {
  benchmark::RegisterBenchmark(
      (name + "/" + when).c_str(),
      [buffers, budget](benchmark::State& state) { plan(state, buffers, budget); })
      ->Unit(benchmark::kMillisecond)
      ->Iterations(1);
}

void add_all(const std::string& name, const Buffers& buffers) {
  add(name, buffers, "first", {.seconds = 0});
  add(name, buffers, "5ms", {.seconds = 0.005});
  add(name, buffers, "20ms", {.seconds = 0.020});
  add(name, buffers, "100ms", {.seconds = 0.1});
  add(name, buffers, "1s", {.seconds = 1});
}

// Before main(), which is the library's.
[[maybe_unused]] const bool is_registered = [] {
  const std::filesystem::path folder = "../shared/traces/plan";
  std::vector<std::filesystem::path> files;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(folder, missing))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    const Buffers buffers = read_buffers(file);
    const std::string name = file.stem().string();
    add_all(name, buffers);
    add(name, buffers, "until_packed", {.seconds = 10, .enough_bytes = capacity});
  }
  add_all("random_60000_short", random_buffers(60'000, 20'000));
  add_all("random_60000_long", random_buffers(60'000, 600'000));
  return true;
}();

}  // namespace
