// How patient a pool is whose device is exhausted.
#pragma once

namespace cistern {

/// So often a request that would fail waits for what other threads are giving back.
inline constexpr int most_waits = 16;

}  // namespace cistern
