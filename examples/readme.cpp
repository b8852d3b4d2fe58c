#include <cstdio>
#include <cstring>

#include "cistern/stack/stack.hpp"

int main() {
  // Outermost first: at most 2 GiB live, freed blocks kept for reuse, memory from the CPU.
  const cistern::Stack stack = cistern::open("limit(2GiB) > cache > host");

  for (int token = 0; token < 100; ++token) {
    const cistern::Buffer activations = stack.buffer(1'000'000);  // throws OutOfMemory
    const cistern::Buffer scratch = stack.buffer({.bytes = 300'000, .alignment = 4096});
    std::memset(activations.data(), 0, activations.bytes());
  }  // both are freed here, and found again by the next token

  // Failure as a value, for code that would rather not throw.
  if (const auto block = stack->try_allocate({.bytes = std::size_t{3} << 30}); !block) {
    std::puts(describe(block.error()).c_str());
  }

  const cistern::Stats stats = stack->stats();
  std::printf("%.0f %% hits, %zu bytes reserved\n", 100 * stats.hit_rate(), stats.reserved.current);
  stack->trim();  // everything idle goes back
  return stack->stats().reserved.current == 0 ? 0 : 1;
}
