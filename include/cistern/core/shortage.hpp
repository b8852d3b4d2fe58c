// The out-of-memory report: what stood in the way of a request, gathered from every stage of the
// stack that refused it. `OutOfMemory` is the exception that carries it.
//
// It is made when memory has run out, so making and copying one allocates nothing.
#pragma once

#include <array>
#include <cstddef>
#include <new>
#include <string>
#include <type_traits>

#include "cistern/core/block.hpp"
#include "cistern/core/error.hpp"
#include "cistern/core/size.hpp"

namespace cistern {

class Resource;
class SizeTally;

/// Bytes throughout. A "hole" is memory that a pool of the stack holds and nobody uses: an idle
/// block of a cache, a gap between two live blocks.
struct Shortage {
  Error error;  // as the stack returned it
  std::size_t requested = 0;
  std::size_t alignment = 0;

  std::size_t live_requested = 0;
  std::size_t live_granted = 0;
  std::size_t cached = 0;
  std::size_t reserved = 0;

  std::size_t limit = unbounded;       // the ceiling of the stack with the least left under it
  std::size_t limit_left = unbounded;  // and what is left

  const char* device = "";       // its kind
  std::size_t device_total = 0;  // 0 where unknown
  std::size_t device_free = 0;

  std::size_t largest_hole = 0;
  std::size_t holes = 0;  // their sum

  /// What recovery tried, cheapest first, over all attempts.
  struct Step {
    const char* name = "";  // a literal
    std::size_t returned = 0;
  };
  std::array<Step, 4> steps{};
  std::size_t step_count = 0;
  std::size_t attempts = 0;  // so often the upstream was asked again

  /// The block sizes (a cache's buckets) that hold most bytes, most first; of the outermost pool.
  struct Size {
    std::size_t bytes = 0;  // of one block
    std::size_t live = 0;   // in all
    std::size_t idle = 0;
  };
  std::array<Size, 5> sizes{};
  std::size_t size_count = 0;

  /// How much of the shortage is fragmentation: of the bytes by which the largest single piece at
  /// hand falls short of the request, as many as lie idle in the other holes. 0 where memory is
  /// truly all in use; the whole shortage where it would have fitted, were the holes in one piece.
  [[nodiscard]] std::size_t fragmentation() const noexcept;

  /// One line for a log, of some 200 characters at most. Returns its length; writes at most `size`
  /// bytes, not 0, the closing zero included.
  std::size_t print_line(char* out, std::size_t size) const noexcept;

  /// The whole of it, several lines, each with its end. Allocates.
  [[nodiscard]] std::string text() const;

  // What the stages add.
  void add_limit(std::size_t max_bytes, std::size_t left) noexcept;
  void add_holes(std::size_t sum, std::size_t largest) noexcept;
  void add_step(const char* name, std::size_t returned) noexcept;
  void add_sizes(const SizeTally& tally) noexcept;
};

static_assert(std::is_trivially_copyable_v<Shortage>);

/// Gathers the report of a request that `resource` has just refused with `error`, on the thread
/// that asked. O(blocks); allocates nothing.
[[nodiscard]] Shortage explain_failure(const Resource& resource, const Request& request,
                                       const Error& error) noexcept;

/// Thrown by `Resource::allocate` for every kind of failure.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(const Shortage& shortage) noexcept : shortage_(shortage) {
    shortage_.print_line(line_.data(), line_.size());
  }

  /// One line of some 200 characters at most.
  [[nodiscard]] const char* what() const noexcept override { return line_.data(); }
  [[nodiscard]] const Error& error() const noexcept { return shortage_.error; }
  [[nodiscard]] const Shortage& shortage() const noexcept { return shortage_; }

 private:
  Shortage shortage_;
  std::array<char, 224> line_{};
};

}  // namespace cistern
