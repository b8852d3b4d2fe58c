#include "cistern/pool/cache.hpp"

#include <algorithm>
#include <cassert>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>

#include "cistern/core/batch.hpp"
#include "cistern/core/size.hpp"
#include "cistern/core/size_tally.hpp"
#include "core/failure.hpp"
#include "pool/patient_lock.hpp"

namespace cistern {
namespace {

CacheNode& node_of(const Block& block) noexcept {
  return static_cast<CacheNode&>(*block.node);
}

}  // namespace

// --- Beside the fast path: a hit, and a free that is kept, under the lock. ---

Expected<Block> Cache::allocate_slowly(const Request& request) noexcept {
  if (request.bytes == 0) return Block{};
  if (map_ != nullptr && per_bucket_ == any_number && magazines_.mine() == nullptr)
    magazines_.add_mine(mutex_);
  {
    bool is_contended = false;
    const auto lock = lock_patiently(mutex_, is_contended);
    call_back_mine_for(request);
    CacheNode* node = take_idle(request);
    if (node == nullptr && magazines_.has_others()) {
      call_back_for(request);
      node = take_idle(request);
    }
    if (node != nullptr) {
      ++stats_.hits;
      lend();
      if (is_contended) fill_mine(request);
      return hand_out(*node, request);
    }
  }
  return miss(request);
}

Block Cache::allocate_or_throw(const Request& request) {
  const Expected<Block> block = allocate_slowly(request);
  if (!block) throw_out_of_memory(request, block.error());
  return *block;
}

bool Cache::deallocate_slowly(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  Leaving leaving;
  bool accepted = false;
  {
    bool is_contended = false;
    const auto lock = lock_patiently(mutex_, is_contended);
    accepted = block.node->names(block, this);
    if (accepted) [[likely]] {
      call_back_mine();  // so that the order of the last uses is kept
      auto& node = static_cast<CacheNode&>(*block.node);
      node.end_life();
      node.stream = handover_.end_uses(node, stream);
      node.has_other_uses = false;
      stats_.count_free(node.requested, node.bytes);
      keep(node, leaving);
      lend();
    } else {
      ++stats_.refused_frees;
    }
  }
  if (!accepted) return refuse_free("cache", block);
  // Where none leaves, a pool whose last block this was may be gone by now.
  if (!leaving.empty()) send_upstream(leaving);
  return true;
}

Expected<void> Cache::try_allocate_batch(std::span<const Request> requests,
                                         std::span<Block> blocks) noexcept {
  assert(requests.size() == blocks.size());
  {
    const std::lock_guard lock(mutex_);
    call_back();
    if (set_aside(requests, blocks)) {
      for (std::size_t i = 0; i < requests.size(); ++i) {
        if (blocks[i].empty()) continue;
        ++stats_.hits;
        blocks[i] = hand_out(node_of(blocks[i]), requests[i]);
      }
      return {};
    }
    for (const Block& block : blocks)
      growing_ += block.empty() ? 0 : node_of(block).bytes;
  }
  return miss(requests, blocks);
}

// Takes the idle blocks that will serve a batch; each goes to the place of its request. False if
// there is none for some.
bool Cache::set_aside(std::span<const Request> requests, std::span<Block> blocks) noexcept {
  bool all = true;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    blocks[i] = {};
    if (requests[i].bytes == 0) continue;
    blocks[i].node = take_idle(requests[i]);
    all = all && !blocks[i].empty();
  }
  return all;
}

CacheNode* Cache::take_idle(const Request& request) noexcept {
  if ((request.alignment & (request.alignment - 1)) != 0)
    return nullptr;  // the device will say what is wrong
  CacheNode* node = std::visit(
      [&](auto& index) {
        CacheNode* found = index.take(request);
        return found != nullptr ? found : index.take_odd(request);
      },
      index_);
  if (node == nullptr) return nullptr;
  idle_.remove(node);
  stats_.cached.fall(node->bytes);
  if (handover_.make_ready(node->stream, request.stream)) [[likely]]
    return node;
  put_idle(*node);  // it cannot be waited for; new memory need not be
  return nullptr;
}

