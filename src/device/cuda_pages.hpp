// Pages of a GPU's memory behind addresses that the driver reserves. Each page is a piece of
// physical memory of its own, because the driver unmaps only what was mapped as a whole.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "cistern/core/virtual_memory.hpp"
#include "device/cuda_state.hpp"

namespace cistern {

class CudaDevice::Pages final : public VirtualMemory {
 public:
  Pages(CudaDevice& device, State& state);
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  Pages(Pages&&) = delete;
  Pages& operator=(Pages&&) = delete;
  ~Pages();

  /// Gives back what was left, if it can go now.
  void trim() noexcept;

 private:
  // Of a page that its owner gave up while the stream could not be waited for, as in a capture: it
  // is there still, and goes once all streams can be, unless it is mapped again before.
  enum class Page : std::uint8_t { none, mapped, left };
  struct Table {
    std::vector<Page> pages;
    std::size_t page = 0;
    std::size_t left = 0;
    bool is_released = false;  // but for what was left
  };
  using Ranges = std::map<std::byte*, Table>;

  Expected<AddressRange> do_reserve(std::size_t bytes, std::size_t page) noexcept override;
  void do_release(const AddressRange& range) noexcept override;
  Expected<void> do_map(const AddressRange& range, std::byte* start, std::size_t bytes,
                        Stream stream) noexcept override;
  void do_unmap(const AddressRange& range, std::byte* start, std::size_t bytes,
                Stream stream) noexcept override;

  void settle() noexcept;  // within a scope, as what follows

  // Under the lock.
  CudaResult back(const AddressRange& range, Table& table, std::size_t first,
                  std::size_t last) noexcept;
  CudaResult map_page(std::byte* start, std::size_t page) noexcept;
  void unmap_page(std::byte* start, std::size_t page) noexcept;
  void clear(std::byte* start, Table& table) noexcept;
  Ranges::iterator release(Ranges::iterator range) noexcept;

  State& state_;
  std::atomic<bool> has_left_{false};
  std::mutex mutex_;  // guards all below
  std::uint64_t times_left_ = 0;
  Ranges ranges_;
};

}  // namespace cistern
