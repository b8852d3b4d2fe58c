// A pair (allocation and free) that hits, through `Resource&`. The pairs are in a function of their
// own, so that scripts/instructions can count what is done in it.
#include <cstddef>
#include <string>

#include <benchmark/benchmark.h>

#include "cistern/core/resource.hpp"
#include "cistern/stack/stack.hpp"

extern "C" [[gnu::noinline]] void cistern_pairs(cistern::Resource& resource, std::size_t bytes,
                                                int count) {
  for (int i = 0; i < count; ++i)
    resource.deallocate(resource.allocate(bytes));
}

namespace {

constexpr int hits = 1000;

void hit(benchmark::State& state, const std::string& text) {
  const cistern::Stack stack = cistern::open(text);
  for (int warm_up = 0; warm_up < 4; ++warm_up)
    stack->deallocate(stack->allocate(std::size_t{1} << 16U));
  for (auto turn : state)
    cistern_pairs(*stack, std::size_t{1} << 16U, hits);
  state.SetItemsProcessed(state.iterations() * hits);
}

// Before main(), which is the library's.
[[maybe_unused]] const bool is_registered = [] {
  for (const char* text : {"cache > host", "coalesce > host", "limit(1GiB) > cache > host"})
    benchmark::RegisterBenchmark(
        text, [text = std::string(text)](benchmark::State& state) { hit(state, text); });
  return true;
}();

}  // namespace