void Cache::put_idle(CacheNode& node) noexcept {
  node.next_free = nullptr;
  file(&node);
  stats_.cached.rise(node.bytes);
}

void Cache::file(CacheNode* nodes) const noexcept {
  while (nodes != nullptr) {
    CacheNode* const node = std::exchange(nodes, nodes->next_free);
    std::visit([&](auto& index) { index.put(*node); }, index_);
    idle_.push(node);
  }
}

Block Cache::hand_out(CacheNode& node, const Request& request) noexcept {
  stats_.count_grant(request.bytes, node.bytes);
  Gauge::raise_peak(work_peak_, stats_.live_granted.current);
  return block_of(node, request);
}

void Cache::keep(CacheNode& node, Leaving& leaving) noexcept {
  if (node.bytes > lendable()) call_back();
  const bool has_room = node.bytes <= lendable();
  const std::size_t peers = std::visit([&](auto& index) { return index.peers(node); }, index_);
  if (has_room && peers < per_bucket_ && !abandoned_) [[likely]] {
    put_idle(node);
  } else {
    keep_when_full(node, leaving);
  }
}

// --- What threads keep. ---

// Where a thread has run out, a part of what is left: the more threads, the smaller, and something
// stays for those that have none.
void Cache::lend() noexcept {
  Mine* const mine = lends() ? magazines_.mine() : nullptr;
  if (mine == nullptr) return;
  settle(*mine);
  if (max_bytes_ == unbounded) {
    mine->set_room(unbounded / 2);
  } else if (const std::size_t part = lendable() / (magazines_.size() + 1); mine->room() < part) {
    lent_ += part - mine->room();
    mine->set_room(part);
  }
}

// What threads put that do not take, such as consumers, lies in the pool: a thread that has to wait
// for the lock takes more of it at once.
void Cache::fill_mine(const Request& request) noexcept {
  constexpr int most = 15;
  Mine* const mine = lends() ? magazines_.mine() : nullptr;
  if (mine == nullptr || has_queues_ || request.alignment > alignment_) return;
  for (int i = 0; i < most; ++i) {
    CacheNode* const node = std::get<BucketIndex>(index_).take(request);
    if (node == nullptr) return;
    idle_.remove(node);
    mine->fill(node->bucket, node);
  }
}

void Cache::settle(Mine& magazine) const noexcept {
  const std::size_t live = stats_.live_granted.current;
  const std::size_t most = live + magazine.settle(stats_);
  if (magazines_.size() == 1) Gauge::raise_peak(work_peak_, most);
  Gauge::raise_peak(work_peak_, stats_.live_granted.current);
  if (max_bytes_ != unbounded) lent_ += stats_.live_granted.current - live;
}

void Cache::settle_mine() const noexcept {
  if (Mine* const mine = magazines_.mine()) settle(*mine);
}

void Cache::settle() const noexcept {
  magazines_.each([&](Mine& magazine) { settle(magazine); });
}

void Cache::call_back(Mine& magazine) const noexcept {
  settle(magazine);
  file(magazine.empty());
  if (max_bytes_ != unbounded) lent_ -= magazine.room();
  magazine.set_room(0);
}

void Cache::call_back_mine() const noexcept {
  if (Mine* const mine = magazines_.mine()) call_back(*mine);
}

void Cache::call_back() const noexcept {
  magazines_.each([&](Mine& magazine) { call_back(magazine); });
}

// Only where the magazine has what might serve a request, but not to the fast path.
void Cache::call_back_mine_for(const Request& request) noexcept {
  Mine* const mine = magazines_.mine();
  if (mine == nullptr) return;
  const Bins bins = bins_for(request);
  bool has_any = false;
  for (std::size_t bin = bins.first; bin < bins.end; ++bin)
    has_any = has_any || mine->newest(bin) != nullptr;
  has_any ? call_back(*mine) : settle(*mine);
}

