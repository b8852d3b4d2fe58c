// A token is about a thousand buffers, and a cycle: most of them are a head's, a few hundred bytes
// each, and live for one operator. They are freed where they go out of scope; nothing here plans or
// reuses memory, that is the pool's work.
#include "forward.hpp"

#include <cmath>

namespace decode {

Decoder::Decoder(Operators& operators, const Config& config, const Weights& weights)
    : op_(operators), config_(config), weights_(weights), histories_(config.layers) {}

Tensor Decoder::read(const Tokens& tokens, std::size_t count) {
  const Rotation angles = op_.rotation(read_, count, config_.head_width(), config_.rotation_base);
  Tensor x = op_.embed(tokens, count, weights_.embedding);
  for (std::size_t i = 0; i < config_.layers; ++i) {
    const LayerWeights& layer = weights_.layers[i];
    x = op_.sum(x, attend(layer, histories_[i], x, angles));
    x = op_.sum(x, feed_forward(layer, x));
  }
  read_ += count;
  return x;
}

Tensor Decoder::logits(const Tensor& hidden) const {
  const Tensor normal = op_.normalise(hidden, weights_.final_gain, config_.norm_epsilon);
  return op_.multiply(normal, weights_.head);
}

Tensor Decoder::attend(const LayerWeights& layer, History& history, const Tensor& x,
                       const Rotation& angles) const {
  const std::size_t head_width = config_.head_width();
  const Tensor normal = op_.normalise(x, layer.attention_gain, config_.norm_epsilon);
  const Tensor queries = op_.multiply(normal, layer.query);
  const Tensor keys = op_.multiply(normal, layer.key);
  const Tensor values = op_.multiply(normal, layer.value);

  Tensor turned_keys = op_.tensor(keys.rows(), keys.columns());
  for (std::size_t head = 0; head < config_.shared_heads; ++head) {
    const std::size_t at = head * head_width;
    const Tensor key = op_.columns(keys, keys.rows(), at, head_width);
    op_.paste(op_.rotate(key, angles), turned_keys, at);
  }
  history.keys.append(op_, turned_keys);
  history.values.append(op_, values);

  Tensor joined = op_.tensor(x.rows(), config_.width);
  for (std::size_t head = 0; head < config_.heads; ++head) {
    const std::size_t at = head * head_width;
    const std::size_t shared_at = head / config_.heads_per_shared() * head_width;
    const Tensor query = op_.columns(queries, queries.rows(), at, head_width);
    const Tensor turned = op_.rotate(query, angles);
    const Tensor head_keys = history.keys.columns(op_, shared_at, head_width);
    const Tensor head_values = history.values.columns(op_, shared_at, head_width);
    op_.paste(attend_with_head(turned, head_keys, head_values), joined, at);
  }
  return op_.multiply(joined, layer.attention_output);
}

Tensor Decoder::attend_with_head(const Tensor& query, const Tensor& keys,
                                 const Tensor& values) const {
  const float scaling = 1 / std::sqrt(static_cast<float>(config_.head_width()));
  const Tensor scores = op_.multiply(query, keys);
  const Tensor scaled = op_.scale(scores, scaling);
  const Tensor masked = op_.mask_future(scaled, read_);
  const Tensor weights = op_.softmax(masked);
  return op_.mix(weights, values);
}

Tensor Decoder::feed_forward(const LayerWeights& layer, const Tensor& x) const {
  const Tensor normal = op_.normalise(x, layer.mlp_gain, config_.norm_epsilon);
  const Tensor gate = op_.multiply(normal, layer.mlp_gate);
  const Tensor up = op_.multiply(normal, layer.mlp_up);
  const Tensor open = op_.silu(gate);
  const Tensor gated = op_.product(open, up);
  return op_.multiply(gated, layer.mlp_down);
}

}  // namespace decode
