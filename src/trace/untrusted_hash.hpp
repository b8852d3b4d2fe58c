// Hash tables whose keys come from a file. The standard hash of a number is the number itself, so
// that whoever writes the file can make all of its keys collide, and reading it take the square of
// its length. These are salted anew in each process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <unordered_map>
#include <unordered_set>

#include "core/splitmix.hpp"

namespace cistern::detail {

struct UntrustedHash {
  std::size_t operator()(std::uint64_t key) const noexcept {
    return static_cast<std::size_t>(splitmix_finish(key ^ salt()));
  }

 private:
  static std::uint64_t salt() {
    static const std::uint64_t value =
        (std::uint64_t{std::random_device()()} << 32U) ^ std::random_device()();
    return value;
  }
};

/// Their order of iteration differs from process to process: nothing that is shown may depend on
/// it.
template <class Value>
using UntrustedMap = std::unordered_map<std::uint64_t, Value, UntrustedHash>;
using UntrustedSet = std::unordered_set<std::uint64_t, UntrustedHash>;

}  // namespace cistern::detail
