// The bounded buffer cache: freed blocks are kept by size and handed out again, within bounds that
// hold at every instant. It never splits or joins a block; what a block can hold stays with it and
// is what is counted.
//
// Where blocks are kept in geometric buckets without a bound on each, every thread that allocates
// has a magazine of them: a hit there takes no lock. Peaks, that of the idle ratio too, are exact
// while one thread allocates and frees; where several do, they know of the others what was so when
// those were last looked at, and are at most the sum of the peaks of each. Blocks are evicted in
// the order of their last use on each thread. A handle that is freed twice is refused the second
// time; two threads that free it at the same time are a race of the program's, of which nobody is
// told.
#pragma once

#include <atomic>
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
#include "cistern/pool/magazines.hpp"
#include "cistern/pool/returns.hpp"

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

  using Stage::allocate;
  using Stage::deallocate;
  using Stage::reset_peaks;
  [[nodiscard]] Expected<Block> try_allocate(const Request& request) noexcept override;
  [[nodiscard]] Block allocate(const Request& request) override;
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
  using Leaving = cistern::Leaving<CacheNode>;

  static Index make_index(const Options& options, const DeviceLimits& limits);
  static const BucketMap* map_for_magazines(const Index& index) noexcept;
  static double checked_ratio(double ratio);

  // What is asked of the upstream for a miss: a whole bucket, and the least that will do.
  struct Growth {
    std::size_t whole = 0;
    std::size_t least = 0;
  };

  using Mine = Magazine<CacheNode>;

  // The fast path: null, or false, where the slow one has to see to it.
  CacheNode* take_of_mine(const Request& request) noexcept;
  bool put_into_mine(const Block& block, Stream stream) noexcept;
  static Block block_of(CacheNode& node, const Request& request) noexcept;

  Expected<Block> allocate_slowly(const Request& request) noexcept;
  Block allocate_or_throw(const Request& request);
  bool deallocate_slowly(const Block& block, Stream stream) noexcept;
  static void thread_ended(void* cache, void* magazine) noexcept;

  // Under the lock: what threads keep. (Logically const: an idle block is one wherever it lies.)
  [[nodiscard]] bool lends() const noexcept {
    return map_ != nullptr && per_bucket_ == any_number && !abandoned_;
  }
  [[nodiscard]] std::size_t lendable() const noexcept {
    return max_bytes_ - stats_.cached.current - lent_;
  }
  void lend() noexcept;
  void fill_mine(const Request& request) noexcept;
  void settle(Mine& magazine) const noexcept;
  void settle_mine() const noexcept;
  void settle() const noexcept;
  void call_back(Mine& magazine) const noexcept;
  void call_back_mine() const noexcept;
  void call_back() const noexcept;
  struct Bins {
    std::size_t first = 0;
    std::size_t end = 0;
  };
  [[nodiscard]] Bins bins_for(const Request& request) const noexcept;
  void call_back_mine_for(const Request& request) noexcept;
  void call_back_for(const Request& request) noexcept;
  void file(CacheNode* nodes) const noexcept;

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
  mutable Index index_;
  mutable IdleList idle_;  // all idle blocks but those in magazines, by last use
  Handover handover_{device().stream_order()};
  Slab<CacheNode> nodes_{this};
  mutable Stats stats_;  // this stage's own, without what magazines have not settled
  std::size_t max_bytes_;
  std::atomic<std::size_t> per_bucket_;  // read without the lock by who has no magazine
  double idle_ratio_;
  WhenFull when_full_;
  bool abandoned_ = false;
  mutable std::size_t work_peak_ = 0;  // peak of the live granted bytes, that of the last trim on
  std::size_t growing_ = 0;            // bytes that are being asked of the upstream
  Returns returns_{mutex_};
  mutable std::size_t lent_ = 0;  // room in magazines, where it is bounded

  // Not guarded, and the first to go.
  const BucketMap* const map_;  // null: no magazines
  const std::size_t alignment_ = device().limits().alignment;
  const bool has_queues_ = device().stream_order() != nullptr;  // else streams mean nothing
  Magazines<CacheNode> magazines_;
};

// --- The fast path: a hit, and a free that is kept, in the thread's own magazine. ---

inline Expected<Block> Cache::try_allocate(const Request& request) noexcept {
  if (CacheNode* node = take_of_mine(request)) [[likely]]
    return block_of(*node, request);
  return allocate_slowly(request);
}

inline Block Cache::allocate(const Request& request) {
  if (CacheNode* node = take_of_mine(request)) [[likely]]
    return block_of(*node, request);
  return allocate_or_throw(request);
}

inline bool Cache::deallocate(const Block& block, Stream stream) noexcept {
  return put_into_mine(block, stream) || deallocate_slowly(block, stream);
}

[[gnu::always_inline]] inline CacheNode* Cache::take_of_mine(const Request& request) noexcept {
  Mine* const mine = magazines_.mine();
  if (mine == nullptr || request.bytes == 0) return nullptr;
  const std::size_t bucket = map_->geometric_bucket_for(request.bytes);
  const bool is_aligned =
      request.alignment <= alignment_ && (request.alignment & (request.alignment - 1)) == 0;
  if (bucket >= mine->bins() || !is_aligned || !mine->lock.try_enter()) return nullptr;
  CacheNode* node = mine->newest(bucket);
  const auto is_ready = [&] {
    return !has_queues_ || handover_.is_ready(node->stream, request.stream);
  };
  if (node != nullptr && is_ready()) [[likely]] {
    mine->take(bucket, node, request.bytes);
  } else {
    node = nullptr;
  }
  mine->lock.leave();
  return node;
}

[[gnu::always_inline]] inline bool Cache::put_into_mine(const Block& block,
                                                        Stream stream) noexcept {
  Mine* const mine = magazines_.mine();
  if (mine == nullptr || block.empty() || !block.node->names(block, this)) return false;
  auto& node = static_cast<CacheNode&>(*block.node);
  if (node.has_other_uses || !mine->lock.try_enter()) return false;
  const bool has_room = mine->has_room_for(node);
  if (has_room) [[likely]] {
    node.end_life();
    node.stream = stream;
    mine->put(node.bucket, &node);
  }
  mine->lock.leave();
  return has_room;
}

inline Block Cache::block_of(CacheNode& node, const Request& request) noexcept {
  node.requested = request.bytes;
  return make_block(node.memory, node.offset, node.bytes, request.bytes, &node, node.begin_life());
}

}  // namespace cistern
