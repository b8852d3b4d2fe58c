// Elements by size, in bins of nearly equal sizes that two levels of bitmaps find: a good fit in
// O(1), by looking at a few elements of a few bins. Nothing is allocated to put an element in.
// After the two-level segregated fit of Masmano, Ripoll, Crespo and Real (2004). Not thread-safe.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace cistern {

/// An element's place in one set of bins.
template <class T>
struct BinLinks {
  T* newer = nullptr;
  T* older = nullptr;
  std::size_t size = 0;
  bool is_in = false;
};

template <class T, BinLinks<T> T::*links>
class SizeBins {
 public:
  [[nodiscard]] std::size_t size() const noexcept { return elements_; }
  [[nodiscard]] static bool has(const T* element) noexcept { return (element->*links).is_in; }

  void put(T* element, std::size_t size) noexcept {
    const std::size_t bin = bin_of(size);
    T*& newest = newest_[bin];
    element->*links = {.newer = nullptr, .older = newest, .size = size, .is_in = true};
    if (newest != nullptr) (newest->*links).newer = element;
    newest = element;
    bins_[bin / per_group] |= 1U << (bin % per_group);
    groups_ |= std::uint64_t{1} << (bin / per_group);
    ++elements_;
  }

  void remove(T* element) noexcept {
    const BinLinks<T> place = element->*links;
    const std::size_t bin = bin_of(place.size);
    if (place.older != nullptr) (place.older->*links).newer = place.newer;
    if (place.newer != nullptr) {
      (place.newer->*links).older = place.older;
    } else {
      newest_[bin] = place.older;
      if (place.older == nullptr) empty_bin(bin);
    }
    (element->*links).is_in = false;
    --elements_;
  }

  /// The smallest element that `accept`s, in the first bin from that of `size` to that of `last`
  /// that has one; null if none of the few that are looked at does. Those of the first bin may be
  /// smaller than `size`.
  template <class Accept>
  [[nodiscard]] T* find_up(std::size_t size, std::size_t last, Accept&& accept) const noexcept {
    return find<true>(bin_of(size), bin_of(last), accept);
  }

  /// The largest that `accept`s, in the first bin from that of `size` downwards that has one.
  template <class Accept>
  [[nodiscard]] T* find_down(std::size_t size, Accept&& accept) const noexcept {
    return find<false>(bin_of(size), 0, accept);
  }

  /// The largest size there is, or a size of the same bin; 0 if there is none.
  [[nodiscard]] std::size_t largest() const noexcept {
    const T* found = find_down(~std::size_t{0}, [](const T&) { return true; });
    return found == nullptr ? 0 : size_of(found);
  }

 private:
  static constexpr std::size_t per_group = 32;  // bins of a doubling
  static constexpr std::size_t groups = 60;
  static constexpr std::size_t none = groups * per_group;
  static constexpr int looks_in_bin = 8;
  static constexpr int looks = 32;

  static std::size_t size_of(const T* element) noexcept { return (element->*links).size; }

  static std::size_t bin_of(std::size_t size) noexcept {
    if (size < per_group) return size;
    const auto shift = static_cast<std::size_t>(std::bit_width(size)) - 6;
    return (shift + 1) * per_group + ((size >> shift) % per_group);
  }

  void empty_bin(std::size_t bin) noexcept {
    std::uint32_t& group = bins_[bin / per_group];
    group &= ~(1U << (bin % per_group));
    if (group == 0) groups_ &= ~(std::uint64_t{1} << (bin / per_group));
  }

  /// The first bin at or above, or below, that is not empty.
  template <bool up>
  [[nodiscard]] std::size_t next_bin(std::size_t bin) const noexcept {
    const std::size_t group = bin / per_group;
    const auto place = static_cast<unsigned>(bin % per_group);
    const std::uint32_t here =
        bins_[group] & (up ? ~std::uint32_t{0} << place : ~std::uint32_t{0} >> (31U - place));
    if (here != 0) return group * per_group + edge<up>(here);
    const std::uint64_t mask =
        up ? ~std::uint64_t{0} << group << 1U : (std::uint64_t{1} << group) - 1;
    const std::uint64_t others = groups_ & mask;
    if (others == 0) return none;
    const std::size_t next = edge<up>(others);
    return next * per_group + edge<up>(bins_[next]);
  }

  template <bool up, class Word>
  static std::size_t edge(Word word) noexcept {
    const auto high = static_cast<std::size_t>(std::bit_width(word)) - 1;
    return up ? static_cast<std::size_t>(std::countr_zero(word)) : high;
  }

  template <bool up, class Accept>
  [[nodiscard]] T* find(std::size_t bin, std::size_t last, Accept& accept) const noexcept {
    for (int looked = 0; looked < looks;) {
      bin = next_bin<up>(bin);
      if (bin == none || (up && bin > last)) return nullptr;
      T* best = nullptr;
      int looked_here = 0;
      for (T* each = newest_[bin]; each != nullptr && looked_here < looks_in_bin;
           each = (each->*links).older, ++looked_here) {
        const bool is_better =
            best == nullptr || (up ? size_of(each) < size_of(best) : size_of(best) < size_of(each));
        if (is_better && accept(*each)) best = each;
      }
      if (best != nullptr) return best;
      looked += looked_here;
      if (up ? ++bin == none : bin-- == 0) return nullptr;
    }
    return nullptr;
  }

  std::uint64_t groups_ = 0;
  std::array<std::uint32_t, groups> bins_{};
  std::array<T*, none> newest_{};
  std::size_t elements_ = 0;
};

}  // namespace cistern
