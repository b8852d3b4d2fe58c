// The greedy rule that all else builds on: always fill the lowest niche that is left. No buffer is
// ever put under another, so nothing but the skyline is to be known. Of the buffers that fit into
// the niche a given order decides which is put there, and the search for a good plan is a search
// for a good order. minimalloc and the strip packing heuristics of E. Burke, G. Kendall and G.
// Whitwell ("A New Placement Heuristic for the Orthogonal Stock-Cutting Problem", 2004) place in
// the same way. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "plan/effort.hpp"
#include "plan/fit_index.hpp"
#include "plan/part.hpp"
#include "plan/skyline.hpp"

namespace cistern::detail {

class LowestOffset {
 public:
  explicit LowestOffset(const Part& part) : part_(part), skyline_(part.sections), index_(part) {}

  /// Fills `offsets`, by item; `order` holds every item once. Returns the peak, or `nowhere` if
  /// `effort` was used up before it was done. Every item costs one search in the index, and every
  /// niche into which nothing fits one more, of which there are at most two for each item.
  std::size_t place(std::span<const std::uint32_t> order, std::vector<std::size_t>& offsets,
                    Effort& effort);

 private:
  const Part& part_;
  Skyline skyline_;
  FitIndex index_;
};

}  // namespace cistern::detail