// Of all threads no more than that, so that they stay fast.
void Cache::call_back_for(const Request& request) noexcept {
  const Bins bins = bins_for(request);
  magazines_.each([&](Mine& magazine) {
    settle(magazine);
    for (std::size_t bin = bins.first; bin < bins.end; ++bin)
      file(magazine.empty_bin(bin));
  });
}

Cache::Bins Cache::bins_for(const Request& request) const noexcept {
  const std::size_t bucket = map_->bucket_for(request.bytes);
  if (bucket >= map_->size()) return {};
  const bool has_odd = bucket > 0 && std::get<BucketIndex>(index_).has_odd();
  return {.first = has_odd ? bucket - 1 : bucket, .end = bucket + 1};
}

// On the thread that ends, which has magazines no longer.
void Cache::thread_ended(void* cache, void* magazine) noexcept {
  auto& self = *static_cast<Cache*>(cache);
  auto& its = *static_cast<Mine*>(magazine);
  const std::lock_guard lock(self.mutex_);
  self.call_back(its);
  self.magazines_.remove(&its);
}

// --- The slow path: misses, evictions, bounds. ---

Cache::Cache(Ref<Resource> upstream, const Options& options)
    : Pool(std::move(upstream)),
      index_(make_index(options, device().limits())),
      max_bytes_(options.max_bytes),
      per_bucket_(options.per_bucket),
      idle_ratio_(checked_ratio(options.idle_ratio)),
      when_full_(options.when_full),
      map_(map_for_magazines(index_)),
      magazines_(map_ != nullptr ? map_->size() : 0, &Cache::thread_ended, this) {}

Cache::Index Cache::make_index(const Options& options, const DeviceLimits& limits) {
  if (const auto* fit = std::get_if<Fit>(&options.buckets)) {
    if (options.per_bucket != any_number)
      throw std::invalid_argument("cache: a best fit has no buckets to bound");
    return Index(std::in_place_type<FitIndex>, *fit, limits);
  }
  const auto* table = std::get_if<Table>(&options.buckets);
  BucketMap map = table != nullptr
                      ? BucketMap(*table, limits.granularity)
                      : BucketMap(std::get<Geometric>(options.buckets), limits.granularity);
  return Index(std::in_place_type<BucketIndex>, std::move(map), limits);
}

const BucketMap* Cache::map_for_magazines(const Index& index) noexcept {
  const auto* const buckets = std::get_if<BucketIndex>(&index);
  return buckets != nullptr && buckets->map().is_geometric() ? &buckets->map() : nullptr;
}

double Cache::checked_ratio(double ratio) {
  if (!(ratio >= 0)) throw std::invalid_argument("cache: the idle ratio is not negative");
  return ratio;
}

Expected<Block> Cache::miss(const Request& request) noexcept {
  const std::optional<Growth> growth = growth_for(request);
  if (!growth) return finish_growth(0, ask_upstream(request.bytes, request), request);
  begin_growth(growth->whole);
  const auto ask = [&](std::size_t Growth::*size) {
    return ask_upstream((*growth).*size, request);
  };
  return finish_growth(growth->whole, climb(*growth, ask), request);
}

// Nothing where the device cannot ever give what is requested: giving back what is idle would not
// help, and the device says best why not.
std::optional<Cache::Growth> Cache::growth_for(const Request& request) const noexcept {
  const DeviceLimits& limits = device().limits();
  const std::size_t total = limits.total_memory != 0 ? limits.total_memory : unbounded;
  const std::size_t most = std::min(total, limits.max_allocation);
  const std::optional<std::size_t> least = round_up(request.bytes, limits.granularity);
  if (!least || *least > most || !can_align(request.alignment, limits)) return std::nullopt;
  const std::optional<std::size_t> capacity =
      std::visit([&](auto& index) { return index.capacity_for(request.bytes); }, index_);
  return Growth{.whole = capacity && *capacity <= most ? *capacity : *least, .least = *least};
}

