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

 private:
  // Of a page that its owner gave up while the stream was captured: it is there still, and goes
  // once all streams can be waited for, unless it is mapped again before.
  enum class Page : std::uint8_t { none, mapped, left };
  struct Table {
    std::vector<Page> pages;
    std::size_t page = 0;
    std::size_t left = 0;
  };

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
  void clear(const std::byte* start, Table& table) noexcept;

  State& state_;
  std::atomic<bool> has_left_{false};
  std::mutex mutex_;  // guards all below
  std::uint64_t times_left_ = 0;
  std::map<const std::byte*, Table> ranges_;
};

}  // namespace cistern
