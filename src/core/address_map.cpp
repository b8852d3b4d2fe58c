#include "cistern/core/address_map.hpp"

#include <cstdint>
#include <new>

namespace cistern {

// The low bits of addresses are alike and so, in large blocks, are many more: multiplying by 2^64
// over the golden ratio mixes all of them into the high bits.
AddressMap::Shard& AddressMap::shard_of(void* address) noexcept {
  const auto bits = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(address));
  return shards_[static_cast<std::size_t>((bits * 0x9e3779b97f4a7c15U) >> (64 - shard_bits))];
}

bool AddressMap::insert(const Block& block) noexcept {
  Shard& shard = shard_of(block.memory);
  const std::lock_guard lock(shard.mutex);
  try {
    return shard.blocks.emplace(block.memory, block).second;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

std::optional<Block> AddressMap::take(void* address) noexcept {
  Shard& shard = shard_of(address);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.blocks.find(address);
  if (found == shard.blocks.end()) return std::nullopt;
  const Block block = found->second;
  shard.blocks.erase(found);
  return block;
}

std::optional<Block> AddressMap::take_any() noexcept {
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    if (shard.blocks.empty()) continue;
    const Block block = shard.blocks.begin()->second;
    shard.blocks.erase(shard.blocks.begin());
    return block;
  }
  return std::nullopt;
}

std::size_t AddressMap::size() const noexcept {
  std::size_t blocks = 0;
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    blocks += shard.blocks.size();
  }
  return blocks;
}

}  // namespace cistern