// The ladder, from cheapest to dearest: a whole bucket; the same after giving back as many idle
// bytes; after giving back all; no more than was requested; and that again once what other threads
// are giving back has arrived.
template <class Ask>
std::invoke_result_t<Ask, std::size_t Cache::Growth::*> Cache::climb(const Growth& growth,
                                                                     Ask ask) noexcept {
  std::uint64_t before = 0;  // so many returns when it was last asked
  const auto ask_for = [&](auto bytes) {
    before = returns_.arrived();
    return ask(bytes);
  };
  auto answer = ask_for(&Growth::whole);
  const auto is_refused = [&] { return !answer && answer.error().is_exhaustion(); };
  if (is_refused() && give_back_idle(growth.whole)) answer = ask_for(&Growth::whole);
  if (is_refused() && give_back_idle(unbounded)) answer = ask_for(&Growth::whole);
  if (is_refused() && growth.least < growth.whole) answer = ask_for(&Growth::least);
  for (int wait = 0;
       wait < Returns::most_waits && is_refused() && returns_.wait_for_more_than(before); ++wait) {
    answer = ask_for(&Growth::least);
  }
  return answer;
}

Expected<Block> Cache::ask_upstream(std::size_t bytes, const Request& request) noexcept {
  return upstream().try_allocate(
      {.bytes = bytes, .alignment = request.alignment, .stream = request.stream});
}

// The end of a miss, whether or not the upstream gave a block.
Expected<Block> Cache::finish_growth(std::size_t bytes, const Expected<Block>& block,
                                     const Request& request) noexcept {
  Leaving leaving;
  Expected<Block> granted = block;
  {
    const std::lock_guard lock(mutex_);
    growing_ -= bytes;
    CacheNode* node = block ? adopt(*block, request.bytes) : nullptr;
    if (node != nullptr) {
      ++stats_.misses;
      granted = hand_out(*node, request);
    } else {
      ++stats_.failures;
      if (block) granted = tl::unexpected(failure("cache", Errc::out_of_memory, request.bytes));
    }
    enforce_idle_ratio(leaving);
  }
  if (block && !granted) upstream().deallocate(*block, request.stream);
  send_upstream(leaving);
  return granted;
}

// A batch of which some blocks are set aside, and count as growing: the ladder of a single miss,
// with nothing in the places of what is not missing.
Expected<void> Cache::miss(std::span<const Request> requests, std::span<Block> blocks) noexcept {
  const std::size_t size = requests.size();
  // NOLINTNEXTLINE(modernize-avoid-c-arrays): sized at run time
  const std::unique_ptr<Request[]> wanted(new (std::nothrow) Request[size]);
  const std::unique_ptr<Block[]> below(new (std::nothrow) Block[size]);  // NOLINT(*-c-arrays)
  if (wanted == nullptr || below == nullptr) {
    return finish_growth(0, requests, blocks, {},
                         tl::unexpected(failure("cache", Errc::out_of_memory, bytes_of(requests))));
  }
  const auto ask = [&](std::size_t Growth::*part) {
    for (std::size_t i = 0; i < size; ++i) {
      wanted[i] = {.alignment = requests[i].alignment, .stream = requests[i].stream};
      if (blocks[i].empty() && requests[i].bytes > 0) {
        const std::optional<Growth> growth = growth_for(requests[i]);
        wanted[i].bytes = growth ? (*growth).*part : requests[i].bytes;
      }
    }
    return upstream().try_allocate_batch({wanted.get(), size}, {below.get(), size});
  };
  const std::optional<Growth> growth = growth_for(requests, blocks);
  if (growth) begin_growth(growth->whole);
  return finish_growth(growth ? growth->whole : 0, requests, blocks, {below.get(), size},
                       growth ? climb(*growth, ask) : ask(&Growth::least));
}

