#include "cistern/pool/idle_index.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <stdexcept>
#include <utility>

#include "cistern/core/size.hpp"

namespace cistern {
namespace {

// A request that not every block of a bucket can serve looks at so many before it counts as a miss.
constexpr std::size_t longest_idle_search = 32;

bool is_special(std::size_t alignment, const DeviceLimits& limits) noexcept {
  return alignment > limits.alignment;
}

bool is_of_another_stream(const CacheNode& node, const Request& request,
                          const DeviceLimits& limits) noexcept {
  return limits.has_queues && node.stream.id != request.stream.id;
}

}  // namespace

BucketIndex::BucketIndex(BucketMap map, const DeviceLimits& limits)
    : map_(std::move(map)), limits_(limits), lists_(map_.size()) {}

std::optional<std::size_t> BucketIndex::capacity_for(std::size_t bytes) const noexcept {
  const std::size_t bucket = map_.bucket_for(bytes);
  if (bucket >= map_.size()) return std::nullopt;
  return map_.capacity(bucket);
}

CacheNode* BucketIndex::take(const Request& request) noexcept {
  const std::size_t bucket = map_.bucket_for(request.bytes);
  if (bucket >= map_.size()) return nullptr;
  List& list = lists_[bucket];
  CacheNode* node = list.newest();
  if (node == nullptr) return nullptr;
  if (is_special(request.alignment, limits_) || is_of_another_stream(*node, request, limits_))
    return take_from(list, request);
  list.remove(node);
  return node;
}

CacheNode* BucketIndex::take_odd(const Request& request) noexcept {
  const std::size_t bucket = map_.bucket_for(request.bytes);
  if (odd_ == 0 || bucket == 0 || bucket >= map_.size()) return nullptr;
  return take_from(lists_[bucket - 1], request);
}

CacheNode* BucketIndex::take_from(List& list, const Request& request) noexcept {
  const std::size_t alignment = std::max(request.alignment, limits_.alignment);
  CacheNode* fitting = nullptr;  // the newest one that is, if of another stream
  CacheNode* node = list.newest();
  for (std::size_t seen = 0; node != nullptr && seen < longest_idle_search;
       ++seen, node = List::older(node)) {
    if (node->bytes < request.bytes || !is_aligned(node->upstream(), alignment, limits_)) continue;
    if (fitting == nullptr) fitting = node;
    if (is_of_another_stream(*node, request, limits_)) continue;
    fitting = node;
    break;
  }
  if (fitting != nullptr) list.remove(fitting);
  return fitting;
}

bool BucketIndex::is_odd(const CacheNode& node) const noexcept {
  return node.bytes > map_.capacity(node.bucket);
}

bool BucketIndex::adopt(CacheNode& node, std::size_t bytes) noexcept {
  std::size_t bucket = map_.bucket_for(bytes);
  // A block has at least its bucket's capacity: one that was requested exactly belongs to the
  // bucket below.
  if (bucket == map_.size() || node.bytes < map_.capacity(bucket)) --bucket;
  node.bucket = static_cast<std::uint32_t>(bucket);
  if (is_odd(node)) ++odd_;
  return true;
}

void BucketIndex::forget(CacheNode& node) noexcept {
  if (is_odd(node)) --odd_;
}

void BucketIndex::put(CacheNode& node) noexcept {
  lists_[node.bucket].push(&node);
}

void BucketIndex::remove(CacheNode& node) noexcept {
  lists_[node.bucket].remove(&node);
}

std::size_t BucketIndex::largest() const noexcept {
  std::size_t bucket = lists_.size();
  while (bucket > 0 && lists_[bucket - 1].empty())
    --bucket;
  if (bucket == 0) return 0;
  // An odd block serves more than its bucket's capacity, if a search sees it.
  std::size_t bytes = map_.capacity(bucket - 1);
  const CacheNode* node = lists_[bucket - 1].newest();
  for (std::size_t seen = 0; node != nullptr && seen < longest_idle_search;
       ++seen, node = List::older(node)) {
    bytes = std::max(bytes, node->bytes);
  }
  return bytes;
}

void BucketIndex::append_to(std::vector<BucketStats>& buckets) const {
  for (std::size_t bucket = 0; bucket < lists_.size(); ++bucket) {
    if (lists_[bucket].empty()) continue;
    BucketStats stats{.capacity = map_.capacity(bucket), .cached_blocks = lists_[bucket].size()};
    for (const CacheNode* node = lists_[bucket].newest(); node != nullptr;
         node = List::older(node)) {
      stats.cached_bytes += node->bytes;
    }
    buckets.push_back(stats);
  }
}

std::string BucketIndex::validate() const {
  for (std::size_t bucket = 0; bucket < lists_.size(); ++bucket) {
    std::size_t blocks = 0;
    for (const CacheNode* node = lists_[bucket].newest(); node != nullptr;
         node = List::older(node), ++blocks) {
      if (node->bucket != bucket) return "cache: a block stands in its own bucket";
      if (node->bytes < map_.capacity(bucket))
        return "cache: a block has at least its bucket's capacity";
    }
    if (blocks != lists_[bucket].size()) return "cache: a bucket counts its blocks";
  }
  return {};
}

FitIndex::FitIndex(const Fit& policy, const DeviceLimits& limits)
    : policy_(policy), limits_(limits) {
  if (!(policy.slack >= 1) || !std::isfinite(policy.slack)) {
    throw std::invalid_argument("cache: the slack of a fit is a number of at least 1");
  }
}

std::optional<std::size_t> FitIndex::capacity_for(std::size_t bytes) const noexcept {
  return round_up(bytes, limits_.granularity);
}

CacheNode* FitIndex::take(const Request& request) noexcept {
  const std::optional<std::size_t> needed = capacity_for(request.bytes);
  if (!needed) return nullptr;
  const std::size_t beyond =
      std::min(scale(*needed, policy_.slack), saturating_add(*needed, policy_.slack_bytes));
  auto fitting = idle_.end();  // the first one that is, if of another stream
  auto place = idle_.lower_bound(Key{.bytes = *needed, .idle_since = 0});
  for (std::size_t seen = 0; place != idle_.end() && seen < longest_idle_search; ++seen, ++place) {
    const CacheNode& node = **place;
    if (node.bytes >= beyond && node.bytes != *needed) break;
    if (is_special(request.alignment, limits_) &&
        !is_aligned(node.upstream(), request.alignment, limits_))
      continue;
    if (fitting == idle_.end()) fitting = place;
    if (is_of_another_stream(node, request, limits_)) continue;
    fitting = place;
    break;
  }
  if (fitting == idle_.end()) return nullptr;
  CacheNode* node = *fitting;
  handles_.push_back(idle_.extract(fitting));
  return node;
}

bool FitIndex::adopt(CacheNode& node, std::size_t /*bytes*/) noexcept {
  try {
    const std::size_t blocks = handles_.size() + idle_.size() + 1;
    if (handles_.capacity() < blocks)
      handles_.reserve(2 * blocks);  // so that taking a block never allocates
    Set one;
    one.insert(&node);
    handles_.push_back(one.extract(one.begin()));
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

void FitIndex::forget(CacheNode& /*node*/) noexcept {
  handles_.pop_back();
}

void FitIndex::put(CacheNode& node) noexcept {
  node.set_idle_since(++frees_);
  handles_.back().value() = &node;
  idle_.insert(std::move(handles_.back()));
  handles_.pop_back();
}

void FitIndex::remove(CacheNode& node) noexcept {
  handles_.push_back(idle_.extract(idle_.find(&node)));
}

void FitIndex::append_to(std::vector<BucketStats>& buckets) const {
  std::size_t last = 0;
  for (const CacheNode* node : idle_) {
    const std::size_t bytes = node->bytes;
    if (bytes != last) buckets.push_back({.capacity = bytes});
    last = bytes;
    ++buckets.back().cached_blocks;
    buckets.back().cached_bytes += bytes;
  }
}

std::string FitIndex::validate() const {
  return std::is_sorted(idle_.begin(), idle_.end(), Order{})
             ? ""
             : "cache: idle blocks stand in order of size";
}

}  // namespace cistern
