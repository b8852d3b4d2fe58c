// Which pages of a range of addresses have memory behind them: a bit each. Not thread-safe.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace cistern {

/// Pages are numbered from the start of the range. Operations on n pages are O(n / 64).
class PageMap {
 public:
  /// Neighbouring pages that are all mapped, or all not.
  struct Run {
    std::size_t first = 0;
    std::size_t count = 0;
  };

  /// All unmapped. Allocates.
  explicit PageMap(std::size_t pages) : words_((pages + word_bits - 1) / word_bits) {}

  void set(Run run, bool mapped) noexcept {
    each_word(run, [&](std::uint64_t& word, std::uint64_t mask) {
      word = mapped ? word | mask : word & ~mask;
      return true;
    });
  }

  /// How many of the pages are mapped.
  [[nodiscard]] std::size_t count(Run run) const noexcept {
    std::size_t mapped = 0;
    each_word(run, [&](const std::uint64_t& word, std::uint64_t mask) {
      mapped += static_cast<std::size_t>(std::popcount(word & mask));
      return true;
    });
    return mapped;
  }

  /// The first run of pages among these that are mapped, or not, as asked; empty if there is none.
  [[nodiscard]] Run find(Run among, bool mapped) const noexcept {
    const std::size_t end = among.first + among.count;
    const std::size_t first = seek(among, mapped);
    if (first == end) return {};
    return {.first = first, .count = seek({first, end - first}, !mapped) - first};
  }

 private:
  static constexpr std::size_t word_bits = 64;

  /// Calls `visit(word, mask)` for the words that hold the pages, until it returns false.
  template <class Words, class Visit>
  static void each_word_of(Words& words, Run run, Visit&& visit) {
    for (std::size_t page = run.first, end = run.first + run.count; page < end;) {
      const std::size_t bit = page % word_bits;
      const std::size_t bits = std::min(word_bits - bit, end - page);
      const std::uint64_t mask = (~std::uint64_t{0} >> (word_bits - bits)) << bit;
      if (!visit(words[page / word_bits], mask)) return;
      page += bits;
    }
  }
  template <class Visit>
  void each_word(Run run, Visit&& visit) noexcept {
    each_word_of(words_, run, visit);
  }
  template <class Visit>
  void each_word(Run run, Visit&& visit) const noexcept {
    each_word_of(words_, run, visit);
  }

  /// The first page that is mapped, or not, as asked; the end if there is none.
  [[nodiscard]] std::size_t seek(Run among, bool mapped) const noexcept {
    std::size_t found = among.first + among.count;
    std::size_t word_start = among.first / word_bits * word_bits;
    each_word(among, [&](const std::uint64_t& word, std::uint64_t mask) {
      const std::uint64_t hits = (mapped ? word : ~word) & mask;
      if (hits != 0) found = word_start + static_cast<std::size_t>(std::countr_zero(hits));
      word_start += word_bits;
      return hits == 0;
    });
    return found;
  }

  std::vector<std::uint64_t> words_;
};

}  // namespace cistern
