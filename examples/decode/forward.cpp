// A token is about a thousand buffers, and a cycle: most of them are a head's, a few hundred bytes
// each, and live for one operator. They are freed where they go out of scope; nothing here plans or
// reuses memory, that is the pool's work.
#include "forward.hpp"

#include <cmath>

namespace decode {

Decoder::Decoder(Resource& memory, const Config& config, const Weights& weights)
    : memory_(memory), config_(config), weights_(weights), histories_(config.layers) {}

Tensor Decoder::read(std::span<const Token> tokens) {
  const Rotation angles =
      rotation(memory_, read_, tokens.size(), config_.head_width(), config_.rotation_base);
  Tensor x = embed(memory_, tokens, weights_.embedding);
  for (std::size_t i = 0; i < config_.layers; ++i) {
    const LayerWeights& layer = weights_.layers[i];
    x = sum(memory_, x, attend(layer, histories_[i], x, angles));
    x = sum(memory_, x, feed_forward(layer, x));
  }
  read_ += tokens.size();
  return x;
}

Tensor Decoder::logits(const Tensor& hidden) const {
  const Tensor normal = normalise(memory_, hidden, weights_.final_gain, config_.norm_epsilon);
  return multiply(memory_, normal, weights_.head);
}

Tensor Decoder::attend(const LayerWeights& layer, History& history, const Tensor& x,
                       const Rotation& angles) const {
  const std::size_t head_width = config_.head_width();
  const Tensor normal = normalise(memory_, x, layer.attention_gain, config_.norm_epsilon);
  const Tensor queries = multiply(memory_, normal, layer.query);
  const Tensor keys = multiply(memory_, normal, layer.key);
  const Tensor values = multiply(memory_, normal, layer.value);

  Tensor turned_keys(memory_, keys.rows(), keys.columns());
  for (std::size_t head = 0; head < config_.shared_heads; ++head) {
    const std::size_t at = head * head_width;
    const Tensor key = columns(memory_, keys, keys.rows(), at, head_width);
    paste(rotate(memory_, key, angles), turned_keys, at);
  }
  history.keys.append(memory_, turned_keys);
  history.values.append(memory_, values);

  Tensor joined(memory_, x.rows(), config_.width);
  for (std::size_t head = 0; head < config_.heads; ++head) {
    const std::size_t at = head * head_width;
    const std::size_t shared_at = head / config_.heads_per_shared() * head_width;
    const Tensor query = columns(memory_, queries, queries.rows(), at, head_width);
    const Tensor turned = rotate(memory_, query, angles);
    const Tensor head_keys = history.keys.columns(memory_, shared_at, head_width);
    const Tensor head_values = history.values.columns(memory_, shared_at, head_width);
    paste(attend_with_head(turned, head_keys, head_values), joined, at);
  }
  return multiply(memory_, joined, layer.attention_output);
}

Tensor Decoder::attend_with_head(const Tensor& query, const Tensor& keys,
                                 const Tensor& values) const {
  const float scaling = 1 / std::sqrt(static_cast<float>(config_.head_width()));
  const Tensor scores = multiply(memory_, query, keys);
  const Tensor scaled = scale(memory_, scores, scaling);
  const Tensor masked = mask_future(memory_, scaled, read_);
  const Tensor weights = softmax(memory_, masked);
  return mix(memory_, weights, values);
}

Tensor Decoder::feed_forward(const LayerWeights& layer, const Tensor& x) const {
  const Tensor normal = normalise(memory_, x, layer.mlp_gain, config_.norm_epsilon);
  const Tensor gate = multiply(memory_, normal, layer.mlp_gate);
  const Tensor up = multiply(memory_, normal, layer.mlp_up);
  const Tensor open = silu(memory_, gate);
  const Tensor gated = product(memory_, open, up);
  return multiply(memory_, gated, layer.mlp_down);
}

}  // namespace decode
