#include "cistern/device/simulated.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <utility>

#include "cistern/core/size.hpp"
#include "cistern/device/simulated_queues.hpp"
#include "core/splitmix.hpp"
#include "device/simulated_pages.hpp"
#include "device/simulated_residency.hpp"

namespace cistern {
namespace {

// Real devices' addresses lie below; those of a device that follows one, where it has to choose,
// above.
constexpr std::uintptr_t first_own_address = std::uintptr_t{1} << 61;
constexpr std::uintptr_t last_address = std::uintptr_t{1} << 62;

DeviceLimits simulated_limits(const SimulatedDevice::Options& options) {
  return {.kind = "simulated",
          .name = "simulated device",
          .total_memory = options.capacity,
          .max_allocation = options.capacity,
          .alignment = options.alignment,
          .max_alignment = std::size_t{1} << 30,
          .granularity = options.granularity,
          .memory_is_address = true,
          .host_addressable = false,
          .extensible = options.extensible,
          .joins_adjacent = options.joins_adjacent,
          .has_queues = options.queues};
}

}  // namespace

SimulatedDevice::SimulatedDevice(const Options& options)
    : Device(simulated_limits(options)),
      options_(options),
      next_address_(options.first_address),
      fail_call_(options.fail_at),
      refused_residency_call_(options.refuse_residency_at),
      random_state_(options.seed),
      pages_(std::make_unique<Pages>(*this)),
      resident_(std::make_unique<Resident>(*this)),
      queues_(options.queues ? std::make_unique<SimulatedQueues>() : nullptr) {
  if (!(options.fail_probability >= 0 && options.fail_probability <= 1)) {
    throw std::invalid_argument("simulated: fail_probability is between 0 and 1");
  }
  if (options.first_address == 0) throw std::invalid_argument("simulated: address 0 is no block's");
  if (!(options.ns_per_byte >= 0 && std::isfinite(options.ns_per_byte)) ||
      options.allocate_latency.count() < 0 || options.free_latency.count() < 0 ||
      options.residency_latency.count() < 0) {
    throw std::invalid_argument("simulated: latencies are not negative");
  }
}

SimulatedDevice::~SimulatedDevice() = default;

VirtualMemory* SimulatedDevice::virtual_memory() noexcept {
  return pages_.get();
}

Residency* SimulatedDevice::residency() noexcept {
  return resident_.get();
}

StreamOrder* SimulatedDevice::stream_order() noexcept {
  return queues_.get();
}

bool SimulatedDevice::fails_on_demand(std::size_t bytes) noexcept {
  const bool by_chance =
      options_.fail_probability > 0 && splitmix_fraction(random_state_) < options_.fail_probability;
  return by_chance || allocation_calls_ == fail_call_ ||
         (options_.fail_every > 0 && allocation_calls_ % options_.fail_every == 0) ||
         saturating_add(used_, bytes) > options_.fail_beyond;
}

// One call for so many bytes more.
Expected<void> SimulatedDevice::take(std::size_t bytes) noexcept {
  ++allocation_calls_;
  virtual_ns_ += static_cast<double>(options_.allocate_latency.count());
  const std::size_t available = saturating_subtract(options_.capacity, used_);
  if (fails_on_demand(bytes) || bytes > available) {
    return tl::unexpected(fail(Errc::out_of_memory, bytes, available));
  }
  used_ += bytes;
  virtual_ns_ += options_.ns_per_byte * static_cast<double>(bytes);
  return {};
}

void SimulatedDevice::count_free_call() noexcept {
  ++free_calls_;
  virtual_ns_ += static_cast<double>(options_.free_latency.count());
}

// False if the call is to be refused.
bool SimulatedDevice::take_commit() noexcept {
  ++residency_calls_;
  virtual_ns_ += static_cast<double>(options_.residency_latency.count());
  return residency_calls_ != refused_residency_call_ &&
         (options_.refuse_residency_every == 0 ||
          residency_calls_ % options_.refuse_residency_every != 0);
}

void SimulatedDevice::count_end_of_residency_call() noexcept {
  virtual_ns_ += static_cast<double>(options_.residency_latency.count());
}

// Null where they have run out: addresses are never used again.
void* SimulatedDevice::next_addresses(std::size_t bytes, std::size_t alignment) noexcept {
  const std::uintptr_t address = (next_address_ + alignment - 1) & ~(alignment - 1);
  if (address > last_address || bytes > last_address - address) return nullptr;
  next_address_ = address + bytes;
  return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
}

void SimulatedDevice::follow(std::span<const Placement> placements) {
  std::vector<Ends::node_type> made;
  made.reserve(placements.size());
  for (const Placement& placement : placements) {
    const auto [address, bytes] = placement;
    if (address == 0 || address > first_own_address || bytes > first_own_address - address)
      continue;
    Ends one{{address, address + bytes}};
    made.push_back(one.extract(one.begin()));
  }
  std::reverse(made.begin(), made.end());
  const std::lock_guard lock(mutex_);
  if (next_address_ != options_.first_address && next_address_ < first_own_address)
    throw std::logic_error("simulated: a device that has given addresses cannot begin to follow");
  placements_ = std::move(made);
  next_address_ = std::max(next_address_, first_own_address);
}

// Null where none is next for such a request.
void* SimulatedDevice::take_placement(std::size_t bytes, std::size_t alignment) noexcept {
  if (placements_.empty()) return nullptr;
  Ends::node_type& next = placements_.back();
  const std::uintptr_t start = next.key();
  if (next.mapped() - start != bytes || (start & (alignment - 1)) != 0) return nullptr;
  const auto after = followed_.lower_bound(start);
  if (after != followed_.end() && after->first < next.mapped()) return nullptr;
  if (after != followed_.begin() && std::prev(after)->second > start) return nullptr;
  followed_.insert(after, std::move(next));
  placements_.pop_back();
  ++followed_calls_;
  return reinterpret_cast<void*>(start);  // NOLINT(performance-no-int-to-ptr)
}

Expected<Device::Piece> SimulatedDevice::obtain(std::size_t bytes, std::size_t alignment,
                                                Stream /*stream*/) noexcept {
  const std::lock_guard lock(mutex_);
  if (Expected<void> taken = take(bytes); !taken) return tl::unexpected(taken.error());
  void* memory = take_placement(bytes, alignment);
  if (memory == nullptr)
    memory = next_addresses(options_.extensible ? options_.capacity : bytes, alignment);
  if (memory == nullptr) {
    used_ -= bytes;
    return tl::unexpected(fail(Errc::device_failed, bytes));
  }
  return Piece{.memory = memory, .bytes = bytes, .alignment = alignment};
}

Expected<Device::Piece> SimulatedDevice::extend(const Piece& piece, std::size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  const bool is_followed = followed_.contains(reinterpret_cast<std::uintptr_t>(piece.memory));
  if (!options_.extensible || is_followed) return Device::extend(piece, bytes);
  if (Expected<void> taken = take(bytes - piece.bytes); !taken)
    return tl::unexpected(taken.error());
  return Piece{.memory = piece.memory, .bytes = bytes, .alignment = piece.alignment};
}

void SimulatedDevice::give_back(Piece piece, Stream stream) noexcept {
  const auto start = reinterpret_cast<std::uintptr_t>(piece.memory);
  if (queues_ != nullptr) queues_->gave_back(start, piece.bytes, stream);
  const std::lock_guard lock(mutex_);
  count_free_call();
  used_ -= piece.bytes;
  followed_.erase(start);
  resident_->gave_back(start, piece.bytes);
}

std::uint64_t SimulatedDevice::followed_calls() const noexcept {
  const std::lock_guard lock(mutex_);
  return followed_calls_;
}

std::uint64_t SimulatedDevice::allocation_calls() const noexcept {
  const std::lock_guard lock(mutex_);
  return allocation_calls_;
}

std::uint64_t SimulatedDevice::free_calls() const noexcept {
  const std::lock_guard lock(mutex_);
  return free_calls_;
}

SimulatedDevice::Duration SimulatedDevice::virtual_time() const noexcept {
  const std::lock_guard lock(mutex_);
  constexpr auto most = static_cast<double>(std::numeric_limits<Duration::rep>::max());
  return virtual_ns_ < most ? Duration(static_cast<Duration::rep>(virtual_ns_)) : Duration::max();
}

std::uint64_t SimulatedDevice::residency_calls() const noexcept {
  const std::lock_guard lock(mutex_);
  return residency_calls_;
}

void SimulatedDevice::refuse_next_residency(std::uint64_t n) noexcept {
  const std::lock_guard lock(mutex_);
  refused_residency_call_ = n == 0 ? 0 : residency_calls_ + n;
}

void SimulatedDevice::fail_next(std::uint64_t n) noexcept {
  const std::lock_guard lock(mutex_);
  fail_call_ = n == 0 ? 0 : allocation_calls_ + n;
}

std::size_t SimulatedDevice::used() const noexcept {
  const std::lock_guard lock(mutex_);
  return used_;
}

std::size_t SimulatedDevice::free_memory() const noexcept {
  return saturating_subtract(std::min(options_.capacity, options_.fail_beyond), used());
}

std::string SimulatedDevice::validate() const {
  std::size_t live = 0;
  each_live_piece([&](const Piece& piece) { live += piece.bytes; });
  const std::size_t resident = stats().resident.current;
  {
    const std::lock_guard lock(mutex_);
    if (resident_->bytes() != resident)
      return "simulated: resident is the sum of the parts it was told of";
    if (pages_->broken_law() != nullptr) return pages_->broken_law();
    if (resident_->broken_law() != nullptr) return resident_->broken_law();
    if (live + pages_->mapped_bytes() != used_)
      return "simulated: used is the sum of the live blocks and of the mapped pages";
    if (used_ > options_.capacity) return "simulated: used is within the capacity";
  }
  if (queues_ != nullptr) {
    const std::vector<std::string> reports = queues_->reports();
    if (!reports.empty()) return "simulated: memory is used in order: " + reports.front();
  }
  return Device::validate();
}

}  // namespace cistern
