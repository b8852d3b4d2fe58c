// The forward pass with a history: reads tokens once, in order, and says what comes next. Not
// thread-safe.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "history.hpp"
#include "model.hpp"
#include "operators.hpp"

namespace decode {

class Decoder {
 public:
  /// `memory` and `weights` are borrowed.
  Decoder(Resource& memory, const Config& config, const Weights& weights);

  /// Reads tokens that follow those read before; returns what the last layer makes of each, a row a
  /// token.
  Tensor read(std::span<const Token> tokens);

  /// The logits of the token that follows each row of what `read` returned.
  [[nodiscard]] Tensor logits(const Tensor& hidden) const;

 private:
  [[nodiscard]] Tensor attend(const LayerWeights& layer, History& history, const Tensor& x,
                              const Rotation& angles) const;
  [[nodiscard]] Tensor attend_with_head(const Tensor& query, const Tensor& keys,
                                        const Tensor& values) const;
  [[nodiscard]] Tensor feed_forward(const LayerWeights& layer, const Tensor& x) const;

  Resource& memory_;
  const Config& config_;
  const Weights& weights_;
  std::vector<History> histories_;
  std::size_t read_ = 0;
};

}  // namespace decode
