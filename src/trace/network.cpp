#include "trace/network.hpp"

namespace cistern::detail {
namespace {

// Bytes of a number.
constexpr std::uint64_t in_half = 2;
constexpr std::uint64_t in_single = 4;
constexpr std::uint64_t as_index = 8;

LayerSizes draw_layer(Draws& draws, std::uint64_t rows, std::uint64_t width,
                      std::uint64_t expansion) {
  constexpr std::uint64_t head_width = 64;
  const std::uint64_t activation = rows * width * in_half;
  const std::uint64_t square = width * width * in_half;
  LayerSizes layer;
  layer.weights = {
      width * in_half,         3 * square,         3 * width * in_half,         square,
      width * in_half,         expansion * square, expansion * width * in_half, expansion * square,
      draws.log_uniform(8, 14)};
  layer.kept = {activation,                               // normalised
                rows * in_single,                         // its statistics
                3 * activation,                           // queries, keys, values
                rows * (width / head_width) * in_single,  // of the softmax
                activation,                               // attention
                activation / in_half,                     // a mask, a byte each
                draws.log_uniform(8, 16),
                activation,
                rows * in_single,
                expansion * activation,  // before and after the nonlinearity
                expansion * activation,
                draws.log_uniform(8, 16)};
  layer.scratch = {draws.log_uniform(16, 25), activation, draws.log_uniform(8, 12),
                   draws.log_uniform(12, 20), expansion * activation};
  return layer;
}

}  // namespace

Network draw_network(Draws& draws, std::size_t layers) {
  const std::uint64_t rows = draws.one_of({1024, 1536, 2048, 3072, 4096});
  const std::uint64_t width = draws.one_of({512, 768, 1024, 1280, 1536, 2048});
  const LayerSizes common = draw_layer(draws, rows, width, 4);
  const LayerSizes wide = draw_layer(draws, rows, width, draws.between(5, 8));
  const std::uint64_t period = draws.between(3, 6);

  Network network;
  network.activation = rows * width * in_half;
  network.batch = {rows * as_index, rows * as_index, draws.log_uniform(20, 25),
                   draws.log_uniform(8, 16)};
  for (std::size_t layer = 0; layer < layers; ++layer)
    network.layers.push_back(layer % period == period - 1 ? wide : common);
  return network;
}

}  // namespace cistern::detail
