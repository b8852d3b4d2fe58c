#include "cistern/core/per_thread.hpp"

#include <algorithm>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace cistern {

constinit thread_local PerThread::Table PerThread::thread_table;

/// Who has which place in the threads' tables. Never destroyed: threads may outlive `main`.
class PerThread::Registry {
 public:
  static Registry& only() {
    static Registry& registry = *new Registry;
    return registry;
  }

  void add(PerThread& added) {
    const std::lock_guard lock(mutex_);
    const auto place = std::ranges::find(places_, nullptr);
    added.place_ = static_cast<std::size_t>(place - places_.begin());
    if (place == places_.end()) {
      places_.push_back(&added);
    } else {
      *place = &added;
    }
    added.id_ = ++last_id_;
  }

  void remove(const PerThread& removed) noexcept {
    const std::lock_guard lock(mutex_);
    places_[removed.place_] = nullptr;
  }

  // Under the lock, so that none of those who are told is destroyed meanwhile.
  void tell_all(const Table& table) noexcept {
    const std::lock_guard lock(mutex_);
    for (std::size_t place = 0; place < std::min(table.size, places_.size()); ++place) {
      const Entry& entry = table.entries[place];
      const PerThread* const owner = places_[place];
      if (entry.item != nullptr && owner != nullptr && owner->id_ == entry.id)
        owner->ended_(owner->context_, entry.item);
    }
  }

 private:
  std::mutex mutex_;
  std::vector<PerThread*> places_;
  std::uint64_t last_id_ = 0;
};

struct PerThread::AtThreadEnd {
  AtThreadEnd() noexcept = default;
  AtThreadEnd(const AtThreadEnd&) = delete;
  AtThreadEnd& operator=(const AtThreadEnd&) = delete;
  AtThreadEnd(AtThreadEnd&&) = delete;
  AtThreadEnd& operator=(AtThreadEnd&&) = delete;
  ~AtThreadEnd() {
    const Table table = thread_table;
    thread_table = {.is_closed = true};
    Registry::only().tell_all(table);
    delete[] table.entries;
  }
};

PerThread::PerThread(Ended ended, void* context) : ended_(ended), context_(context) {
  Registry::only().add(*this);
}

PerThread::~PerThread() {
  Registry::only().remove(*this);
}

bool PerThread::set(void* item) noexcept {
  if (thread_table.is_closed) return false;
  static thread_local const AtThreadEnd at_thread_end;
  static_cast<void>(&at_thread_end);
  if (place_ >= thread_table.size) {
    const std::size_t size = std::max<std::size_t>(8, 2 * (place_ + 1));
    auto* const entries = new (std::nothrow) Entry[size];
    if (entries == nullptr) return false;
    std::copy_n(thread_table.entries, thread_table.size, entries);
    delete[] std::exchange(thread_table.entries, entries);
    thread_table.size = size;
  }
  thread_table.entries[place_] = {.id = id_, .item = item};
  return true;
}

}  // namespace cistern
