// Loops for a pool that learns: what a turn asks for and frees, run again and again, with the
// blocks of the turn before still at hand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cistern/core/resource.hpp"
#include "support/seed.hpp"

namespace cistern::testing {

/// One thing that happens in a turn.
struct Event {
  enum class Kind : std::uint8_t { allocate, free, free_of_turn_before };

  Kind kind = Kind::allocate;
  std::size_t number = 0;  // of the allocation that is freed, in its turn
  Request request;
};
using Turn = std::vector<Event>;

inline Event allocates(std::size_t bytes) {
  return {.request = {.bytes = bytes}};
}
inline Event frees(std::size_t number) {
  return {.kind = Event::Kind::free, .number = number, .request = {}};
}
inline Event frees_of_turn_before(std::size_t number) {
  return {.kind = Event::Kind::free_of_turn_before, .number = number, .request = {}};
}

/// A token: blocks of these sizes, freed in the order in which they came.
inline Turn token(const std::vector<std::size_t>& sizes) {
  Turn turn;
  for (const std::size_t bytes : sizes)
    turn.push_back(allocates(bytes));
  for (std::size_t i = 0; i < sizes.size(); ++i)
    turn.push_back(frees(i));
  return turn;
}

inline std::vector<std::size_t> random_sizes(std::size_t number, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::size_t> sizes(number);
  for (std::size_t& bytes : sizes)
    bytes = 256 + random.size(16);
  return sizes;
}

/// A training step: each layer leaves its activations for the way back, and needs room to work both
/// ways.
inline Turn training(std::size_t layers, std::uint64_t seed) {
  Random random(seed);
  Turn turn;
  std::size_t number = 0;
  std::vector<std::size_t> activations;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    turn.push_back(allocates(random.size(16)));
    activations.push_back(number++);
    turn.push_back(allocates(random.size(16)));
    turn.push_back(frees(number++));
  }
  while (!activations.empty()) {
    turn.push_back(allocates(random.size(16)));
    turn.push_back(frees(activations.back()));
    turn.push_back(frees(number++));
    activations.pop_back();
  }
  return turn;
}

/// Runs turns on a pool and keeps what is live of them.
class Loop {
 public:
  explicit Loop(Resource& pool) : pool_(pool) {}
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  Loop(Loop&&) = delete;
  Loop& operator=(Loop&&) = delete;
  ~Loop() { free_all(); }

  /// A turn without its end. Returns where its blocks were put, in order.
  std::vector<void*> events_of(const Turn& turn) {
    before_ = std::exchange(now_, {});
    std::vector<void*> places;
    for (const Event& event : turn) {
      if (event.kind == Event::Kind::allocate) {
        const Expected<Block> block = pool_.try_allocate(event.request);
        now_.push_back(block ? *block : Block{});
        places.push_back(now_.back().memory);
      } else {
        const bool is_of_turn = event.kind == Event::Kind::free;
        std::vector<Block>& blocks = is_of_turn ? now_ : before_;
        if (event.number >= blocks.size()) continue;
        EXPECT_TRUE(pool_.deallocate(std::exchange(blocks[event.number], {})));
      }
    }
    for (Block& block : before_) {
      if (!block.empty()) left_.push_back(std::exchange(block, {}));
    }
    return places;
  }

  std::vector<void*> cycle(const Turn& turn) {
    std::vector<void*> places = events_of(turn);
    pool_.cycle();
    EXPECT_EQ(pool_.validate(), "");
    return places;
  }
  void cycles(const Turn& turn, int times) {
    for (int i = 0; i < times; ++i)
      cycle(turn);
  }

  /// A turn that a reset ends, and with it what it has not freed.
  std::vector<void*> reset(const Turn& turn) {
    std::vector<void*> places = events_of(turn);
    pool_.reset();
    now_.clear();
    left_.clear();
    EXPECT_EQ(pool_.validate(), "");
    return places;
  }

  void free_all() {
    for (std::vector<Block>* blocks : {&before_, &now_, &left_}) {
      for (const Block& block : std::exchange(*blocks, {}))
        EXPECT_TRUE(pool_.deallocate(block));
    }
  }

  [[nodiscard]] const std::vector<Block>& blocks() const { return now_; }

 private:
  Resource& pool_;
  std::vector<Block> now_;
  std::vector<Block> before_;
  std::vector<Block> left_;  // of turns before that
};

/// The most bytes live at once, each rounded up to `granule`.
inline std::size_t peak_live(const Turn& turn, std::size_t granule) {
  const auto rounded = [&](std::size_t bytes) { return (bytes + granule - 1) / granule * granule; };
  std::vector<std::size_t> sizes;
  std::size_t live = 0;
  std::size_t peak = 0;
  for (const Event& event : turn) {
    if (event.kind == Event::Kind::allocate) {
      sizes.push_back(rounded(event.request.bytes));
      live += sizes.back();
      peak = std::max(peak, live);
    } else {
      live -= sizes.at(event.number);
    }
  }
  return peak;
}

}  // namespace cistern::testing
