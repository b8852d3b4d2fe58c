#include "cistern/adaptor/limit.hpp"

#include <algorithm>
#include <cassert>

#include "cistern/core/batch.hpp"
#include "cistern/core/size.hpp"
#include "core/failure.hpp"

namespace cistern {

Limit::Limit(Ref<Resource> upstream, std::size_t max_bytes)
    : Stage(std::move(upstream)), max_bytes_(max_bytes) {}

// A request that does not fit charges nothing, so it cannot crowd out one that does.
bool Limit::charge(std::size_t bytes) noexcept {
  std::size_t charged = charged_.load(std::memory_order_relaxed);
  do {
    if (bytes > saturating_subtract(max_bytes(), charged)) return false;
  } while (!charged_.compare_exchange_weak(charged, charged + bytes, std::memory_order_relaxed));
  return true;
}

Error Limit::over_limit(std::size_t bytes) const noexcept {
  return {.code = Errc::over_limit,
          .stage = "limit",
          .requested = bytes,
          .available = saturating_subtract(max_bytes(), charged()),
          .bound = this};
}

Expected<Block> Limit::try_allocate(const Request& request) noexcept {
  if (request.bytes == 0) return Block{};
  if (!charge(request.bytes)) {
    count_failure();
    return tl::unexpected(over_limit(request.bytes));
  }
  Expected<Block> block = upstream().try_allocate(request);
  if (block) block = hand_out(*block);
  if (!block) {
    charged_.fetch_sub(request.bytes, std::memory_order_relaxed);
    count_failure();
  }
  return block;
}

Expected<Block> Limit::hand_out(const Block& below) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (LimitNode* node = nodes_.take()) {
      node->upstream = below;
      stats_.count_grant(below.requested, below.bytes);
      Block block = below;
      block.node = node;
      block.generation = node->begin_life();
      return block;
    }
  }
  upstream().deallocate(below);  // the host has no memory for the record
  return tl::unexpected(failure("limit", Errc::out_of_memory, below.requested));
}

Expected<void> Limit::try_allocate_batch(std::span<const Request> requests,
                                         std::span<Block> blocks) noexcept {
  assert(requests.size() == blocks.size());
  const std::size_t bytes = bytes_of(requests);
  if (bytes == 0) {
    std::ranges::fill(blocks, Block{});
    return {};
  }
  // What is more than can be counted fits under no ceiling.
  if (bytes == unbounded || !charge(bytes)) {
    count_failure();
    return fail_batch(blocks, over_limit(bytes), 0);
  }
  const Expected<void> obtained = upstream().try_allocate_batch(requests, blocks);
  if (obtained && hand_out(blocks)) return {};
  if (obtained) {  // the host has no memory for the records
    for (std::size_t i = 0; i < requests.size(); ++i)
      upstream().deallocate(blocks[i], requests[i].stream);
  }
  charged_.fetch_sub(bytes, std::memory_order_relaxed);
  count_failure();
  return fail_batch(blocks,
                    obtained ? failure("limit", Errc::out_of_memory, bytes) : obtained.error(), 0);
}

// All blocks of a batch, in place; false, with all as they were, if the host has no memory for the
// records.
bool Limit::hand_out(std::span<Block> blocks) noexcept {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].empty()) continue;
    LimitNode* node = nodes_.take();
    if (node == nullptr) {
      for (Block& block : blocks.first(i)) {
        if (block.empty()) continue;
        auto* taken = static_cast<LimitNode*>(block.node);
        block = taken->upstream;
        nodes_.put(taken);
      }
      return false;
    }
    node->upstream = blocks[i];
    blocks[i].node = node;
  }
  for (Block& block : blocks) {
    if (block.empty()) continue;
    stats_.count_grant(block.requested, block.bytes);
    block.generation = block.node->begin_life();
  }
  return true;
}

void Limit::count_failure() noexcept {
  const std::lock_guard lock(mutex_);
  ++stats_.failures;
}

bool Limit::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  if (!block.node->names(block, this)) {
    {
      const std::lock_guard lock(mutex_);
      ++stats_.refused_frees;
    }
    return refuse_free("limit", block);
  }
  auto* node = static_cast<LimitNode*>(block.node);
  const Block below = node->upstream;
  upstream().deallocate(below, stream);
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    stats_.count_free(below.requested, below.bytes);
    // Not before it is free, and not before it is counted: the peak is under the ceiling too.
    charged_.fetch_sub(below.requested, std::memory_order_relaxed);
    node->end_life();
    nodes_.put(node);
    over = abandoned_ && stats_.live_blocks.current == 0;
  }
  if (over) delete this;
  return true;
}

Expected<Block> Limit::try_grow(const Block& block, std::size_t bytes) noexcept {
  if (block.empty()) return Stage::try_grow(block, bytes);
  if (!block.node->names(block, this))
    return tl::unexpected(failure("limit", Errc::invalid_block, block.bytes));
  auto* node = static_cast<LimitNode*>(block.node);
  const Block below = node->upstream;
  const std::size_t more = saturating_subtract(bytes, below.requested);
  if (!charge(more)) return tl::unexpected(over_limit(more));
  const Expected<Block> grown = upstream().try_grow(below, bytes);
  if (!grown) {
    charged_.fetch_sub(more, std::memory_order_relaxed);
    return grown;
  }
  const std::lock_guard lock(mutex_);
  node->upstream = *grown;
  stats_.count_growth(more, grown->bytes - below.bytes);
  Block handle = *grown;
  handle.node = node;
  handle.generation = node->renew_life();
  return handle;
}

Expected<void> Limit::also_used_on(const Block& block, Stream stream) noexcept {
  if (block.empty()) return {};
  if (!block.node->names(block, this))
    return tl::unexpected(failure("limit", Errc::invalid_block, block.bytes));
  return upstream().also_used_on(static_cast<LimitNode*>(block.node)->upstream, stream);
}

void Limit::abandoned() noexcept {
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    over = stats_.live_blocks.current == 0;
  }
  if (over) delete this;
}

Stats Limit::stats() const noexcept {
  Stats stats = upstream().stats();
  const std::lock_guard lock(mutex_);
  stats.take_outermost_figures(stats_);
  return stats;
}

void Limit::reset_peaks(const Stats& floor) noexcept {
  {
    const std::lock_guard lock(mutex_);
    stats_.reset_live_peaks(floor);
  }
  Stage::reset_peaks(floor);
}

Outstanding Limit::outstanding() const noexcept {
  const std::lock_guard lock(mutex_);
  Outstanding out;
  nodes_.each([&](const LimitNode& node) {
    if (node.is_live()) out.add(node.upstream.bytes);
  });
  return out;
}

std::size_t Limit::largest_after(const Supposition& supposed) const noexcept {
  const std::size_t room =
      saturating_subtract(saturating_add(max_bytes(), supposed.requested), charged());
  return std::min(room, Stage::largest_after(supposed));
}

void Limit::explain(Shortage& shortage) const noexcept {
  shortage.add_limit(max_bytes(), saturating_subtract(max_bytes(), charged()));
  Stage::explain(shortage);
}

std::string Limit::validate() const {
  const Outstanding live = outstanding();
  const Stats own = stats();
  if (own.live_blocks.current != live.blocks)
    return "limit: live_blocks is the number of live nodes";
  if (own.live_granted.current != live.bytes)
    return "limit: live_granted is the sum of the live nodes";
  if (own.allocations - own.frees != live.blocks) return "limit: allocations less frees are live";
  if (charged() != own.live_requested.current) return "limit: what is charged is what is live";
  return Stage::validate();
}

}  // namespace cistern
