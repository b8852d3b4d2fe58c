// Measures the time that a program spends in its allocator: a stage put on top of a stack for one
// pass, never for the pass that measures throughput. It is also what a program's own stage looks
// like. Not thread-safe.
#pragma once

#include <chrono>

#include "cistern/core/stage.hpp"

namespace decode {

class Clocked final : public cistern::Stage {
 public:
  using Duration = std::chrono::duration<double>;

  explicit Clocked(cistern::Ref<cistern::Resource> upstream);

  /// Time inside allocations and frees since the start, what reading the clock costs taken off.
  [[nodiscard]] Duration spent() const noexcept;

  using Stage::deallocate;
  [[nodiscard]] cistern::Expected<cistern::Block> try_allocate(
      const cistern::Request& request) noexcept override;
  bool deallocate(const cistern::Block& block, cistern::Stream stream) noexcept override;
  [[nodiscard]] cistern::Outstanding outstanding() const noexcept override;

 private:
  std::chrono::nanoseconds sum_{0};
  std::size_t calls_ = 0;
  Duration clock_cost_;
};

}  // namespace decode