// The sum over what is missing.
std::optional<Cache::Growth> Cache::growth_for(std::span<const Request> requests,
                                               std::span<const Block> blocks) const noexcept {
  const std::size_t total = device().limits().total_memory;
  Growth sum;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (!blocks[i].empty() || requests[i].bytes == 0) continue;
    const std::optional<Growth> growth = growth_for(requests[i]);
    if (!growth) return std::nullopt;
    sum.whole = saturating_add(sum.whole, growth->whole);
    sum.least = saturating_add(sum.least, growth->least);
  }
  const bool is_possible = sum.whole < unbounded && (total == 0 || sum.least <= total);
  return is_possible ? std::optional(sum) : std::nullopt;
}

// The end of a batch that missed: all of it is handed out, or what was set aside is idle again.
// `bytes` are growing beside what was set aside.
Expected<void> Cache::finish_growth(std::size_t bytes, std::span<const Request> requests,
                                    std::span<Block> blocks, std::span<Block> below,
                                    const Expected<void>& obtained) noexcept {
  Leaving leaving;
  bool is_granted = false;
  {
    const std::lock_guard lock(mutex_);
    growing_ -= bytes;
    is_granted = obtained && adopt(requests, below);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const bool was_idle = !blocks[i].empty();
      if (was_idle) growing_ -= node_of(blocks[i]).bytes;
      if (is_granted && requests[i].bytes > 0) {
        ++(was_idle ? stats_.hits : stats_.misses);
        blocks[i] = hand_out(node_of(was_idle ? blocks[i] : below[i]), requests[i]);
      } else if (was_idle) {
        keep(node_of(blocks[i]), leaving);
      }
    }
    if (!is_granted) ++stats_.failures;
    enforce_idle_ratio(leaving);
  }
  if (is_granted) {
    send_upstream(leaving);
    return {};
  }
  if (obtained) {
    for (std::size_t i = 0; i < requests.size(); ++i)
      upstream().deallocate(below[i], requests[i].stream);
  }
  send_upstream(leaving);
  return fail_batch(
      blocks,
      obtained ? failure("cache", Errc::out_of_memory, bytes_of(requests)) : obtained.error(), 0);
}

// All blocks of a batch or, if the host has no memory for the records, none.
bool Cache::adopt(std::span<const Request> requests, std::span<Block> below) noexcept {
  for (std::size_t i = 0; i < below.size(); ++i) {
    if (below[i].empty()) continue;
    CacheNode* node = adopt(below[i], requests[i].bytes);
    if (node == nullptr) {
      disown(below.first(i));
      return false;
    }
    below[i].node = node;
  }
  return true;
}

// The opposite: they are the upstream's blocks again.
void Cache::disown(std::span<Block> below) noexcept {
  for (Block& block : below) {
    if (block.empty()) continue;
    CacheNode& node = node_of(block);
    block = node.upstream();
    std::visit([&](auto& index) { index.forget(node); }, index_);
    nodes_.put(&node);
  }
}

// Null if the host has no memory for a record.
CacheNode* Cache::adopt(const Block& block, std::size_t bytes) noexcept {
  CacheNode* node = nodes_.take();
  if (node == nullptr) return nullptr;
  node->set_upstream(block);
  if (std::visit([&](auto& index) { return index.adopt(*node, bytes); }, index_)) return node;
  nodes_.put(node);
  return nullptr;
}

bool Cache::give_back_idle(std::size_t bytes) noexcept {
  Leaving leaving;
  {
    const std::lock_guard lock(mutex_);
    call_back();
    evict_down_to(saturating_subtract(stats_.cached.current, bytes), leaving);
  }
  const bool any = !leaving.empty();
  send_upstream(leaving);
  return any;
}

// While the upstream is being asked, what is asked for counts as live: the bound of the idle ratio
// holds throughout.
void Cache::begin_growth(std::size_t bytes) noexcept {
  Leaving leaving;
  {
    const std::lock_guard lock(mutex_);
    growing_ += bytes;
    enforce_idle_ratio(leaving);
  }
  send_upstream(leaving);
}

