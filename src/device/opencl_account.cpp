#include "device/opencl_account.hpp"

#include <map>
#include <mutex>
#include <utility>

namespace cistern {

bool OpenClAccount::take(std::size_t bytes, std::size_t most) noexcept {
  std::size_t held = held_.load(std::memory_order_relaxed);
  do {
    if (held > most || bytes > most - held) return false;
  } while (!held_.compare_exchange_weak(held, held + bytes, std::memory_order_relaxed));
  return true;
}

OpenClAccount& opencl_account(cl_device_id device, OpenClOwner owner) {
  using Key = std::pair<cl_device_id, OpenClOwner>;
  static std::mutex mutex;
  static auto& accounts = *new std::map<Key, OpenClAccount>;  // nothing ends it
  const std::lock_guard lock(mutex);
  return accounts[{device, owner}];
}

}  // namespace cistern
