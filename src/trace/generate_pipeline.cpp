// One forward, one backward (Narayanan et al.: PipeDream, 2019; flushed at the end of each turn):
// the s-th of S stages takes S - s micro-batches in before the first comes back, and from then on
// one for each that does.
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "trace/draws.hpp"
#include "trace/network.hpp"
#include "trace/programs.hpp"

namespace cistern::detail {
namespace {

class PipelineProgram {
 public:
  PipelineProgram(const GenerateOptions& options, Script& script)
      : script_(script), turns_(options.turns) {
    constexpr std::size_t least_stages = 8;
    const std::size_t stages = std::max(least_stages, static_cast<std::size_t>(options.streams));
    batches_ = 2 * stages;
    Draws draws(options.seed);
    Network network = draw_network(draws, stages * layers_a_stage);
    activation_ = network.activation;
    batch_ = std::move(network.batch);
    for (std::size_t s = 0; s < stages; ++s) {
      // Neighbours share a stream where there are fewer streams than stages.
      Stage stage{.stream = s * options.streams / stages, .in_flight_at_most = stages - s};
      for (std::size_t layer = 0; layer < layers_a_stage; ++layer)
        stage.layers.push_back(std::move(network.layers[s * layers_a_stage + layer]));
      stages_.push_back(std::move(stage));
    }
  }

  void write() {
    std::vector<Script::Blocks> weights;
    for (const Stage& stage : stages_) {
      for (const LayerSizes& layer : stage.layers)
        weights.push_back(script_.allocate_all(layer.weights, stage.stream));
    }
    for (std::uint64_t turn = 0; turn < turns_; ++turn) {
      script_.cycle();
      write_turn();
    }
    for (std::size_t i = weights.size(); i-- > 0;)
      script_.free_all(weights[i], stages_[i / layers_a_stage].stream);
  }

 private:
  static constexpr std::size_t layers_a_stage = 2;

  /// What a stage holds of a micro-batch that went forward and did not come back.
  struct InFlight {
    Script::Blocks input;  // of the former stage's stream
    std::vector<Script::Blocks> kept;
  };

  struct Stage {
    std::uint64_t stream = 0;
    std::size_t in_flight_at_most = 0;
    std::vector<LayerSizes> layers{};
    std::vector<InFlight> in_flight{};       // by micro-batch
    std::vector<Script::Blocks> handed{};    // activations by micro-batch, from the former stage
    std::vector<Script::Blocks> returned{};  // gradients, from the next
    std::size_t forwards = 0;                // micro-batches that went forward
    std::size_t backwards = 0;               // and came back
  };

  void write_turn() {
    for (Stage& stage : stages_) {
      stage.in_flight.assign(batches_, {});
      stage.handed.assign(batches_, {});
      stage.returned.assign(batches_, {});
      stage.forwards = stage.backwards = 0;
    }
    while (stages_.front().backwards < batches_)
      write_tick();
    for (const Stage& stage : stages_)
      step_optimiser(stage);
  }

  /// What the stages do beside each other, at most a micro-batch each.
  void write_tick() {
    struct Ready {
      bool forward;
      bool backward;
    };
    std::vector<Ready> ready;  // by what was done before this tick
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      const Stage& stage = stages_[s];
      const std::size_t arrived = s == 0 ? batches_ : stages_[s - 1].forwards;
      const std::size_t back = s + 1 == stages_.size() ? stage.forwards : stages_[s + 1].backwards;
      ready.push_back({stage.forwards < arrived, stage.backwards < back});
    }
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      const Stage& stage = stages_[s];
      const bool is_full =
          stage.forwards - stage.backwards == stage.in_flight_at_most || stage.forwards == batches_;
      if (is_full && ready[s].backward) backward(s);
      if (!is_full && ready[s].forward) forward(s);
    }
  }

  void forward(std::size_t s) {
    Stage& stage = stages_[s];
    const std::size_t batch = stage.forwards++;
    InFlight& in_flight = stage.in_flight[batch];
    in_flight.input = s == 0 ? script_.allocate_all(batch_, stage.stream)
                             : std::exchange(stage.handed[batch], {});
    for (const LayerSizes& layer : stage.layers) {
      in_flight.kept.push_back(script_.allocate_all(layer.kept, stage.stream));
      script_.use(layer.scratch, stage.stream);
    }
    if (s + 1 < stages_.size())
      stages_[s + 1].handed[batch] = {script_.allocate(activation_, stage.stream)};
  }

  void backward(std::size_t s) {
    Stage& stage = stages_[s];
    const std::size_t batch = stage.backwards++;
    InFlight& in_flight = stage.in_flight[batch];
    for (std::size_t layer = stage.layers.size(); layer-- > 0;) {
      script_.use(stage.layers[layer].scratch, stage.stream);
      script_.free_all(in_flight.kept[layer], stage.stream);
    }
    if (s > 0) stages_[s - 1].returned[batch] = {script_.allocate(activation_, stage.stream)};
    script_.free_all(std::exchange(stage.returned[batch], {}), stage.stream);
    script_.free_all(in_flight.input, stage.stream);
  }

  void step_optimiser(const Stage& stage) {
    for (const LayerSizes& layer : stage.layers) {
      for (const std::uint64_t bytes : layer.weights)
        script_.use({2 * bytes}, stage.stream);  // in full precision
    }
  }

  Script& script_;
  std::uint64_t turns_;
  std::size_t batches_ = 0;  // micro-batches of a turn
  std::uint64_t activation_ = 0;
  std::vector<std::uint64_t> batch_;
  std::vector<Stage> stages_;
};

}  // namespace

void write_pipeline(const GenerateOptions& options, Script& script) {
  PipelineProgram(options, script).write();
}

}  // namespace cistern::detail
