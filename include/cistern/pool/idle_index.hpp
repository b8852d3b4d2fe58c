// Where a cache keeps its idle blocks so that a request finds one that fits: lists by bucket, or a
// set ordered by size. Both round a request up to what is asked of the upstream, and neither
// allocates when a block is put in or taken out. Not thread-safe: the cache's lock guards them.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cistern/core/device.hpp"
#include "cistern/core/intrusive_list.hpp"
#include "cistern/core/node.hpp"
#include "cistern/core/stats.hpp"
#include "cistern/pool/bucket_map.hpp"
#include "cistern/pool/bucket_policy.hpp"

namespace cistern {

/// A cache's record of one block of its upstream, idle or live. What a hit reads and writes stands
/// first, in one line of the CPU's cache.
struct alignas(64) CacheNode : Node {
  CacheNode() noexcept : next_free(nullptr) {}

  void* memory = nullptr;
  std::size_t offset = 0;
  std::size_t bytes = 0;      // the block's capacity
  std::size_t requested = 0;  // by the caller, while live; then free for `idle_since`
  std::uint32_t bucket = 0;
  bool has_other_uses = false;  // while live: on other streams
  union {                  // NOLINT(cppcoreguidelines-pro-type-member-init): the constructor does
    CacheNode* next_free;  // in a magazine, or not in use
    ListLinks<CacheNode> by_use;  // in the index
  };

  Stream stream;  // of the last use, while idle
  ListLinks<CacheNode> in_bucket;
  std::size_t requested_upstream = 0;
  Node* upstream_node = nullptr;
  std::uint64_t upstream_generation = 0;

  [[nodiscard]] std::size_t capacity() const noexcept { return bytes; }
  /// A count of frees.
  [[nodiscard]] std::uint64_t idle_since() const noexcept { return requested; }
  void set_idle_since(std::uint64_t frees) noexcept { requested = frees; }

  [[nodiscard]] Block upstream() const noexcept {
    return {.memory = memory,
            .offset = offset,
            .bytes = bytes,
            .requested = requested_upstream,
            .node = upstream_node,
            .generation = upstream_generation};
  }
  void set_upstream(const Block& block) noexcept {
    memory = block.memory;
    offset = block.offset;
    bytes = block.bytes;
    requested_upstream = block.requested;
    upstream_node = block.node;
    upstream_generation = block.generation;
  }
};
static_assert(sizeof(CacheNode) == 128);

/// Idle blocks in buckets; the last block in is the first out, because its memory is the likeliest
/// to be warm.
class BucketIndex {
 public:
  BucketIndex(BucketMap map, const DeviceLimits& limits);

  /// What to ask of the upstream for a request: the bucket's capacity. Nothing if no bucket is
  /// large enough.
  [[nodiscard]] std::optional<std::size_t> capacity_for(std::size_t bytes) const noexcept;

  /// An idle block for the request, taken out, if possible one last used on its stream; null if
  /// there is none. The alignment is a power of two, or 0.
  CacheNode* take(const Request& request) noexcept;

  /// The same among the odd blocks of the bucket below, which are larger than its capacity: an
  /// upstream that cannot give a whole bucket may still have given what was requested.
  CacheNode* take_odd(const Request& request) noexcept;

  [[nodiscard]] bool has_odd() const noexcept { return odd_ > 0; }
  [[nodiscard]] const BucketMap& map() const noexcept { return map_; }

  /// Prepares a new block, obtained for a request of `bytes`; false if the host has no memory.
  bool adopt(CacheNode& node, std::size_t bytes) noexcept;
  /// The opposite, before the block leaves for good.
  void forget(CacheNode& node) noexcept;

  void put(CacheNode& node) noexcept;
  void remove(CacheNode& node) noexcept;

  /// How many idle blocks share the node's bucket, and the one that has been there longest.
  [[nodiscard]] std::size_t peers(const CacheNode& node) const noexcept {
    return lists_[node.bucket].size();
  }
  [[nodiscard]] CacheNode* oldest_peer(const CacheNode& node) const noexcept {
    return lists_[node.bucket].oldest();
  }

  /// The largest request that an idle block would serve, if its alignment is the default.
  [[nodiscard]] std::size_t largest() const noexcept;

  void append_to(std::vector<BucketStats>& buckets) const;
  [[nodiscard]] std::string validate() const;

 private:
  using List = IntrusiveList<CacheNode, &CacheNode::in_bucket>;

  CacheNode* take_from(List& list, const Request& request) noexcept;
  [[nodiscard]] bool is_odd(const CacheNode& node) const noexcept;

  const BucketMap map_;
  const DeviceLimits& limits_;
  std::vector<List> lists_;
  std::size_t odd_ = 0;  // blocks larger than their bucket, idle or live
};

/// Idle blocks by size, the oldest of equal ones first.
class FitIndex {
 public:
  /// Throws std::invalid_argument if the policy makes no sense.
  FitIndex(const Fit& policy, const DeviceLimits& limits);

  [[nodiscard]] std::optional<std::size_t> capacity_for(std::size_t bytes) const noexcept;
  CacheNode* take(const Request& request) noexcept;
  CacheNode* take_odd(const Request& /*request*/) noexcept { return nullptr; }
  bool adopt(CacheNode& node, std::size_t bytes) noexcept;
  void forget(CacheNode& node) noexcept;
  void put(CacheNode& node) noexcept;
  void remove(CacheNode& node) noexcept;
  [[nodiscard]] std::size_t peers(const CacheNode& /*node*/) const noexcept {
    return 0;
  }  // there are no buckets
  [[nodiscard]] CacheNode* oldest_peer(const CacheNode& /*node*/) const noexcept { return nullptr; }
  [[nodiscard]] std::size_t largest() const noexcept {
    return idle_.empty() ? 0 : (*idle_.rbegin())->bytes;
  }
  void append_to(std::vector<BucketStats>& buckets) const;
  [[nodiscard]] std::string validate() const;

 private:
  struct Key {
    std::size_t bytes;
    std::uint64_t idle_since;
    auto operator<=>(const Key&) const = default;
  };
  struct Order {
    using is_transparent = void;
    static Key key(const CacheNode* node) noexcept { return {node->bytes, node->idle_since()}; }
    static Key key(const Key& key) noexcept { return key; }
    bool operator()(const auto& a, const auto& b) const noexcept { return key(a) < key(b); }
  };
  using Set = std::set<CacheNode*, Order>;

  const Fit policy_;
  const DeviceLimits& limits_;
  Set idle_;
  std::vector<Set::node_type>
      handles_;  // one for every block that is not in the set: made when the block was
  std::uint64_t frees_ = 0;
};

}  // namespace cistern
