// Where a hole that is large enough is found. Two policies: the smallest such hole, or the first by
// address. Neither allocates when a hole is put in or taken out. Not thread-safe: the pool's lock
// guards them.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include "cistern/pool/chunk.hpp"

namespace cistern {

/// Exact best fit: the smallest hole of at least the bytes asked for, the lowest address of equal
/// ones. Holes are kept by size in bins, 32 for every doubling, each an ordered tree; two levels of
/// bits find the next bin that holds any. O(1) while bins hold a few holes each, else O(log n).
/// (Segregated fits with bit maps are from M. Masmano et al.: TLSF, 2004, which takes the first of
/// a bin and is not exact.)
class BestFit {
 public:
  void insert(Chunk* hole) noexcept {
    const std::size_t bin = bin_of(hole->bytes);
    bins_[bin].insert(hole);
    words_[bin / 64] |= std::uint64_t{1} << bin % 64;
    summary_ |= std::uint64_t{1} << bin / 64;
  }

  void erase(Chunk* hole) noexcept {
    const std::size_t bin = bin_of(hole->bytes);
    bins_[bin].erase(hole);
    if (!bins_[bin].empty()) return;
    words_[bin / 64] &= ~(std::uint64_t{1} << bin % 64);
    if (words_[bin / 64] == 0) summary_ &= ~(std::uint64_t{1} << bin / 64);
  }

  /// Null if no hole is large enough.
  [[nodiscard]] Chunk* find(std::size_t bytes) const noexcept {
    const std::size_t bin = bin_of(bytes);
    Chunk* found =
        bins_[bin].first_reached([bytes](const Chunk& hole) { return hole.bytes >= bytes; });
    if (found != nullptr) return found;
    const std::size_t next = next_used(bin + 1);
    return next < bin_count ? bins_[next].first() : nullptr;
  }

  [[nodiscard]] std::size_t largest() const noexcept;
  [[nodiscard]] bool empty() const noexcept { return summary_ == 0; }

  template <class Visit>
  void each(Visit&& visit) const {
    for (const Bin& bin : bins_)
      bin.each(visit);
  }

  [[nodiscard]] std::string validate() const;

 private:
  struct BySize {
    static bool before(const Chunk& a, const Chunk& b) noexcept {
      return a.bytes != b.bytes ? a.bytes < b.bytes : a.start < b.start;
    }
  };
  using Bin = IntrusiveTree<Chunk, &Chunk::by_fit, BySize>;

  static constexpr unsigned sub_bits = 5;
  static constexpr std::size_t bin_count = (std::size_t{64} - sub_bits + 1) << sub_bits;
  static_assert(bin_count <= std::size_t{64} * 64);

  /// Rises with `bytes`: the exponent and the first bits after the leading one.
  [[nodiscard]] static std::size_t bin_of(std::size_t bytes) noexcept {
    const auto width = static_cast<unsigned>(std::bit_width(bytes));
    if (width <= sub_bits) return bytes;
    const unsigned shift = width - sub_bits - 1;
    return (std::size_t{shift} << sub_bits) + (bytes >> shift);
  }

  /// The first bin from `bin` on that holds any; bin_count if none does.
  [[nodiscard]] std::size_t next_used(std::size_t bin) const noexcept {
    const std::size_t word = bin / 64;
    if (word >= words_.size()) return bin_count;
    if (const std::uint64_t here = words_[word] >> bin % 64; here != 0)
      return bin + static_cast<std::size_t>(std::countr_zero(here));
    const std::uint64_t above = word + 1 < 64 ? summary_ >> (word + 1) : 0;
    if (above == 0) return bin_count;
    const std::size_t next = word + 1 + static_cast<std::size_t>(std::countr_zero(above));
    return next * 64 + static_cast<std::size_t>(std::countr_zero(words_[next]));
  }

  std::uint64_t summary_ = 0;
  std::array<std::uint64_t, (bin_count + 63) / 64> words_{};
  std::array<Bin, bin_count> bins_{};
};

/// The hole of the lowest address that is large enough. O(log n).
class FirstFit {
 public:
  void insert(Chunk* hole) noexcept { holes_.insert(hole); }
  void erase(Chunk* hole) noexcept { holes_.erase(hole); }
  [[nodiscard]] Chunk* find(std::size_t bytes) const noexcept;
  [[nodiscard]] std::size_t largest() const noexcept { return largest_of(holes_.root()); }
  [[nodiscard]] bool empty() const noexcept { return holes_.empty(); }

  template <class Visit>
  void each(Visit&& visit) const {
    holes_.each(visit);
  }

  [[nodiscard]] std::string validate() const;

 private:
  struct ByAddress {
    static bool before(const Chunk& a, const Chunk& b) noexcept { return a.start < b.start; }
    static void update(Chunk& hole) noexcept;
  };
  using Holes = IntrusiveTree<Chunk, &Chunk::by_fit, ByAddress>;

  static std::size_t largest_of(const Chunk* top) noexcept {
    return top == nullptr ? 0 : top->largest_below;
  }

  Holes holes_;
};

enum class Placement : std::uint8_t {
  packed,  // the smallest hole that is large enough beside live blocks; idle regions, and the end
           // of a region that can be extended, only if there is none
  best,    // the smallest hole that is large enough
  first,   // the one of the lowest address
};

/// Holes under one of the policies.
class HoleIndex {
 public:
  explicit HoleIndex(Placement placement) {
    if (placement == Placement::first) index_.emplace<FirstFit>();
  }

  void insert(Chunk* hole) noexcept {
    std::visit([&](auto& index) { index.insert(hole); }, index_);
  }
  void erase(Chunk* hole) noexcept {
    std::visit([&](auto& index) { index.erase(hole); }, index_);
  }
  [[nodiscard]] Chunk* find(std::size_t bytes) const noexcept {
    return std::visit([&](const auto& index) { return index.find(bytes); }, index_);
  }
  /// Bytes of the largest hole; 0 if there is none.
  [[nodiscard]] std::size_t largest() const noexcept {
    return std::visit([](const auto& index) { return index.largest(); }, index_);
  }
  [[nodiscard]] bool empty() const noexcept {
    return std::visit([](const auto& index) { return index.empty(); }, index_);
  }
  template <class Visit>
  void each(Visit&& visit) const {
    std::visit([&](const auto& index) { index.each(visit); }, index_);
  }
  [[nodiscard]] std::string validate() const {
    return std::visit([](const auto& index) { return index.validate(); }, index_);
  }

 private:
  std::variant<BestFit, FirstFit> index_;
};

}  // namespace cistern
