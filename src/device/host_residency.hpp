// Keeps pages of the CPU's memory from being paged out, by locking them. A process may lock only so
// much (RLIMIT_MEMLOCK); beyond that its pages are at least backed with memory now, and one report
// says that they are no more than that.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cistern/core/residency.hpp"
#include "device/page_cover.hpp"

namespace cistern {

class HostResidency final : public Residency {
 public:
  /// What is asked of the system, for tests to answer otherwise; as mlock and munlock.
  struct System {
    int (*lock)(const void* start, std::size_t bytes) noexcept;
    int (*unlock)(const void* start, std::size_t bytes) noexcept;
  };

  explicit HostResidency(Device& device);
  HostResidency(Device& device, const System& system);

 private:
  struct Pages {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
  };

  static Pages pages_of(const Block& part) noexcept;
  static void populate(const Block& part) noexcept;

  Expected<void> do_make_resident(std::span<const Block> parts) noexcept override;
  void do_end_residency(std::span<const Block> parts) noexcept override;
  void refused(const Error& error) noexcept override;
  bool lock(const Block& part) noexcept;
  void unlock(const Block& part) noexcept;

  const System system_;
  PageCover locked_;
  std::size_t locked_bytes_ = 0;
  bool told_ = false;                    // or about to be
  std::atomic<bool> to_be_told_{false};  // once no lock is held
};

}  // namespace cistern
