// What the benchmark does with each subject. A workload is done in turns of a known number of
// operations: pairs of an allocation and its free, or in `churn` and a trace each of the two. The
// compiler must not see through them. A subject is warm after some turns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "bench_isolated.hpp"
#include "bench_ring.hpp"

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
  static constexpr std::size_t operations = pairs;  // each is timed as a pair
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
  static constexpr std::size_t operations = pairs;
  std::vector<std::size_t> sizes = token_sizes();
  bool is_touched = false;

  template <class Subject>
  void turn(Subject& subject) const {
    if constexpr (requires { subject.can_touch(); }) {
      if (is_touched && !subject.can_touch())
        throw std::invalid_argument("the CPU cannot touch its memory");
    }
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
    if constexpr (requires { subject.cycle(); }) subject.cycle();
  }
  // It takes some turns until a cycle is learned; and a block serves many sizes, so that it takes
  // some until all of what is kept was touched once.
  [[nodiscard]] static std::size_t warm_up_turns() noexcept { return 4; }
  [[nodiscard]] std::size_t peak_live() const noexcept;

  /// Log-uniform from 256 B to 4 MiB, the same on every machine.
  static std::vector<std::size_t> token_sizes();
};

/// The same token, whose blocks are given back all at once: what is asked for is an address.
struct TokenReset {
  static constexpr std::size_t operations = Token::pairs;
  Token token;

  template <class Subject>
  void turn(Subject& subject) const {
    for (const std::size_t bytes : token.sizes)
      keep(subject.allocate(bytes));
    subject.reset();
  }
  [[nodiscard]] static std::size_t warm_up_turns() noexcept { return 4; }
  [[nodiscard]] std::size_t peak_live() const noexcept { return token.peak_live(); }
};

/// Blocks that grow by 8 KiB each, two alive at a time: what is kept for reuse is always too small.
struct Growth {
  static constexpr std::size_t pairs = 2000;
  static constexpr std::size_t operations = pairs;
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

/// Blocks of log-uniform sizes, 256 B to 16 MiB, a thousand alive, of which a random one is
/// replaced each time: what fragments a pool that splits.
class Churn {
 public:
  static constexpr std::size_t alive = 1000;
  static constexpr std::size_t operations = 1'000'000;

  /// Without a seed it has nothing to do: see `of_round`.
  Churn() = default;
  explicit Churn(std::uint64_t seed);
  [[nodiscard]] static Churn of_round(std::size_t round) { return Churn(round + 1); }

  template <class Subject>
  void turn(Subject& subject) const {
    std::vector<typename Subject::Handle> blocks;
    blocks.reserve(alive);
    for (std::size_t i = 0; i < alive; ++i)
      blocks.push_back(subject.allocate(steps_[i].bytes));
    std::vector<std::size_t> sizes(alive);
    for (std::size_t i = 0; i < alive; ++i)
      sizes[i] = steps_[i].bytes;
    for (std::size_t i = alive; i < steps_.size(); ++i) {
      const Step& step = steps_[i];
      subject.free(blocks[step.place], sizes[step.place]);
      blocks[step.place] = subject.allocate(step.bytes);
      sizes[step.place] = step.bytes;
      keep(Subject::address(blocks[step.place]));
    }
    for (std::size_t i = 0; i < alive; ++i)
      subject.free(blocks[i], sizes[i]);
  }
  [[nodiscard]] static std::size_t warm_up_turns() noexcept { return 0; }
  [[nodiscard]] std::size_t peak_live() const noexcept { return peak_live_; }

 private:
  struct Step {
    std::size_t bytes = 0;
    std::size_t place = 0;  // of the block that it replaces
  };

  std::vector<Step> steps_;
  std::size_t peak_live_ = 0;
};

/// The token's sizes again: one thread allocates the blocks, another frees them.
struct ProducerConsumer {
  static constexpr std::size_t operations = 20'000;  // pairs
  static constexpr bool brings_threads = true;       // it is played once and makes the other
  std::vector<std::size_t> sizes = Token::token_sizes();

  template <class Subject>
  void turn(Subject& subject) const {
    HandoverRing<typename Subject::Handle> ring;
    std::thread consumer([&] {
      for (std::size_t i = 0; i < operations; ++i)
        subject.free(ring.take(), sizes[i % sizes.size()]);
    });
    try {
      for (std::size_t i = 0; i < operations; ++i) {
        const auto block = subject.allocate(sizes[i % sizes.size()]);
        keep(Subject::address(block));
        ring.put(block);
      }
    } catch (const std::exception& error) {
      fail_isolated(error);  // the consumer waits for what does not come
    }
    consumer.join();
  }
  [[nodiscard]] static std::size_t warm_up_turns() noexcept { return 1; }
  [[nodiscard]] static std::size_t peak_live() noexcept { return 0; }  // nobody knows
};

}  // namespace cistern::command
