// The bounded buffer cache: freed blocks are kept by size and handed out again, within bounds that
// hold at every instant. It never splits or joins a block; what a block can hold stays with it and
// is what is counted.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <optional>
#include <span>
#include <type_traits>
#include <variant>
#include <vector>

#include "cistern/core/handover.hpp"
#include "cistern/core/pool.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/slab.hpp"
#include "cistern/pool/bucket_policy.hpp"
#include "cistern/pool/idle_index.hpp"

namespace cistern {

enum class WhenFull : std::uint8_t {
  evict,   // the least recently used idle blocks go back upstream
  reject,  // the block being freed goes back upstream
};

class Cache final : public Pool {
 public:
  static constexpr std::size_t any_number = std::numeric_limits<std::size_t>::max();
  static constexpr double no_ratio = std::numeric_limits<double>::infinity();

  struct Options {
    BucketPolicy buckets = Geometric{8};
    std::size_t max_bytes = unbounded;    // idle bytes, at most
    std::size_t per_bucket = any_number;  // idle blocks of one bucket, at most
    WhenFull when_full = WhenFull::evict;
    // What is held (live and idle) is at most (1 + idle_ratio) times the peak of the live granted
    // bytes, or what is live.
    double idle_ratio = 0.15;
  };

  /// Throws std::invalid_argument if `upstream` is null or an option is out of range. A hit and a
  /// free that is kept are O(1) with buckets, O(log idle blocks) with a best fit; what is evicted
  /// costs a call upstream a block.
  Cache(Ref<Resource> upstream, const Options& options);
  explicit Cache(Ref<Resource> upstream) : Cache(std::move(upstream), Options{}) {}

  /// Setting the bounds: returns the former value, and trims at once if the bound was lowered.
  /// `set_per_bucket` is without effect where there are no buckets; a ratio that is negative or no
  /// number counts as 0.
  std::size_t set_max_bytes(std::size_t max_bytes) noexcept;
  std::size_t set_per_bucket(std::size_t blocks) noexcept;
  double set_idle_ratio(double ratio) noexcept;
  [[nodiscard]] std::size_t max_bytes() const noexcept;
  [[nodiscard]] std::size_t per_bucket() const noexcept;
  [[nodiscard]] double idle_ratio() const noexcept;

  using Stage::deallocate;
  using Stage::reset_peaks;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override;
  /// What is idle is taken first, under one lock. What is missing is one batch of the upstream's,
  /// listed in the host's memory. A batch that fails changes no figure of this stage but
  /// `failures`.
  [[nodiscard]] Expected<void> try_allocate_batch(std::span<const Request> requests,
                                                  std::span<Block> blocks) noexcept override;
  bool deallocate(const Block& block, Stream stream) noexcept override;
  /// A block grows within its capacity alone.
  [[nodiscard]] Expected<Block> try_grow(const Block& block, std::size_t bytes) noexcept override;
  Expected<void> also_used_on(const Block& block, Stream stream) noexcept override;
  [[nodiscard]] Stats stats() const noexcept override;
  void reset_peaks(const Stats& floor) noexcept override;
  [[nodiscard]] std::vector<BucketStats> buckets() const override;
  [[nodiscard]] Outstanding outstanding() const noexcept override;
  [[nodiscard]] std::size_t largest_after(const Supposition& supposed) const noexcept override;
  void explain(Shortage& shortage) const noexcept override;
  [[nodiscard]] std::size_t trimmable() const noexcept override;
  [[nodiscard]] std::string validate() const override;

 private:
  using Index = std::variant<BucketIndex, FitIndex>;
  using IdleList = IntrusiveList<CacheNode, &CacheNode::by_use>;

  // Nodes on their way upstream, chained by `next_free`: taken out under the lock, given back
  // outside it.
  class Leaving;

  static Index make_index(const Options& options, const DeviceLimits& limits);
  static double checked_ratio(double ratio);

  // What is asked of the upstream for a miss: a whole bucket, and the least that will do.
  struct Growth {
    std::size_t whole = 0;
    std::size_t least = 0;
  };

  Expected<Block> miss(const Request& request) noexcept;
  [[nodiscard]] std::optional<Growth> growth_for(const Request& request) const noexcept;
  template <class Ask>
  std::invoke_result_t<Ask, std::size_t Growth::*> climb(const Growth& growth, Ask ask) noexcept;
  Expected<Block> ask_upstream(std::size_t bytes, const Request& request) noexcept;
  Expected<Block> finish_growth(std::size_t bytes, const Expected<Block>& block,
                                const Request& request) noexcept;
  Expected<void> miss(std::span<const Request> requests, std::span<Block> blocks) noexcept;
  [[nodiscard]] std::optional<Growth> growth_for(std::span<const Request> requests,
                                                 std::span<const Block> blocks) const noexcept;
  Expected<void> finish_growth(std::size_t bytes, std::span<const Request> requests,
                               std::span<Block> blocks, std::span<Block> below,
                               const Expected<void>& obtained) noexcept;
  bool give_back_idle(std::size_t bytes) noexcept;
  bool wait_for_returns() noexcept;
  void begin_growth(std::size_t bytes) noexcept;
  void trim_to(std::size_t keep_bytes) noexcept override;
  void abandoned() noexcept override;

  // Under the lock.
  CacheNode* take_idle(const Request& request) noexcept;
  void put_idle(CacheNode& node) noexcept;
  bool set_aside(std::span<const Request> requests, std::span<Block> blocks) noexcept;
  CacheNode* adopt(const Block& block, std::size_t bytes) noexcept;
  bool adopt(std::span<const Request> requests, std::span<Block> below) noexcept;
  void disown(std::span<Block> below) noexcept;
  Block hand_out(CacheNode& node, const Request& request) noexcept;
  void keep(CacheNode& node, Leaving& leaving) noexcept;
  void keep_when_full(CacheNode& node, Leaving& leaving) noexcept;
  void evict(CacheNode& node, Leaving& leaving) noexcept;
  void evict_down_to(std::size_t idle_bytes, Leaving& leaving) noexcept;
  void enforce_idle_ratio(Leaving& leaving) noexcept;
  [[nodiscard]] bool is_over() const noexcept;

  // Outside it.
  void send_upstream(const Leaving& leaving) noexcept;

  mutable std::mutex mutex_;  // guards all below
  Index index_;
  IdleList idle_;  // all idle blocks, by last use
  Handover handover_{device().stream_order()};
  Slab<CacheNode> nodes_{this};
  Stats stats_;  // this stage's own
  std::size_t max_bytes_;
  std::size_t per_bucket_;
  double idle_ratio_;
  WhenFull when_full_;
  bool abandoned_ = false;
  std::size_t work_peak_ = 0;   // peak of the live granted bytes, that of the last trim on
  std::size_t growing_ = 0;     // bytes that are being asked of the upstream
  std::size_t leaving_ = 0;     // blocks that are on their way to it
  std::uint64_t returned_ = 0;  // those that have arrived
  std::condition_variable has_returned_;
};

}  // namespace cistern
