// The forward pass with a history: reads tokens once, in order, and says what comes next. Not
// thread-safe.
#pragma once

#include <cstddef>
#include <vector>

#include "history.hpp"
#include "model.hpp"
#include "operators.hpp"

namespace decode {

class Decoder {
 public:
  /// `operators` and `weights` are borrowed.
  Decoder(Operators& operators, const Config& config, const Weights& weights);

  /// Reads the first `count` of `tokens`, which follow those read before; returns what the last
  /// layer makes of each, a row a token.
  Tensor read(const Tokens& tokens, std::size_t count);

  /// The logits of the token that follows each row of what `read` returned.
  [[nodiscard]] Tensor logits(const Tensor& hidden) const;

 private:
  [[nodiscard]] Tensor attend(const LayerWeights& layer, History& history, const Tensor& x,
                              const Rotation& angles) const;
  [[nodiscard]] Tensor attend_with_head(const Tensor& query, const Tensor& keys,
                                        const Tensor& values) const;
  [[nodiscard]] Tensor feed_forward(const LayerWeights& layer, const Tensor& x) const;

  Operators& op_;
  const Config& config_;
  const Weights& weights_;
  std::vector<History> histories_;
  std::size_t read_ = 0;
};

}  // namespace decode
