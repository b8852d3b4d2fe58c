// A pair (allocation and free) on an OpenCL device: with memory that the driver backs each time,
// and from pools above it. Nothing is run where there is no OpenCL.
#include "cistern/device/opencl.hpp"

#include <cstddef>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "cistern/stack/stack.hpp"

namespace {

void pair(benchmark::State& state, const std::string& text) {
  const cistern::Stack stack = cistern::open(text);
  const auto bytes = static_cast<std::size_t>(state.range(0));
  stack->deallocate(stack->allocate(bytes));  // what is missed once
  for (auto turn : state)
    stack->deallocate(stack->allocate(bytes));
}

// Before main(), which is the library's.
[[maybe_unused]] const bool is_registered = [] {
  std::string why_none;
  if (cistern::find_opencl_devices(why_none).empty()) return false;
  for (const char* text : {"opencl", "opencl(force_backing=false)", "cache > opencl",
                           "coalesce > opencl", "opencl(memory=svm)", "cache > opencl(memory=svm)",
                           "opencl(memory=pinned)", "cache > opencl(memory=pinned)"}) {
    benchmark::RegisterBenchmark(
        text, [text = std::string(text)](benchmark::State& state) { pair(state, text); })
        ->Arg(std::int64_t{64} << 10)
        ->Arg(std::int64_t{1} << 20)
        ->Arg(std::int64_t{16} << 20);
  }
  return true;
}();

}  // namespace
