// A ceiling on the bytes requested of what lies below: at the top of a stack it bounds what is live, below a pool what is
// reserved. It is never exceeded, not for an instant and not by threads racing.
#pragma once

#include <atomic>
#include <cstddef>

#include "cistern/core/live_counters.hpp"
#include "cistern/core/stage.hpp"

namespace cistern {

class Limit final : public Stage {
 public:
  /// Throws std::invalid_argument if `upstream` is null.
  Limit(Ref<Resource> upstream, std::size_t max_bytes);

  /// The ceiling, and setting it: returns the former one. Lowering it below what is charged refuses further requests
  /// until enough has been freed.
  [[nodiscard]] std::size_t max_bytes() const noexcept {
    return max_bytes_.load(std::memory_order_relaxed);
  }
  std::size_t set_max_bytes(std::size_t max_bytes) noexcept {
    return max_bytes_.exchange(max_bytes);
  }

  /// Bytes charged now: what was requested of the blocks that are live, and of the requests under way.
  [[nodiscard]] std::size_t charged() const noexcept {
    return charged_.load(std::memory_order_relaxed);
  }

  using Stage::deallocate;
  using Stage::reset_peaks;
  [[nodiscard]] Expected<Block> try_allocate(Request request) noexcept override;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Stats stats() const noexcept override;
  void reset_peaks(const Stats& floor) noexcept override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  bool charge(std::size_t bytes) noexcept;

  std::atomic<std::size_t> max_bytes_;
  std::atomic<std::size_t> charged_{0};
  LiveCounters live_;
};

}  // namespace cistern
