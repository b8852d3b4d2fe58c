#include "cistern/adaptor/fallback.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "cistern/core/batch.hpp"
#include "cistern/core/device.hpp"
#include "cistern/core/size.hpp"
#include "core/failure.hpp"

namespace cistern {
namespace {

void add(Gauge& sum, const Gauge& gauge) noexcept {
  sum.current += gauge.current;
  sum.peak += gauge.peak;
}

void raise(Gauge& gauge, const Gauge& floor) noexcept {
  gauge.peak = std::max(gauge.peak, floor.peak);
}

}  // namespace

Fallback::Fallback(Ref<Resource> first, Ref<Resource> second)
    : first_(std::move(first)), second_(std::move(second)) {
  if (!first_ || !second_)
    throw std::invalid_argument("a fallback needs two upstreams, but was given fewer");
}

Expected<Block> Fallback::try_allocate(const Request& request) noexcept {
  if (request.bytes == 0) return Block{};
  const Expected<Block> first = first_->try_allocate(request);
  if (first) return hand_out(*first, false);
  const Expected<Block> second = second_->try_allocate(for_second(request));
  if (second) return hand_out(*second, true);
  records_.count_failure();
  const bool only_second_is_exhausted =
      second.error().is_exhaustion() && !first.error().is_exhaustion();
  return only_second_is_exhausted ? second : first;
}

Expected<void> Fallback::try_allocate_batch(std::span<const Request> requests,
                                            std::span<Block> blocks) noexcept {
  if (!first_->try_allocate_batch(requests, blocks))
    return Resource::try_allocate_batch(requests, blocks);
  if (records_.hand_out(blocks)) return {};
  for (std::size_t i = 0; i < requests.size(); ++i)
    first_->deallocate(blocks[i], requests[i].stream);
  records_.count_failure();
  return fail_batch(blocks, failure("fallback", Errc::out_of_memory, bytes_of(requests)), 0);
}

// Every block is as aligned as the device that the program knows of promises.
Request Fallback::for_second(Request request) const noexcept {
  const bool is_power_of_two = (request.alignment & (request.alignment - 1)) == 0;
  if (is_power_of_two) request.alignment = std::max(request.alignment, device().limits().alignment);
  return request;
}

Expected<Block> Fallback::hand_out(const Block& below, bool spilled) noexcept {
  if (const std::optional<Block> block = records_.hand_out(below, spilled)) return *block;
  (spilled ? *second_ : *first_).deallocate(below);  // the host has no memory for the record
  records_.count_failure();
  return tl::unexpected(failure("fallback", Errc::out_of_memory, below.requested));
}

bool Fallback::deallocate(const Block& block, Stream stream) noexcept {
  if (block.empty()) return true;
  BlockRecords::Record* const record = records_.find(block);
  if (record == nullptr) {
    records_.count_refused_free();
    return refuse_free("fallback", block);
  }
  home_of(*record).deallocate(record->below, stream);
  if (records_.end(*record)) delete this;
  return true;
}

Expected<Block> Fallback::try_grow(const Block& block, std::size_t bytes) noexcept {
  if (block.empty()) return Resource::try_grow(block, bytes);
  BlockRecords::Record* const record = records_.find(block);
  if (record == nullptr)
    return tl::unexpected(failure("fallback", Errc::invalid_block, block.bytes));
  const Expected<Block> grown = home_of(*record).try_grow(record->below, bytes);
  if (!grown) return grown;
  return records_.grow(*record, *grown);
}

Expected<void> Fallback::also_used_on(const Block& block, Stream stream) noexcept {
  if (block.empty()) return {};
  const BlockRecords::Record* const record = records_.find(block);
  if (record == nullptr)
    return tl::unexpected(failure("fallback", Errc::invalid_block, block.bytes));
  return home_of(*record).also_used_on(record->below, stream);
}

void Fallback::cycle() noexcept {
  first_->cycle();
  second_->cycle();
}

Stats Fallback::stats() const noexcept {
  Stats stats = first_->stats();
  const Stats second = second_->stats();
  add(stats.cached, second.cached);
  add(stats.reserved, second.reserved);
  add(stats.resident, second.resident);
  stats.hits += second.hits;
  stats.misses += second.misses;
  stats.device_allocations += second.device_allocations;
  stats.device_frees += second.device_frees;
  stats.residency_commits += second.residency_commits;
  stats.residency_refusals += second.residency_refusals;
  stats.pools += second.pools;

  const Stats own = records_.stats();
  stats.take_outermost_figures(own);
  add(stats.spilled, own.spilled);  // all that the second gave, from wherever it has it
  const std::lock_guard lock(floor_mutex_);
  raise(stats.cached, floor_.cached);
  raise(stats.reserved, floor_.reserved);
  raise(stats.spilled, floor_.spilled);
  raise(stats.resident, floor_.resident);
  return stats;
}

// A peak that is a sum cannot be given back in parts: the upstreams begin anew.
void Fallback::reset_peaks(const Stats& floor) noexcept {
  first_->reset_peaks();
  second_->reset_peaks();
  records_.reset_peaks(floor);
  const std::lock_guard lock(floor_mutex_);
  floor_ = floor;
}

std::vector<BucketStats> Fallback::buckets() const {
  std::vector<BucketStats> all = first_->buckets();
  const std::vector<BucketStats> second = second_->buckets();
  all.insert(all.end(), second.begin(), second.end());
  return all;
}

Outstanding Fallback::outstanding() const noexcept {
  return records_.outstanding();
}

std::size_t Fallback::largest_after(const Supposition& supposed) const noexcept {
  Supposition nothing_back = supposed;
  nothing_back.requested = 0;
  nothing_back.granted = 0;
  return std::max(first_->largest_after(nothing_back), second_->largest_after(nothing_back));
}

// The device that is reported is the first's, as everywhere.
void Fallback::explain(Shortage& shortage) const noexcept {
  first_->explain(shortage);
  const Shortage of_first = shortage;
  second_->explain(shortage);
  shortage.device = of_first.device;
  shortage.device_total = of_first.device_total;
  shortage.device_free = of_first.device_free;
}

void Fallback::each_upstream(const std::function<void(Resource&)>& visit) const {
  visit(*first_);
  visit(*second_);
}

std::string Fallback::validate() const {
  if (const char* law = records_.validate(); law != nullptr) return std::string("fallback: ") + law;
  std::string law = first_->validate();
  return law.empty() ? second_->validate() : law;
}

// `keep_bytes` is what may lie idle in both together: the first gives back before the second.
void Fallback::trim_to(std::size_t keep_bytes) noexcept {
  const std::size_t in_second = second_->stats().cached.current;
  first_->trim(saturating_subtract(keep_bytes, in_second));
  second_->trim(saturating_subtract(keep_bytes, first_->stats().cached.current));
}

void Fallback::abandoned() noexcept {
  if (records_.abandon()) delete this;
}

}  // namespace cistern
