// One decoding from beginning to end: weights and prompt at the start, then a token a turn, always
// the likeliest. All its memory is one resource's. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "forward.hpp"
#include "model.hpp"

namespace decode {

struct Job {
  Config config;
  std::size_t prompt_length = 16;  // at least 1
  std::size_t tokens = 64;
  std::uint64_t seed = 1;
};

/// What a turn yields: a token, how likely it was, and the logits it was chosen by.
struct Turn {
  Token token = 0;
  float probability = 0;
  Tensor logits;
};

class Session {
 public:
  /// Draws the weights and reads the prompt but for its last token, which the first turn reads.
  /// `memory` is borrowed.
  Session(const Job& job, Resource& memory);

  /// Reads the last token and chooses the next: one cycle, as far as the memory is concerned.
  Turn turn();

  [[nodiscard]] const Weights& weights() const noexcept { return weights_; }
  /// Those of a turn, on the host.
  [[nodiscard]] std::vector<float> logits_of(const Turn& turn) const {
    return operators_->download(turn.logits);
  }

 private:
  Resource& memory_;
  const std::unique_ptr<Operators> operators_;
  const Config config_;
  const Weights weights_;
  Decoder decoder_;
  Tokens last_;
};

}  // namespace decode
