// Pages without memory behind them, counted against the simulated device's capacity. It remembers
// which are mapped, and the first law that a caller broke.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "cistern/core/virtual_memory.hpp"
#include "cistern/device/simulated.hpp"

namespace cistern {

class SimulatedDevice::Pages final : public VirtualMemory {
 public:
  explicit Pages(SimulatedDevice& device);

  /// Under the device's lock, as all that follows.
  [[nodiscard]] std::size_t mapped_bytes() const;
  /// Null if none was broken.
  [[nodiscard]] const char* broken_law() const noexcept { return broken_law_; }

 private:
  struct Table {
    std::vector<bool> is_mapped;
    std::size_t page = 0;
  };

  Expected<AddressRange> do_reserve(std::size_t bytes, std::size_t page) noexcept override;
  void do_release(const AddressRange& range) noexcept override;
  Expected<void> do_map(const AddressRange& range, std::byte* start, std::size_t bytes,
                        Stream stream) noexcept override;
  void do_unmap(const AddressRange& range, std::byte* start, std::size_t bytes,
                Stream stream) noexcept override;

  /// Sets pages from `from` to the opposite. False, with the law noted, if they are not all so now.
  bool flip(const AddressRange& range, const std::byte* start, std::size_t bytes, bool from);
  void note(const char* law) noexcept;

  SimulatedDevice& device_;
  std::map<const std::byte*, Table> ranges_;
  const char* broken_law_ = nullptr;
};

}  // namespace cistern
