// What the adaptors add to a hit: a pair (allocation and free) of 64 KiB through a cache, alone and
// with one adaptor on top, on one thread and on two.
#include <cstdio>
#include <filesystem>
#include <string>

#include <benchmark/benchmark.h>

#include "cistern/stack/stack.hpp"

namespace {

const std::string trace_file =
    (std::filesystem::temp_directory_path() / "cistern-bench.trace").string();

void pair(benchmark::State& state, const std::string& text) {
  static cistern::Stack stack;
  if (state.thread_index() == 0) stack = cistern::open(text);
  for (auto turn : state) {
    const auto block = stack->try_allocate({.bytes = 65536});
    stack->deallocate(*block);
  }
  if (state.thread_index() == 0) {
    stack = {};
    std::remove(trace_file.c_str());
  }
}

void add(const std::string& text) {
  benchmark::RegisterBenchmark(text.c_str(), pair, text)->Threads(1)->Threads(2)->UseRealTime();
}

const bool added = [] {
  add("cache > host");
  add("limit(1GiB) > cache > host");
  add("trace(\"" + trace_file + "\") > cache > host");
  return true;
}();

}  // namespace
