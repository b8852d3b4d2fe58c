// The sizes that a transformer asks for: large ones that repeat from layer to layer, and small ones
// of every magnitude beside them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trace/draws.hpp"

namespace cistern::detail {

/// Bytes, in the order in which they are asked for.
struct LayerSizes {
  std::vector<std::uint64_t> weights;
  std::vector<std::uint64_t> kept;     // by the forward pass for the backward one
  std::vector<std::uint64_t> scratch;  // gone when either is done with the layer
};

struct Network {
  std::uint64_t activation = 0;      // what a layer hands to the next: 1 to 16 MiB
  std::vector<std::uint64_t> batch;  // what a turn begins with
  std::vector<LayerSizes> layers;
};

/// All layers are of two shapes: most of one, every few of another, wider.
[[nodiscard]] Network draw_network(Draws& draws, std::size_t layers);

}  // namespace cistern::detail
