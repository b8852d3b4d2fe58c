// Training on one of several devices: activations are exchanged beside the forward pass, gradients
// are summed up in buckets beside the backward pass, and whoever sums a bucket also steps the
// optimiser for it.
#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

#include "trace/draws.hpp"
#include "trace/network.hpp"
#include "trace/programs.hpp"

namespace cistern::detail {
namespace {

class SideProgram {
 public:
  SideProgram(const GenerateOptions& options, Script& script)
      : script_(script), turns_(options.turns), streams_(options.streams), draws_(options.seed) {}

  void write() {
    std::vector<Script::Blocks> weights;
    std::vector<Script::Blocks> moments;
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const std::vector<std::uint64_t>& sizes = network_.layers[layer].weights;
      weights.push_back(script_.allocate_all(sizes, main_stream));
      moments.emplace_back();
      for (const std::uint64_t bytes : sizes) {
        for (int moment = 0; moment < 2; ++moment)
          moments.back().push_back(script_.allocate(2 * bytes, stream_of_bucket(layer)));
      }
    }
    for (std::uint64_t turn = 0; turn < turns_; ++turn) {
      script_.cycle();
      write_forward();
      write_backward();
    }
    for (std::size_t layer = layers; layer-- > 0;) {
      script_.free_all(moments[layer], stream_of_bucket(layer));
      script_.free_all(weights[layer], main_stream);
    }
  }

 private:
  static constexpr std::uint64_t main_stream = 0;
  static constexpr std::size_t layers = 24;
  static constexpr std::size_t layers_a_bucket = 2;
  static constexpr std::size_t overlap = 2;  // layers, or buckets, until what was sent is there

  /// What is done on a side stream and not known to be done.
  struct Exchange {
    std::size_t layer;  // the first of a bucket
    Script::Blocks own;
    Script::Blocks of_main{};  // freed on the side stream, too
  };

  [[nodiscard]] std::uint64_t stream_of_bucket(std::size_t layer) const {
    return stream_beside(layer / layers_a_bucket, streams_);
  }

  void write_forward() {
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const LayerSizes& sizes = network_.layers[layer];
      kept_.push_back(script_.allocate_all(sizes.kept, main_stream));
      script_.use(sizes.scratch, main_stream);
      const std::uint64_t side = stream_beside(layer, streams_);
      under_way_.push_back({layer, script_.allocate_all({network_.activation, staging_}, side)});
      if (under_way_.size() > overlap) end_activations();
    }
    while (!under_way_.empty())
      end_activations();
  }

  void end_activations() {
    const Exchange& oldest = under_way_.front();
    script_.free_all(oldest.own, stream_beside(oldest.layer, streams_));
    under_way_.pop_front();
  }

  void write_backward() {
    Script::Block bucket;
    for (std::size_t layer = layers; layer-- > 0;) {
      if (layer % layers_a_bucket == layers_a_bucket - 1)
        bucket = script_.allocate(bucket_bytes(layer), main_stream);
      script_.use(network_.layers[layer].scratch, main_stream);
      script_.free_all(kept_.back(), main_stream);
      kept_.pop_back();
      if (layer % layers_a_bucket == 0) {
        under_way_.push_back(
            {layer,
             script_.allocate_all({bucket.bytes, staging_}, stream_of_bucket(layer)),
             {bucket}});
        if (under_way_.size() > overlap) end_gradients();
      }
    }
    while (!under_way_.empty())
      end_gradients();
  }

  [[nodiscard]] std::uint64_t bucket_bytes(std::size_t last_layer) const {
    std::uint64_t bytes = 0;
    for (std::size_t layer = last_layer + 1 - layers_a_bucket; layer <= last_layer; ++layer) {
      for (const std::uint64_t weight : network_.layers[layer].weights)
        bytes += weight;
    }
    return bytes;
  }

  /// The sums are there: the optimiser takes its step in full precision.
  void end_gradients() {
    const Exchange& oldest = under_way_.front();
    const std::uint64_t side = stream_of_bucket(oldest.layer);
    for (std::size_t layer = oldest.layer; layer < oldest.layer + layers_a_bucket; ++layer) {
      for (const std::uint64_t bytes : network_.layers[layer].weights)
        script_.use({2 * bytes, 2 * bytes}, side);
    }
    script_.free_all(oldest.own, side);
    script_.free_all(oldest.of_main, side);
    under_way_.pop_front();
  }

  Script& script_;
  std::uint64_t turns_;
  std::uint64_t streams_;
  Draws draws_;
  Network network_ = draw_network(draws_, layers);
  std::uint64_t staging_ = draws_.log_uniform(18, 23);  // what the exchange copies through
  std::deque<Exchange> under_way_;                      // the oldest first
  std::vector<Script::Blocks> kept_;                    // by layer
};

}  // namespace

void write_side(const GenerateOptions& options, Script& script) {
  SideProgram(options, script).write();
}

}  // namespace cistern::detail