void Cache::keep_when_full(CacheNode& node, Leaving& leaving) noexcept {
  const std::size_t bytes = node.bytes;
  const bool can_fit = bytes <= max_bytes_ && per_bucket_ > 0;
  if (abandoned_ || when_full_ == WhenFull::reject || !can_fit) {
    std::visit([&](auto& index) { index.forget(node); }, index_);
    leaving.add(node);
    returns_.begin();
    return;
  }
  std::visit(
      [&](auto& index) {
        if (index.peers(node) >= per_bucket_) evict(*index.oldest_peer(node), leaving);
      },
      index_);
  evict_down_to(max_bytes_ - bytes, leaving);
  keep(node, leaving);
}

void Cache::evict(CacheNode& node, Leaving& leaving) noexcept {
  std::visit(
      [&](auto& index) {
        index.remove(node);
        index.forget(node);
      },
      index_);
  idle_.remove(&node);
  stats_.cached.fall(node.bytes);
  leaving.add(node);
  returns_.begin();
}

// Of what lies in the pool, which is all that is idle once threads were called back.
void Cache::evict_down_to(std::size_t idle_bytes, Leaving& leaving) noexcept {
  while (stats_.cached.current > idle_bytes && !idle_.empty())
    evict(*idle_.oldest(), leaving);
}

// What is held, and so whether it is too much, is known without the magazines. What lies in the
// pool goes first: threads keep what they freed since they were last called back.
void Cache::enforce_idle_ratio(Leaving& leaving) noexcept {
  const auto bound = [&] {
    std::size_t live = stats_.live_granted.current + growing_;
    if (Gauge::is_below_zero(live)) live = 0;  // until all is settled
    return saturating_subtract(scale(std::max(work_peak_, live), 1 + idle_ratio_), live);
  };
  if (stats_.cached.current <= bound()) return;
  settle();
  evict_down_to(bound(), leaving);
  if (stats_.cached.current <= bound()) return;
  call_back();
  evict_down_to(bound(), leaving);
}

// May be the end of this cache, if its owners have left.
void Cache::send_upstream(const Leaving& leaving) noexcept {
  if (leaving.empty()) return;
  leaving.each([&](const CacheNode& node) { upstream().deallocate(node.upstream(), node.stream); });
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    leaving.each([&](CacheNode& node) { nodes_.put(&node); });
    returns_.end(leaving.size());
    over = is_over();
  }
  if (over) delete this;
}

void Cache::trim_to(std::size_t keep_bytes) noexcept {
  Leaving leaving;
  std::size_t kept = 0;
  {
    const std::size_t below = upstream().stats().cached.current;
    const std::lock_guard lock(mutex_);
    call_back();
    const std::size_t excess =
        saturating_subtract(saturating_add(stats_.cached.current, below), keep_bytes);
    evict_down_to(saturating_subtract(stats_.cached.current, excess), leaving);
    kept = stats_.cached.current;
    work_peak_ = stats_.live_granted.current + kept;
  }
  send_upstream(leaving);
  trim_upstream(saturating_subtract(keep_bytes, kept));
}

bool Cache::is_over() const noexcept {
  return abandoned_ && stats_.live_blocks.current == 0 && returns_.none_leaving();
}

void Cache::abandoned() noexcept {
  Leaving leaving;
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    call_back();
    abandoned_ = true;
    evict_down_to(0, leaving);
    over = is_over();
  }
  if (over) {
    delete this;
  } else {
    send_upstream(leaving);
  }
}

std::size_t Cache::set_max_bytes(std::size_t max_bytes) noexcept {
  Leaving leaving;
  std::size_t former = 0;
  {
    const std::lock_guard lock(mutex_);
    call_back();
    former = std::exchange(max_bytes_, max_bytes);
    evict_down_to(max_bytes, leaving);
  }
  send_upstream(leaving);
  return former;
}

