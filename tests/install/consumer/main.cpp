// Uses nothing but what an installed cistern offers.
#include <cistern/core/resource.hpp>
#include <cistern/version.hpp>

int main() { return CISTERN_VERSION_MAJOR == 0 ? 0 : 1; }
