// Counts what a simulated device is told to keep resident, fails on demand, and remembers the first
// law that a caller broke: memory goes back only after its residency has ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "cistern/core/residency.hpp"
#include "cistern/device/simulated.hpp"

namespace cistern {

class SimulatedDevice::Resident final : public Residency {
 public:
  explicit Resident(SimulatedDevice& device);

  /// Under the device's lock, as all that follows.
  [[nodiscard]] std::size_t bytes() const;
  /// Null if none was broken.
  [[nodiscard]] const char* broken_law() const noexcept { return broken_law_; }

  /// These addresses have no memory any more.
  void gave_back(std::uintptr_t start, std::size_t bytes) noexcept;

 private:
  Expected<void> do_make_resident(std::span<const Block> parts) noexcept override;
  void do_end_residency(std::span<const Block> parts) noexcept override;
  void erase(const Block& part) noexcept;

  SimulatedDevice& device_;
  std::multimap<std::uintptr_t, std::uintptr_t> parts_;  // where each begins and ends
  std::size_t longest_ = 0;                              // of all that ever were
  const char* broken_law_ = nullptr;
};

}  // namespace cistern
