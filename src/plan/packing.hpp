// The exact search: can a part be packed into a given capacity?
//
// It works on what is known of a buffer that is not placed yet: the lowest offset it can have. A
// decision takes the buffer whose lowest offset is the lowest of all and either places it there, or
// refutes that and raises its lowest offset to the end of the buffer that could be the first to
// push it up. That tries every plan in which no buffer could sink, and one of those is the best. It
// is the canonical order of minimalloc (M. Moffitt, "MiniMalloc: A Lightweight Memory Allocator for
// Hardware-Accelerated Machine Learning", ASPLOS 2023) under the branching rule of scheduling (C.
// Le Pape et al., "Time-versus-capacity compromises in project scheduling", 1994): a section is a
// machine, a buffer a task on adjacent machines, an offset a time.
//
// After every decision each section that it touched is looked at:
//   - the lowest offset in it and all that is still to be placed in it must fit below the capacity
//     (minimalloc's inference by sections);
//   - a buffer above which all others of the section would not fit is not the lowest of them, so it
//     lies above the end of one of them ("not first", the rule of unary machines; P. Baptiste, C.
//     Le Pape, W. Nuijten, "Constraint-Based Scheduling", 2001).
//
// Where that runs into a dead end too often the attempt gives up, and says which buffers stood in
// the sections that could not be filled. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "plan/conflicts.hpp"
#include "plan/effort.hpp"
#include "plan/offset.hpp"
#include "plan/part.hpp"

namespace cistern::detail {

class Packing {
 public:
  enum class Outcome { packed, impossible, gave_up };

  explicit Packing(const Part& part);

  /// Tries to pack the part into `capacity`, taking first what is first in `order` of buffers that
  /// can be placed equally low. Gives up after `dead_ends`, or once `effort` is used up.
  Outcome attempt(std::size_t capacity, std::span<const std::uint32_t> order,
                  std::uint64_t dead_ends, Effort& effort);

  /// By item; after an attempt that packed the part.
  [[nodiscard]] std::vector<std::size_t> offsets() const;
  /// By item, from 0 to 1: how often it stood in a section that could not be filled.
  [[nodiscard]] const std::vector<double>& trouble();

 private:
  // Two buffers that cannot both be the lowest can push each other up in ever so small steps. That
  // leads to a dead end which shows later anyway, so it is cut short.
  static constexpr std::uint64_t looks_per_section = 4;

  /// The lowest offset that an item can have, and where it would end there.
  struct Place {
    std::size_t lowest = 0;
    std::size_t end = 0;
  };
  /// What is not placed yet of those that cover a section.
  struct Section {
    std::size_t bytes = 0;
    std::size_t floor = 0;       // the lowest of their lowest offsets
    std::size_t second_end = 0;  // the second lowest of the ends that they would have there
    std::uint32_t begin = 0;     // in `members_`; placed ones are moved behind the others
    std::uint32_t count = 0;
    bool is_queued = false;
  };
  struct Decision {
    std::uint32_t item = 0;
    std::size_t raises = 0;  // that were made before it
    std::size_t bounds = 0;
  };
  struct Raise {
    std::uint32_t item = 0;
    bool was_supported = false;
    std::size_t lowest = 0;
  };
  struct Bound {
    std::uint32_t section = 0;
    std::size_t floor = 0;
    std::size_t second_end = 0;
  };

  void reset(std::size_t capacity, std::span<const std::uint32_t> order);
  [[nodiscard]] std::uint32_t lowest_of_all() const noexcept;
  [[nodiscard]] Place place_at(std::uint32_t item, std::size_t offset) const noexcept;
  // These return whether no dead end was found.
  bool place_lowest(std::uint32_t item);
  bool place_higher(std::uint32_t item);
  bool propagate();
  bool look_at(std::uint32_t index);

  /// Where that makes a difference.
  void raise(std::uint32_t item, std::size_t offset, bool by_placed) {
    const std::size_t raised = aligned(offset, part_.items[item].alignment);
    const std::size_t lowest = places_[item].lowest;
    const bool is_news = raised > lowest || (raised == lowest && by_placed && !is_supported_[item]);
    if (is_news) set_lowest(item, raised, by_placed);
  }
  void set_lowest(std::uint32_t item, std::size_t raised, bool by_placed);
  void queue(std::uint32_t index);
  void take_out(std::uint32_t item);
  void put_back(std::uint32_t item);
  void undo(const Decision& decision);

  const Part& part_;
  Conflicts conflicts_;
  std::size_t capacity_ = 0;
  std::vector<Place> places_;       // by item
  std::vector<char> is_supported_;  // by item: what was placed reaches up to its place, or it is 0
  std::vector<char> is_placed_;
  std::vector<std::uint32_t> next_;  // of those not placed, in the order; the last is the head
  std::vector<std::uint32_t> previous_;
  std::vector<Section> sections_;
  std::vector<std::uint32_t> members_;
  std::vector<std::uint32_t> queue_;
  std::vector<Decision> decisions_;
  std::vector<Raise> raises_;
  std::vector<Bound> bounds_;
  std::vector<double> trouble_;
  std::uint64_t dead_ends_ = 0;
  std::uint64_t looks_ = 0;  // at sections, since they were counted last
  std::uint64_t most_looks_ = 0;
};

}  // namespace cistern::detail