std::size_t Cache::set_per_bucket(std::size_t blocks) noexcept {
  Leaving leaving;
  std::size_t former = 0;
  {
    const std::lock_guard lock(mutex_);
    if (std::holds_alternative<FitIndex>(index_)) return per_bucket_;
    call_back();
    former = per_bucket_.exchange(blocks);
    for (CacheNode* node = idle_.oldest(); node != nullptr;) {
      CacheNode* next = IdleList::newer(node);
      if (std::visit([&](auto& index) { return index.peers(*node); }, index_) > blocks)
        evict(*node, leaving);
      node = next;
    }
  }
  send_upstream(leaving);
  return former;
}

double Cache::set_idle_ratio(double ratio) noexcept {
  Leaving leaving;
  double former = 0;
  {
    const std::lock_guard lock(mutex_);
    former = std::exchange(idle_ratio_, std::max(0.0, ratio));  // in this order: of a NaN, 0
    enforce_idle_ratio(leaving);
  }
  send_upstream(leaving);
  return former;
}

std::size_t Cache::max_bytes() const noexcept {
  const std::lock_guard lock(mutex_);
  return max_bytes_;
}

std::size_t Cache::per_bucket() const noexcept {
  const std::lock_guard lock(mutex_);
  return per_bucket_;
}

double Cache::idle_ratio() const noexcept {
  const std::lock_guard lock(mutex_);
  return idle_ratio_;
}

Expected<Block> Cache::try_grow(const Block& block, std::size_t bytes) noexcept {
  if (block.empty()) return Stage::try_grow(block, bytes);
  const std::lock_guard lock(mutex_);
  if (!block.node->names(block, this))
    return tl::unexpected(failure("cache", Errc::invalid_block, block.bytes));
  auto& node = static_cast<CacheNode&>(*block.node);
  if (bytes > node.bytes) {
    return tl::unexpected(Error{.code = Errc::cannot_grow, .stage = "cache", .requested = bytes});
  }
  settle_mine();
  Block grown = block;
  grown.requested = std::max(bytes, node.requested);
  stats_.count_growth(grown.requested - node.requested, 0);
  node.requested = grown.requested;
  grown.generation = node.renew_life();
  return grown;
}

Expected<void> Cache::also_used_on(const Block& block, Stream stream) noexcept {
  if (block.empty()) return {};
  const std::lock_guard lock(mutex_);
  if (!block.node->names(block, this))
    return tl::unexpected(failure("cache", Errc::invalid_block, block.bytes));
  if (handover_.add_use(*block.node, stream)) {
    static_cast<CacheNode&>(*block.node).has_other_uses = true;
    return {};
  }
  return tl::unexpected(failure("cache", Errc::out_of_memory, 0));
}

Stats Cache::stats() const noexcept {
  Stats own;
  {
    const std::lock_guard lock(mutex_);
    settle();
    own = stats_;
  }
  return as_pool(own);
}

void Cache::reset_peaks(const Stats& floor) noexcept {
  // The peak of the idle bytes is a sum over the stages: what the stages below account for is not
  // this one's.
  Stats below = floor;
  below.cached.peak = 0;
  upstream().reset_peaks(below);
  const std::size_t cached_below = upstream().stats().cached.peak;
  const std::lock_guard lock(mutex_);
  settle();
  stats_.reset_live_peaks(floor);
  stats_.cached.reset_peak(saturating_subtract(floor.cached.peak, cached_below));
}

std::vector<BucketStats> Cache::buckets() const {
  std::vector<BucketStats> all;
  {
    const std::lock_guard lock(mutex_);
    call_back();
    std::visit([&](auto& index) { index.append_to(all); }, index_);
  }
  const std::vector<BucketStats> below = upstream().buckets();
  all.insert(all.end(), below.begin(), below.end());
  return all;
}

Outstanding Cache::outstanding() const noexcept {
  const std::lock_guard lock(mutex_);
  Outstanding out;
  nodes_.each([&](const CacheNode& node) {
    if (node.is_live()) out.add(node.bytes);
  });
  return out;
}

