// What the model is: its shape, and its weights. A decoder as they are built today: RMSNorm before
// each half of a layer, rotary positions, query heads that share heads of keys and values, a gated
// MLP.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "operators.hpp"

namespace decode {

struct Config {
  std::size_t vocabulary = 2048;
  std::size_t width = 256;
  std::size_t layers = 8;
  std::size_t heads = 8;         // of queries
  std::size_t shared_heads = 4;  // of keys and values, each shared by as many query heads
  std::size_t mlp_width = 704;
  double rotation_base = 10000;
  double norm_epsilon = 1e-5;

  [[nodiscard]] std::size_t head_width() const noexcept { return width / heads; }
  [[nodiscard]] std::size_t shared_width() const noexcept { return shared_heads * head_width(); }
  [[nodiscard]] std::size_t heads_per_shared() const noexcept { return heads / shared_heads; }
};

/// Matrices have one row for each of their outputs, gains are one row.
struct LayerWeights {
  Tensor attention_gain;
  Tensor query;
  Tensor key;
  Tensor value;
  Tensor attention_output;
  Tensor mlp_gain;
  Tensor mlp_gate;
  Tensor mlp_up;
  Tensor mlp_down;
};

struct Weights {
  Tensor embedding;
  std::vector<LayerWeights> layers;
  Tensor final_gain;
  Tensor head;
};

/// Draws the weights; the same on every machine for the same `seed`.
Weights make_weights(Operators& operators, const Config& config, std::uint64_t seed);

/// How many numbers the weights are.
std::size_t parameters(const Weights& weights) noexcept;

/// Draws a prompt of `length` tokens.
std::vector<Token> make_prompt(const Config& config, std::size_t length, std::uint64_t seed);

}  // namespace decode
