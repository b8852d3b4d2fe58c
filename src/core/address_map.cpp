#include "cistern/core/address_map.hpp"

#include <cstdint>
#include <new>

namespace cistern {
namespace {

constexpr unsigned smallest_bits = 4;

// The low bits of addresses are alike and so, in large blocks, are many more: multiplying by 2^64
// over the golden ratio mixes all of them into the high bits (Knuth, volume 3, section 6.4).
std::uint64_t mix(const void* address) noexcept {
  return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(address)) *
         0x9e3779b97f4a7c15U;
}

}  // namespace

std::size_t AddressMap::shard_of(const void* address) noexcept {
  return static_cast<std::size_t>(mix(address) >> (64 - shard_bits));
}

bool AddressMap::insert(const Block& block, Stream stream) noexcept {
  Shard& shard = shards_[shard_of(block.memory)];
  const std::lock_guard lock(shard.mutex);
  return shard.table.insert({.block = block, .stream = stream});
}

std::optional<AddressMap::Entry> AddressMap::take(void* address) noexcept {
  Shard& shard = shards_[shard_of(address)];
  const std::lock_guard lock(shard.mutex);
  return shard.table.take(address);
}

std::optional<AddressMap::Entry> AddressMap::find(void* address) const noexcept {
  const Shard& shard = shards_[shard_of(address)];
  const std::lock_guard lock(shard.mutex);
  return shard.table.entry_at(address);
}

std::size_t AddressMap::size() const noexcept {
  std::size_t blocks = 0;
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    blocks += shard.table.size();
  }
  return blocks;
}

std::string AddressMap::validate() const {
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    if (std::string law = shard.table.validate(); !law.empty()) return law;
  }
  return {};
}

std::string AddressMap::Table::validate() const {
  std::size_t taken = 0;
  for (std::size_t slot = 0; slot < capacity(); ++slot) {
    if (slots_[slot].block.memory == nullptr) continue;
    ++taken;
    if (find(slots_[slot].block.memory) != slot) return "address map: a search finds every block";
  }
  if (taken != size_) return "address map: its size is the number of its blocks";
  if (capacity() > 0 && taken == capacity()) return "address map: there is an empty slot";
  return {};
}

/// Where the search for an address begins. The highest bits of the mixture chose the shard.
std::size_t AddressMap::Table::home(const void* address) const noexcept {
  return static_cast<std::size_t>((mix(address) << shard_bits) >> (64 - bits_));
}

/// The slot of an address, or the empty one where it would stand. There is always an empty one.
std::size_t AddressMap::Table::find(const void* address) const noexcept {
  std::size_t slot = home(address);
  while (slots_[slot].block.memory != nullptr && slots_[slot].block.memory != address)
    slot = next(slot);
  return slot;
}

bool AddressMap::Table::insert(const Entry& entry) noexcept {
  if (entry.block.memory == nullptr) return false;
  if (size_ >= capacity() / 4 * 3 && !grow()) return false;
  Entry& slot = slots_[find(entry.block.memory)];
  if (slot.block.memory != nullptr) return false;
  slot = entry;
  ++size_;
  return true;
}

std::optional<AddressMap::Entry> AddressMap::Table::entry_at(const void* address) const noexcept {
  if (size_ == 0 || address == nullptr) return std::nullopt;
  const Entry& slot = slots_[find(address)];
  return slot.block.memory == nullptr ? std::nullopt : std::optional(slot);
}

std::optional<AddressMap::Entry> AddressMap::Table::take(const void* address) noexcept {
  if (size_ == 0 || address == nullptr) return std::nullopt;
  std::size_t hole = find(address);
  if (slots_[hole].block.memory == nullptr) return std::nullopt;
  const Entry entry = slots_[hole];
  // Whoever probed past the hole moves into it, so that no search ends there too early (the same,
  // algorithm R).
  for (std::size_t slot = next(hole); slots_[slot].block.memory != nullptr; slot = next(slot)) {
    const std::size_t mask = capacity() - 1;
    const std::size_t probed = (slot - home(slots_[slot].block.memory)) & mask;
    if (probed < ((slot - hole) & mask)) continue;
    slots_[hole] = slots_[slot];
    hole = slot;
  }
  slots_[hole] = {};
  --size_;
  return entry;
}

bool AddressMap::Table::grow() noexcept {
  Table larger;
  larger.bits_ = slots_ == nullptr ? smallest_bits : bits_ + 1;
  larger.slots_.reset(new (std::nothrow) Entry[std::size_t{1} << larger.bits_]);
  if (larger.slots_ == nullptr) return false;
  const auto move = [&](const Entry& entry) {
    larger.slots_[larger.find(entry.block.memory)] = entry;
  };
  each(move);
  larger.size_ = size_;
  *this = std::move(larger);
  return true;
}

}  // namespace cistern
