// The CPU's memory: from malloc where a request is small, straight from the operating system where
// it is large enough that page faults and returning it matter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cistern/core/device.hpp"

namespace cistern {

class HostPages;
class HostResidency;

enum class HugePages : std::uint8_t {
  never,        // ask the system for small pages
  automatic,    // leave it to the system
  transparent,  // advise the system to use huge pages for mapped memory
};

class HostDevice final : public Device {
 public:
  struct Options {
    std::size_t map_from = std::size_t{256}
                           << 10;  // requests of so many bytes are mapped, smaller ones malloc'ed
    HugePages huge_pages = HugePages::automatic;
    bool zero = false;  // memory is zeroed when it is obtained (not when a pool reuses it)
  };

  HostDevice() : HostDevice(Options{}) {}
  /// Throws std::invalid_argument if `map_from` is 0.
  explicit HostDevice(Options options);

  [[nodiscard]] const Options& options() const noexcept { return options_; }

  /// One for the process: every host device stands for the same memory.
  [[nodiscard]] PoolRegistry& registry() noexcept override;
  [[nodiscard]] std::size_t free_memory() const noexcept override;

  /// Pages from the system's smallest to 2 MiB; smaller than that, they are never huge pages. Pages
  /// are backed when they are mapped, where the system can say so (Linux 5.14); mapping more than
  /// `host_memory()` in all fails. Within that, a control group that is shared with others may
  /// still run out, and the system then ends a process instead of failing the call.
  [[nodiscard]] VirtualMemory* virtual_memory() noexcept override;

  /// Locks pages (mlock), as far as the system lets the process; `RLIMIT_MEMLOCK` is its bound.
  /// What cannot be locked is backed with memory at once, which is no residency: the hint counts
  /// as refused, and the first time a report says so. A page that two parts share stays locked
  /// until both have ended.
  [[nodiscard]] Residency* residency() noexcept override;

 private:
  ~HostDevice() override;
  Expected<Piece> obtain(std::size_t bytes, std::size_t alignment, Stream stream) noexcept override;
  void give_back(Piece piece, Stream stream) noexcept override;
  [[nodiscard]] bool is_mapped(std::size_t bytes) const noexcept {
    return bytes >= options_.map_from;
  }

  const Options options_;
  const std::unique_ptr<HostPages> pages_;
  const std::unique_ptr<HostResidency> residency_;
};

/// Bytes of memory this process may use: the machine's, or less where a control group says so.
/// Reads files; for set-up.
std::size_t host_memory() noexcept;

/// Bytes of it that are free now, as the system and the control group see it: file caches count as
/// free. Reads files, allocates nothing.
std::size_t free_host_memory() noexcept;

}  // namespace cistern
