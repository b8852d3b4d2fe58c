// Watches the blocks a stack hands out and remembers the first that breaks a law: one that is
// smaller or less aligned than was asked for, or that overlaps another live one.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "cistern/core/block.hpp"
#include "cistern/core/device.hpp"

namespace cistern::detail {

class BlockChecker {
 public:
  explicit BlockChecker(const DeviceLimits& limits) : limits_(limits) {}

  /// O(log live blocks).
  void granted(const Request& request, const Block& block);
  void freed(const Block& block);

  /// What was wrong first; empty if nothing.
  [[nodiscard]] const std::string& error() const noexcept { return error_; }

 private:
  /// Where a block starts: an address, or a place within an object.
  struct Place {
    std::uintptr_t object = 0;  // 0 where memory is an address
    std::uintptr_t start = 0;

    auto operator<=>(const Place&) const = default;
  };

  [[nodiscard]] Place place_of(const Block& block) const noexcept;
  [[nodiscard]] bool is_free(const Place& place, std::uintptr_t end) const;
  void fail(const Request& request, const Block& block, const char* what);

  const DeviceLimits& limits_;
  std::map<Place, std::uintptr_t> live_;  // each block's end, by its start
  std::string error_;
};

}  // namespace cistern::detail
