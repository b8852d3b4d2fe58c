// Two streams, for tests of what becomes of a block between them.
#pragma once

#include "cistern/core/block.hpp"

namespace cistern::testing {

inline constexpr Stream stream_one{.id = 1};
inline constexpr Stream stream_two{.id = 2};

}  // namespace cistern::testing