// What is idle comes back to the upstream before a request fails.
std::size_t Cache::largest_after(const Supposition& supposed) const noexcept {
  const PoolsAbove above{.pool = this, .next = supposed.pools};
  Supposition below = supposed;
  below.pools = &above;
  std::size_t idle = 0;
  {
    const std::lock_guard lock(mutex_);
    call_back();
    for (const CacheNode* node = idle_.newest(); node != nullptr; node = IdleList::older(node)) {
      below.requested = saturating_add(below.requested, node->requested_upstream);
      below.granted = saturating_add(below.granted, node->bytes);
    }
    idle = std::visit([](const auto& index) { return index.largest(); }, index_);
  }
  const std::size_t fresh = Pool::largest_after(below) & ~(device().limits().granularity - 1);
  return std::max(idle, fresh);
}

void Cache::explain(Shortage& shortage) const noexcept {
  {
    SizeTally sizes;
    const std::lock_guard lock(mutex_);
    call_back();
    nodes_.each([&](const CacheNode& node) {
      if (node.is_live()) sizes.add(node.bytes, true);
    });
    for (const CacheNode* node = idle_.newest(); node != nullptr; node = IdleList::older(node))
      sizes.add(node->bytes, false);
    shortage.add_sizes(sizes);
    shortage.add_holes(stats_.cached.current,
                       std::visit([](const auto& index) { return index.largest(); }, index_));
  }
  Pool::explain(shortage);
}

std::size_t Cache::trimmable() const noexcept {
  if (upstream().stats().pools > 0) return 0;
  const std::lock_guard lock(mutex_);
  settle();
  return stats_.cached.current;
}

std::string Cache::validate() const {
  const Outstanding live = outstanding();
  {
    const std::lock_guard lock(mutex_);
    call_back();
    if (lent_ > 0) return "cache: nothing is lent once it was called back";
    std::size_t blocks = 0;
    std::size_t bytes = 0;
    for (const CacheNode* node = idle_.newest(); node != nullptr; node = IdleList::older(node)) {
      if (node->is_live()) return "cache: an idle block is not live";
      ++blocks;
      bytes += node->bytes;
    }
    std::size_t in_buckets = 0;
    std::vector<BucketStats> all;
    std::visit([&](auto& index) { index.append_to(all); }, index_);
    for (const BucketStats& bucket : all) {
      in_buckets += bucket.cached_blocks;
      if (bucket.cached_blocks > per_bucket_)
        return "cache: a bucket holds at most per_bucket blocks";
    }
    if (blocks != idle_.size() || blocks != in_buckets)
      return "cache: every idle block is in the index";
    if (stats_.cached.current != bytes) return "cache: cached is the sum of the idle blocks";
    if (stats_.cached.current > max_bytes_) return "cache: cached is at most max_bytes";
    if (stats_.live_blocks.current != live.blocks)
      return "cache: live_blocks is the number of live nodes";
    if (stats_.live_granted.current != live.bytes)
      return "cache: live_granted is the sum of the live nodes";
    if (stats_.allocations - stats_.frees != live.blocks)
      return "cache: allocations less frees are live";
    if (stats_.hits + stats_.misses != stats_.allocations)
      return "cache: a grant is a hit or a miss";
    bool are_peaks = !Gauge::is_below_zero(work_peak_);
    Stats::each_gauge(
        [&](std::string_view, const Gauge& gauge) {
          are_peaks = are_peaks && gauge.current <= gauge.peak && !Gauge::is_below_zero(gauge.peak);
        },
        stats_);
    if (!are_peaks) return "cache: no level stands above its peak, and no peak was below zero";
    const std::size_t held = stats_.live_granted.current + stats_.cached.current;
    if (held > std::max(stats_.live_granted.current, scale(work_peak_, 1 + idle_ratio_))) {
      return "cache: what is held is at most the peak of the work and the idle ratio";
    }
    if (std::string law = std::visit([](auto& index) { return index.validate(); }, index_);
        !law.empty())
      return law;
  }
  return Stage::validate();
}

}  // namespace cistern
