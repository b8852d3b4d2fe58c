// Draws what the benchmark found, as SVG that any browser shows: a table says how long each takes,
// a picture how that changes with sizes and threads.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bench_contest.hpp"

namespace cistern::command {

struct Measured {
  Setting setting;
  std::vector<Standing> standings;
};

/// All of one workload: upwards the time on a logarithmic scale, to the right sizes and threads, a
/// colour for each subject. What several threads took stands to the right of what fewer did.
[[nodiscard]] std::string bench_picture(std::span<const Measured> measured);

}  // namespace cistern::command
