// Uses nothing but what an installed cistern offers.
#include <cistern/stack/stack.hpp>
#include <cistern/version.hpp>

int main() {
  const cistern::Stack stack = cistern::open("cache > host");
  const cistern::Block block = stack->allocate(4096);
  return stack->deallocate(block) && CISTERN_VERSION_MAJOR == 0 ? 0 : 1;
}
