#include "cistern/pool/hole_index.hpp"

#include <algorithm>

namespace cistern {

std::size_t BestFit::largest() const noexcept {
  if (summary_ == 0) return 0;
  const auto word = static_cast<std::size_t>(63 - std::countl_zero(summary_));
  const std::size_t bin = word * 64 + static_cast<std::size_t>(63 - std::countl_zero(words_[word]));
  const Chunk* hole = bins_[bin].root();
  while (Bin::right(hole) != nullptr)
    hole = Bin::right(hole);
  return hole->bytes;
}

std::string BestFit::validate() const {
  std::string broken;
  for (std::size_t bin = 0; bin < bin_count; ++bin) {
    const bool is_used = !bins_[bin].empty();
    if (((words_[bin / 64] >> bin % 64 & 1) != 0) != is_used)
      return "best fit: a bit is set for every bin that holds holes";
    const Chunk* last = nullptr;
    bins_[bin].each([&](const Chunk& hole) {
      if (bin_of(hole.bytes) != bin) broken = "best fit: a hole is in the bin of its size";
      if (last != nullptr && !BySize::before(*last, hole))
        broken = "best fit: a bin is in order of size, then address";
      last = &hole;
    });
  }
  for (std::size_t word = 0; word < words_.size(); ++word) {
    if (((summary_ >> word & 1) != 0) != (words_[word] != 0))
      return "best fit: the summary has a bit for every word that is not zero";
  }
  return broken;
}

void FirstFit::ByAddress::update(Chunk& hole) noexcept {
  hole.largest_below =
      std::max({hole.bytes, largest_of(Holes::left(&hole)), largest_of(Holes::right(&hole))});
}

Chunk* FirstFit::find(std::size_t bytes) const noexcept {
  Chunk* at = holes_.root();
  if (largest_of(at) < bytes) return nullptr;
  while (true) {
    if (largest_of(Holes::left(at)) >= bytes) {
      at = Holes::left(at);
    } else if (at->bytes >= bytes) {
      return at;
    } else {
      at = Holes::right(at);
    }
  }
}

std::string FirstFit::validate() const {
  std::string broken;
  const Chunk* last = nullptr;
  holes_.each([&](const Chunk& hole) {
    const std::size_t largest =
        std::max({hole.bytes, largest_of(Holes::left(&hole)), largest_of(Holes::right(&hole))});
    if (hole.largest_below != largest) broken = "first fit: a hole knows the largest below it";
    if (last != nullptr && !ByAddress::before(*last, hole))
      broken = "first fit: holes are in order of address";
    last = &hole;
  });
  return broken;
}

}  // namespace cistern
