// The ways to run one job over one stack: for its throughput, for the time inside the allocator,
// for a trace, for a check. Each opens the stack anew, so that it starts cold, and each computes
// the same tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cistern/core/stats.hpp"
#include "session.hpp"

namespace decode {

/// What was computed, short enough to compare: the tokens, and a hash over the bits of each turn's
/// logits.
struct Output {
  std::vector<Token> tokens;
  std::vector<std::uint64_t> fingerprints;
  double mean_log_probability = 0;  // of the tokens chosen
};

struct Throughput {
  Output output;
  std::size_t parameters = 0;
  double seconds = 0;    // of the turns; weights and prompt are not in it
  cistern::Stats turns;  // counters of the turns alone
  cistern::Stats whole;  // peaks of the whole run
};

struct AllocatorTime {
  Output output;
  double seconds = 0;  // of the turns
};

struct Deviation {
  Output output;
  double largest = 0;     // between a logit and the reference's
  std::size_t worst = 0;  // the turn it was in
};

/// No clock is read within the turns, nothing is recorded.
Throughput measure_throughput(const Job& job, const std::string& stack);

/// A clock is read around every allocation and every free.
AllocatorTime measure_allocator(const Job& job, const std::string& stack);

/// Records everything the program asks of `stack` to `file`, each turn as one cycle. Throws
/// std::runtime_error if the trace could not be written.
Output record(const Job& job, const std::string& stack, const std::filesystem::path& file);

/// Holds every logit of every turn against the reference, which recomputes them from the whole
/// sequence.
Deviation check(const Job& job, const std::string& stack);

}  // namespace decode
