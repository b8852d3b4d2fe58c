// The same model written as plainly as can be, to hold the forward pass against: in double, without
// a history, without cistern, everything recomputed from the whole sequence of tokens.
#pragma once

#include <span>
#include <vector>

#include "model.hpp"

namespace decode {

/// The logits of what follows each of `tokens`.
std::vector<std::vector<double>> reference_logits(const Config& config, const Weights& weights,
                                                  std::span<const Token> tokens);

}  // namespace decode
