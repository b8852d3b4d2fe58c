// A ceiling on the bytes requested of what lies below: at the top of a stack it bounds what is
// live, below a pool what is reserved. It is never exceeded, not for an instant and not by threads
// racing.
//
// It keeps a record of each block: a free that belongs elsewhere must not restore the budget, even
// where the upstream, shared with another stage, would accept it.
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>
#include <string>

#include "cistern/core/slab.hpp"
#include "cistern/core/stage.hpp"

namespace cistern {

class Limit final : public Stage {
 public:
  /// Throws std::invalid_argument if `upstream` is null.
  Limit(Ref<Resource> upstream, std::size_t max_bytes);

  /// The ceiling, and setting it: returns the former one. Lowering it below what is charged refuses
  /// further requests until enough has been freed.
  [[nodiscard]] std::size_t max_bytes() const noexcept { return max_bytes_.load(); }
  std::size_t set_max_bytes(std::size_t max_bytes) noexcept {
    return max_bytes_.exchange(max_bytes);
  }

  /// Bytes charged now: what was requested of the blocks that are live, and of the requests under
  /// way.
  [[nodiscard]] std::size_t charged() const noexcept { return charged_.load(); }

  using Stage::deallocate;
  using Stage::reset_peaks;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Stats stats() const noexcept override;
  void reset_peaks(const Stats& floor) noexcept override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override;
  void explain(Shortage& shortage) const noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  struct LimitNode : Node {
    Block upstream;
    LimitNode* next_free = nullptr;
  };

  bool charge(std::size_t bytes) noexcept;
  [[nodiscard]] Error over_limit(std::size_t bytes) const noexcept;
  Expected<Block> hand_out(const Block& below) noexcept;
  void count_failure() noexcept;
  void abandoned() noexcept override;

  std::atomic<std::size_t> max_bytes_;
  std::atomic<std::size_t> charged_{0};

  mutable std::mutex mutex_;  // guards all below
  Slab<LimitNode> nodes_{this};
  Stats stats_;  // this stage's own
  bool abandoned_ = false;
};

}  // namespace cistern
