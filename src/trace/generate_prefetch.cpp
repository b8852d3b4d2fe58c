// Training with weights that do not fit: those of the next layers are fetched while stream 0
// computes, forward and then backward again; so is the next batch.
#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

#include "trace/draws.hpp"
#include "trace/network.hpp"
#include "trace/programs.hpp"

namespace cistern::detail {
namespace {

class PrefetchProgram {
 public:
  PrefetchProgram(const GenerateOptions& options, Script& script)
      : script_(script), turns_(options.turns), streams_(options.streams), draws_(options.seed) {}

  void write() {
    Script::Blocks next_batch = fetch(network_.batch, 0);
    for (std::uint64_t turn = 1; turn <= turns_; ++turn) {
      script_.cycle();
      const Script::Blocks batch = std::exchange(next_batch, {});
      begin_fetching();
      write_forward();
      if (turn < turns_) next_batch = fetch(network_.batch, 0);
      write_backward();
      script_.free_all(batch, compute);
    }
  }

 private:
  static constexpr std::uint64_t compute = 0;
  static constexpr std::size_t layers = 24;
  static constexpr std::size_t ahead = 2;  // layers

  /// The tensors go over the streams in turn, beginning with the n-th.
  Script::Blocks fetch(const std::vector<std::uint64_t>& sizes, std::uint64_t n) {
    Script::Blocks blocks;
    for (const std::uint64_t bytes : sizes)
      blocks.push_back(script_.allocate(bytes, stream_beside(n++, streams_)));
    return blocks;
  }

  void begin_fetching() {
    fetched_uses_ = 0;
    while (fetched_uses_ < ahead)
      fetch_next();
  }

  /// A turn uses every layer twice, in order and back.
  void fetch_next() {
    if (fetched_uses_ == 2 * layers) return;
    const std::size_t use = fetched_uses_++;
    const std::size_t layer = use < layers ? use : 2 * layers - 1 - use;
    weights_.push_back(fetch(network_.layers[layer].weights, use));
  }

  void free_weights() {
    script_.free_all(weights_.front(), compute);
    weights_.pop_front();
  }

  void write_forward() {
    for (const LayerSizes& layer : network_.layers) {
      fetch_next();
      kept_.push_back(script_.allocate_all(layer.kept, compute));
      script_.use(layer.scratch, compute);
      free_weights();
    }
  }

  void write_backward() {
    for (std::size_t layer = layers; layer-- > 0;) {
      fetch_next();
      const LayerSizes& sizes = network_.layers[layer];
      const Script::Blocks gradients = script_.allocate_all(sizes.weights, compute);
      script_.use(sizes.scratch, compute);
      script_.free_all(kept_.back(), compute);
      kept_.pop_back();
      script_.free_all(gradients, compute);
      free_weights();
    }
  }

  Script& script_;
  std::uint64_t turns_;
  std::uint64_t streams_;
  Draws draws_;
  Network network_ = draw_network(draws_, layers);
  std::size_t fetched_uses_ = 0;        // of this turn
  std::deque<Script::Blocks> weights_;  // fetched and not yet used, by use
  std::vector<Script::Blocks> kept_;    // by layer
};

}  // namespace

void write_prefetch(const GenerateOptions& options, Script& script) {
  PrefetchProgram(options, script).write();
}

}  // namespace cistern::detail
