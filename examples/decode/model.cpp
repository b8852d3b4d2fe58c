// The weights and the prompt are drawn with std::mt19937_64, whose output the standard specifies to
// the bit; the standard's distributions are not so specified, so numbers are made from its words
// here.
#include "model.hpp"

#include <cmath>
#include <random>

namespace decode {
namespace {

class Draw {
 public:
  Draw(Operators& operators, std::uint64_t seed) : operators_(operators), words_(seed) {}

  /// Uniform around zero, with a variance that keeps that of what the matrix is multiplied with.
  Tensor matrix(std::size_t outputs, std::size_t inputs) {
    return uniform(outputs, inputs, 0, std::sqrt(3.0 / static_cast<double>(inputs)));
  }
  /// Uniform with variance one.
  Tensor embedding(std::size_t rows, std::size_t columns) {
    return uniform(rows, columns, 0, std::sqrt(3.0));
  }
  Tensor gain(std::size_t width) { return uniform(1, width, 1, 0.25); }

 private:
  Tensor uniform(std::size_t rows, std::size_t columns, double middle, double reach) {
    Tensor drawn = operators_.tensor(rows, columns);
    std::vector<float> values(drawn.size());
    for (float& value : values) {
      const auto unit = static_cast<double>(words_() >> 11U) * 0x1p-53;  // in [0, 1)
      value = static_cast<float>(middle + reach * (2 * unit - 1));
    }
    operators_.upload(values, drawn);
    return drawn;
  }

  Operators& operators_;
  std::mt19937_64 words_;
};

LayerWeights make_layer(Draw& draw, const Config& config) {
  LayerWeights layer;
  layer.attention_gain = draw.gain(config.width);
  layer.query = draw.matrix(config.width, config.width);
  layer.key = draw.matrix(config.shared_width(), config.width);
  layer.value = draw.matrix(config.shared_width(), config.width);
  layer.attention_output = draw.matrix(config.width, config.width);
  layer.mlp_gain = draw.gain(config.width);
  layer.mlp_gate = draw.matrix(config.mlp_width, config.width);
  layer.mlp_up = draw.matrix(config.mlp_width, config.width);
  layer.mlp_down = draw.matrix(config.width, config.mlp_width);
  return layer;
}

}  // namespace

Weights make_weights(Operators& operators, const Config& config, std::uint64_t seed) {
  Draw draw(operators, seed);
  Weights weights;
  weights.embedding = draw.embedding(config.vocabulary, config.width);
  for (std::size_t layer = 0; layer < config.layers; ++layer) {
    weights.layers.push_back(make_layer(draw, config));
  }
  weights.final_gain = draw.gain(config.width);
  weights.head = draw.matrix(config.vocabulary, config.width);
  return weights;
}

std::size_t parameters(const Weights& weights) noexcept {
  const auto count = [](const auto&... tensors) { return (tensors.size() + ...); };
  std::size_t sum = count(weights.embedding, weights.final_gain, weights.head);
  for (const LayerWeights& layer : weights.layers) {
    sum += count(layer.attention_gain, layer.query, layer.key, layer.value, layer.attention_output,
                 layer.mlp_gain, layer.mlp_gate, layer.mlp_up, layer.mlp_down);
  }
  return sum;
}

std::vector<Token> make_prompt(const Config& config, std::size_t length, std::uint64_t seed) {
  std::mt19937_64 words(~seed);
  std::vector<Token> prompt(length);
  for (Token& token : prompt)
    token = static_cast<Token>(words() % config.vocabulary);
  return prompt;
}

}  // namespace decode
