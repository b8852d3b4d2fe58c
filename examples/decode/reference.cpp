// Shares nothing with the forward pass but the weights.
#include "reference.hpp"

#include <cmath>
#include <cstddef>

namespace decode {
namespace {

using Vector = std::vector<double>;
using Vectors = std::vector<Vector>;  // one for each token

Vector times(const Tensor& weight, const Vector& x) {
  Vector result(weight.rows());
  for (std::size_t output = 0; output < weight.rows(); ++output) {
    const auto row = weight.row(output);
    for (std::size_t i = 0; i < x.size(); ++i)
      result[output] += static_cast<double>(row[i]) * x[i];
  }
  return result;
}

Vector normal(const Vector& x, const Tensor& gain, double epsilon) {
  double squares = 0;
  for (const double value : x)
    squares += value * value;
  const double root = std::sqrt(squares / static_cast<double>(x.size()) + epsilon);
  Vector result(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    result[i] = x[i] / root * static_cast<double>(gain.values()[i]);
  }
  return result;
}

/// Turns each head of `x`, which lie one after another.
void turn(const Config& config, Vector& x, std::size_t position) {
  const std::size_t width = config.head_width();
  for (std::size_t head = 0; head < x.size(); head += width) {
    for (std::size_t i = 0; i < width / 2; ++i) {
      const double exponent = -2 * static_cast<double>(i) / static_cast<double>(width);
      const double angle = static_cast<double>(position) * std::pow(config.rotation_base, exponent);
      double& a = x[head + i];
      double& b = x[head + i + width / 2];
      const double turned_a = a * std::cos(angle) - b * std::sin(angle);
      const double turned_b = a * std::sin(angle) + b * std::cos(angle);
      a = turned_a;
      b = turned_b;
    }
  }
}

/// What one query head of the last of `keys` sees: the values weighted by the softmax of the
/// scores.
Vector look(const Config& config, const Vector& query, const Vectors& keys, const Vectors& values,
            std::size_t last, std::size_t head) {
  const std::size_t width = config.head_width();
  const std::size_t shared = head / config.heads_per_shared() * width;
  Vector scores(last + 1);
  double total = 0;
  for (std::size_t t = 0; t <= last; ++t) {
    for (std::size_t i = 0; i < width; ++i) {
      scores[t] += query[head * width + i] * keys[t][shared + i];
    }
    scores[t] = std::exp(scores[t] / std::sqrt(static_cast<double>(width)));
    total += scores[t];
  }
  Vector result(width);
  for (std::size_t t = 0; t <= last; ++t) {
    for (std::size_t i = 0; i < width; ++i) {
      result[i] += scores[t] / total * values[t][shared + i];
    }
  }
  return result;
}

void add_attention(const Config& config, const LayerWeights& layer, Vectors& x) {
  Vectors queries;
  Vectors keys;
  Vectors values;
  for (std::size_t t = 0; t < x.size(); ++t) {
    const Vector in = normal(x[t], layer.attention_gain, config.norm_epsilon);
    queries.push_back(times(layer.query, in));
    keys.push_back(times(layer.key, in));
    values.push_back(times(layer.value, in));
    turn(config, queries[t], t);
    turn(config, keys[t], t);
  }
  for (std::size_t t = 0; t < x.size(); ++t) {
    Vector seen;
    for (std::size_t head = 0; head < config.heads; ++head) {
      const Vector part = look(config, queries[t], keys, values, t, head);
      seen.insert(seen.end(), part.begin(), part.end());
    }
    const Vector out = times(layer.attention_output, seen);
    for (std::size_t i = 0; i < out.size(); ++i)
      x[t][i] += out[i];
  }
}

void add_mlp(const Config& config, const LayerWeights& layer, Vector& x) {
  const Vector in = normal(x, layer.mlp_gain, config.norm_epsilon);
  const Vector gate = times(layer.mlp_gate, in);
  Vector inner = times(layer.mlp_up, in);
  for (std::size_t i = 0; i < inner.size(); ++i)
    inner[i] *= gate[i] / (1 + std::exp(-gate[i]));
  const Vector out = times(layer.mlp_down, inner);
  for (std::size_t i = 0; i < out.size(); ++i)
    x[i] += out[i];
}

}  // namespace

std::vector<std::vector<double>> reference_logits(const Config& config, const Weights& weights,
                                                  std::span<const Token> tokens) {
  Vectors x;
  for (const Token token : tokens) {
    const auto row = weights.embedding.row(token);
    x.emplace_back(row.begin(), row.end());
  }
  for (const LayerWeights& layer : weights.layers) {
    add_attention(config, layer, x);
    for (Vector& token : x)
      add_mlp(config, layer, token);
  }
  Vectors logits;
  for (const Vector& token : x) {
    logits.push_back(times(weights.head, normal(token, weights.final_gain, config.norm_epsilon)));
  }
  return logits;
}

}  // namespace decode
