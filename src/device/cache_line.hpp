// Blocks of host memory begin on lines of the processor's cache and consist of them, so that no two
// share one.
#pragma once

#include <cstddef>

namespace cistern {

inline constexpr std::size_t cache_line = 64;

}  // namespace cistern
