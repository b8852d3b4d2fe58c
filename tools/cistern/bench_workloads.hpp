// What the benchmark does with each subject. A workload is done in turns of a known number of
// pairs, a pair being an allocation and its free; the compiler must not see through them. A subject
// is warm after some turns.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace cistern::command {

/// Keeps the compiler from removing what made `pointer`.
inline void keep(const void* pointer) noexcept {
  asm volatile("" : : "r"(pointer) : "memory");
}

/// Writes one byte to every page.
inline void touch(std::byte* memory, std::size_t bytes) noexcept {
  constexpr std::size_t page = 4096;
  for (std::size_t place = 0; place < bytes; place += page) {
    *static_cast<volatile std::byte*>(memory + place) = std::byte{1};
  }
}

/// One block at a time, all of one size.
struct Pair {
  static constexpr std::size_t pairs = 256;
  std::size_t bytes = 0;

  template <class Subject>
  void turn(Subject& subject) const {
    for (std::size_t i = 0; i < pairs; ++i) {
      auto block = subject.allocate(bytes);
      keep(Subject::address(block));
      subject.free(block, bytes);
    }
  }
  [[nodiscard]] static std::size_t warm_up_turns() noexcept { return 1; }
  [[nodiscard]] std::size_t peak_live() const noexcept { return bytes; }
};

/// A decoded token: many blocks of many sizes, all alive, then all freed in the order in which they
/// came.
struct Token {
  static constexpr std::size_t pairs = 1750;
  std::vector<std::size_t> sizes = token_sizes();
  bool is_touched = false;

  template <class Subject>
  void turn(Subject& subject) const {
    std::vector<typename Subject::Handle> blocks;
    blocks.reserve(sizes.size());
    for (const std::size_t bytes : sizes) {
      blocks.push_back(subject.allocate(bytes));
      std::byte* memory = Subject::address(blocks.back());
      keep(memory);
      if (is_touched) touch(memory, bytes);
    }
    for (std::size_t i = 0; i < blocks.size(); ++i)
      subject.free(blocks[i], sizes[i]);
  }
  // A block serves many sizes: it takes some turns until all of what is kept was touched once.
  [[nodiscard]] std::size_t warm_up_turns() const noexcept { return is_touched ? 4 : 1; }
  [[nodiscard]] std::size_t peak_live() const noexcept;

  /// Log-uniform from 256 B to 4 MiB, the same on every machine.
  static std::vector<std::size_t> token_sizes();
};

/// Blocks that grow by 8 KiB each, two alive at a time: what is kept for reuse is always too small.
struct Growth {
  static constexpr std::size_t pairs = 2000;
  static constexpr std::size_t step = 8192;

  template <class Subject>
  void turn(Subject& subject) const {
    auto former = subject.allocate(step);
    for (std::size_t n = 2; n <= pairs; ++n) {
      auto block = subject.allocate(n * step);
      keep(Subject::address(block));
      subject.free(std::exchange(former, block), (n - 1) * step);
    }
    subject.free(former, pairs * step);
  }
  [[nodiscard]] static std::size_t warm_up_turns() noexcept {
    return 0;
  }  // each turn is of a fresh subject
  [[nodiscard]] std::size_t peak_live() const noexcept { return (2 * pairs - 1) * step; }
};

}  // namespace cistern::command
