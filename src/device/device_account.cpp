#include "device/device_account.hpp"

#include <map>
#include <mutex>
#include <tuple>

namespace cistern {

bool DeviceAccount::take(std::size_t bytes, std::size_t most) noexcept {
  std::size_t held = held_.load(std::memory_order_relaxed);
  do {
    if (held > most || bytes > most - held) return false;
  } while (!held_.compare_exchange_weak(held, held + bytes, std::memory_order_relaxed));
  return true;
}

DeviceAccount& device_account(std::string_view kind, std::uintptr_t id, MemoryOwner owner) {
  using Key = std::tuple<std::string_view, std::uintptr_t, MemoryOwner>;
  static std::mutex mutex;
  static auto& accounts = *new std::map<Key, DeviceAccount>;  // nothing ends it
  const std::lock_guard lock(mutex);
  return accounts[{kind, id, owner}];
}

}  // namespace cistern
